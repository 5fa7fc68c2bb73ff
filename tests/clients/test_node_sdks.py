"""The stock Node SDKs and a stand-in provider that is not ours, through a live gateway; and the
ready code of the console, run as it is shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from lava.console.gateway import snippets
from meters.gateway import keyring, spendkeys
from meters.models import ProviderKey
from tests.clients.aimock import FOLDER, PROGRAM, SAID, Aimock
from tests.meters.gateway.live import PROVIDER_KEY, Shop, chat, settled, shop, sound

__all__ = ["shop"]

NODE = shutil.which("node") or ""
# 150 tokens at 3 a million.
FEE = Decimal("0.00045")


def needs_node() -> None:
    if NODE and PROGRAM.exists() and (FOLDER / "node_modules/openai").exists():
        return
    if os.environ.get("CI"):
        pytest.fail("Node or its packages are missing: npm ci --prefix tests/clients")
    pytest.skip("Node or its packages are missing: npm ci --prefix tests/clients")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aimock]:
    needs_node()
    mock = Aimock(NODE, tmp_path_factory.mktemp("aimock"))
    yield mock
    mock.stop()


@pytest.fixture
def mock(running: Aimock, shop: Shop) -> Iterator[Aimock]:
    """The stand-in, as a provider of the shop's in three dialects."""
    for slug, dialect, slot, path in (
        ("mock", "openai", "authorization", "/v1"),
        ("mock-claude", "anthropic", "x-api-key", "/v1"),
        ("mock-gem", "google", "x-goog-api-key", "/v1beta"),
    ):
        shop.provide(slug, f"{running.url}{path}", dialect=dialect, slot=slot)
    running.forget()
    yield running
    running.chaos()


ASK = [{"role": "user", "content": "hello"}]
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("mock/v1/chat/completions", {"model": "gpt-4o-mini", "messages": ASK}),
    "chat, streamed": (
        "mock/v1/chat/completions",
        {"model": "gpt-4o-mini", "messages": ASK, "stream": True},
    ),
    "responses": ("mock/v1/responses", {"model": "gpt-4o-mini", "input": "hello"}),
    "responses, streamed": (
        "mock/v1/responses",
        {"model": "gpt-4o-mini", "input": "hello", "stream": True},
    ),
    "messages": (
        "mock-claude/v1/messages",
        {"model": "claude-sonnet-4-5", "max_tokens": 99, "messages": ASK},
    ),
    "messages, streamed": (
        "mock-claude/v1/messages",
        {"model": "claude-sonnet-4-5", "max_tokens": 99, "messages": ASK, "stream": True},
    ),
    "gemini": ("mock-gem/v1beta/models/gemini-2.5-flash:generateContent", GEMINI),
    "gemini, streamed": (
        "mock-gem/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        GEMINI,
    ),
}


def test_every_dialect_of_the_stand_in_is_charged_exactly(shop: Shop, mock: Aimock) -> None:
    bodies = {}
    for name, (path, body) in CALLS.items():
        headers = {"x-lava-metadata-team": "a", "cookie": "a=b", "x-forwarded-for": "9.9.9.9"}
        answer = shop.ask(f"/v1/forward/{path}", json=body, headers=headers)
        assert answer.status_code == 200, (name, answer.text)
        bodies[name] = answer.text
    for name, call in zip(CALLS, settled(shop), strict=True):
        assert (call.usage["input"], call.usage["output"]) == (120, 30), name
        assert (call.charged, call.metadata) == (FEE, {"team": "a"}), name
    # It sends a chat stream's usage only when asked; we asked, and the client did not see it.
    assert '"usage"' not in bodies["chat, streamed"] and "[DONE]" in bodies["chat, streamed"]
    arrived = mock.journal()
    assert [row["path"].partition("?")[0] for row in arrived] == [
        "/" + path.partition("/")[2].partition("?")[0] for path, _ in CALLS.values()
    ]
    for row in arrived:
        sent = set(row["headers"])
        assert not {name for name in sent if name.startswith(("x-lava", "x-forwarded", "cookie"))}
        assert shop.key not in json.dumps(row) and PROVIDER_KEY not in json.dumps(row["body"])
    assert arrived[1]["body"]["stream_options"] == {"include_usage": True}
    sound(shop)


def test_what_fails_at_the_provider_is_free_and_asked_once(shop: Shop, mock: Aimock) -> None:
    for rates, status, code in (
        ({"dropRate": 1}, 500, "http_500"),
        ({"rateLimitRate": 1}, 429, "http_429"),
        ({"disconnectRate": 1}, 502, "provider_unreachable"),
    ):
        for stream in (False, True):
            mock.chaos()
            mock.forget()
            mock.chaos(**rates)
            answer = shop.ask("/v1/forward/mock/v1/chat/completions",
                              json=chat("hello", stream=stream))  # fmt: skip
            assert answer.status_code == status, (rates, answer.text)
            if status == 429:
                assert int(answer.headers["retry-after"]) >= 0
            call = settled(shop)[-1]
            assert (call.status, call.error, call.charged) == ("error", code, 0), rates
            assert len(mock.journal()) == 1, rates
    assert shop.balance() == 25
    sound(shop)


def test_an_answer_that_is_no_json_passes_and_is_charged_by_estimate(
    shop: Shop, mock: Aimock
) -> None:
    mock.chaos(malformedRate=1)
    answer = shop.ask("/v1/forward/mock/v1/chat/completions", json=chat("hello"))
    assert answer.status_code == 200
    with pytest.raises(ValueError):
        answer.json()
    call = settled(shop)[-1]
    assert "estimated" in call.flags and call.usage["input"] == call.estimated_input
    sound(shop)


def test_the_stock_node_sdks_work_with_base_url_and_key_alone(shop: Shop, mock: Aimock) -> None:
    poor = Shop(shop.server, credit="0.000001")
    poor.provide("mock", f"{mock.url}/v1")
    told = {
        "base": f"{shop.server.url}/v1/forward/mock/v1",
        "token": shop.token(),
        "poor": poor.token(),
    }
    done = subprocess.run(
        [NODE, str(FOLDER / "providers.mjs"), json.dumps(told)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=FOLDER,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["openai_whole"] == said["ai_whole"] == [SAID, 150]
    # No usage and no frame without choices where the client asked for none.
    assert said["openai_stream"] == [SAID, 0, 0] and said["openai_counted"] == 150
    assert said["ai_stream"] == [SAID, 150]
    assert said["openai_tool"] == {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    assert said["ai_tool"] == {"city": "Oslo"}
    assert said["openai_response"] == said["ai_response"] == SAID
    assert said["openai_embedding"] == said["ai_embedding"] == 3
    # A typed error, after exactly one attempt each.
    assert said["openai_refused"] == [True, 402, "insufficient_credits"]
    assert said["openai_refused_stream"] == [True, 402, "insufficient_credits"]
    assert said["ai_refused"] == [True, 402, False]
    assert [(call.status, call.http_status) for call in poor.calls()] == [("blocked", 402)] * 3
    calls = settled(shop)
    assert len(calls) == len(mock.journal()) == 11
    for call in calls:
        if call.endpoint.endswith("/embeddings"):
            # The mock states zeros: it is charged by its text.
            assert call.charged > 0 and "estimated" in call.flags
        else:
            assert call.charged == FEE, call.endpoint
    sound(shop)


@pytest.mark.parametrize("key", ["curl", "openai-python", "openai-node", "ai-sdk", "anthropic",
                                 "google"])  # fmt: skip
def test_the_ready_code_of_the_console_runs_as_it_is_shown(shop: Shop, key: str) -> None:
    _, token = spendkeys.make(
        shop.merchant, name="t", now=shop.now, connection=shop.connection, meter=shop.meter
    )
    keyed = ProviderKey.objects.of(shop.merchant).values_list("provider", flat=True)
    made = snippets.make(shop.server.url, keyring.rows(shop.merchant), keyed=set(keyed))
    (snippet,) = [row for row in made if row.key == key]
    assert not snippet.missing
    script: Path | None = None
    if key == "curl":
        words = ["bash", "-c", f"set -e; {snippet.code}"]
    elif key in ("openai-node", "ai-sdk"):
        needs_node()
        # Where Node finds the packages.
        script = FOLDER / f".snippet-{key}-{os.getpid()}.mjs"
        script.write_text(snippet.code)
        words = [NODE, str(script)]
    else:
        if not find_spec("openai"):
            pytest.skip("the provider SDKs are not installed")
        words = [sys.executable, "-c", snippet.code]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=60,
            env=os.environ | {"LAVA_TOKEN": token},
        )  # fmt: skip
    finally:
        if script is not None:
            script.unlink()
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]
    (call,) = settled(shop)
    assert call.charged > 0 and call.token_id is not None
    assert httpx.get(f"{shop.server.url}/healthz").is_success
