"""What goes wrong between a client and a provider: nothing is free, nothing twice, nothing held."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from django.utils import timezone

from billing.models import Hold
from meters.gateway import sweep
from meters.gateway.models import GatewayCall, Provider, ProviderKey
from meters.models import UsageRequest
from tests.meters.gateway.live import (
    PROVIDER_KEY,
    Server,
    Shop,
    chat,
    settled,
    shop,
    sound,
)
from tests.meters.gateway.upstream_server import Script, Upstream
from tests.product import eventually

__all__ = ["shop"]

SSE = "text/event-stream"
OUR = "/v1/forward/replay/v1/chat/completions"


@pytest.fixture
def replay(shop: Shop) -> Iterator[Upstream]:
    upstream = Upstream()
    shop.provide("replay", f"{upstream.url}/v1")
    yield upstream
    upstream.close()


def usage(read: Any = 100, made: Any = 50) -> dict[str, Any]:
    return {"prompt_tokens": read, "completion_tokens": made}


def chunk(text: str = "word", **fields: Any) -> bytes:
    told = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": text}}]} | fields
    return b"data: " + json.dumps(told).encode() + b"\n\n"


FEE = Decimal("0.00045")


def test_two_hundred_at_once_pass_no_more_than_the_credits_cover(
    gateway_server: Server, transactional_db: object
) -> None:
    """A balance for 10 calls of 1 each; also LiteLLM #40095, concurrent first requests."""
    server = gateway_server
    shop = Shop(server, credit="10", unit="requests", tiers=[("0", "1")])
    token = shop.token()

    async def storm() -> list[int]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            answers = await asyncio.gather(
                *(
                    client.post(
                        f"{server.url}/v1/forward/local/v1/chat/completions",
                        json=chat(stream=number % 2 == 0),
                        headers={"authorization": f"Bearer {token}", "x-stub-delay-ms": "200"},
                    )
                    for number in range(200)
                )
            )
        return [answer.status_code for answer in answers]

    statuses = asyncio.run(storm())
    assert (statuses.count(200), statuses.count(402)) == (10, 190)
    assert len(server.journal()) == 10
    ends = [(call.status, call.http_status) for call in settled(shop)]
    assert (ends.count(("completed", 200)), ends.count(("blocked", 402))) == (10, 190)
    assert shop.balance() == 0
    assert UsageRequest.objects.of(shop.merchant).count() == 10
    sound(shop)


@pytest.mark.parametrize("frames", [0, 1, 5])
def test_a_client_that_leaves_pays_for_what_was_made(
    shop: Shop, replay: Upstream, frames: int
) -> None:
    """LiteLLM #33736: a disconnect was free."""
    pieces = [chunk() for _ in range(20)] + [chunk("", choices=[], usage=usage())]
    replay.answers(Script([*pieces, b"data: [DONE]\n\n"], SSE, pause_s=0.05))
    with httpx.stream(
        "POST", f"{shop.server.url}{OUR}", json=chat(stream=True), timeout=30,
        headers={"authorization": f"Bearer {shop.token()}"},
    ) as answer:  # fmt: skip
        for seen, _ in enumerate(answer.iter_raw()):
            if seen == frames:
                break
    call = shop.call()
    assert (call.status, call.charged, call.flags) == ("completed", FEE, ["unpriced"])
    assert replay.sent == sum(map(len, replay.scripts[0].pieces))
    sound(shop)


def test_a_client_that_leaves_before_the_answer_pays_too(shop: Shop, replay: Upstream) -> None:
    replay.answers(Script([json.dumps({"usage": usage()}).encode()], pause_s=1))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{shop.server.url}{OUR}", json=chat(), timeout=0.3,
            headers={"authorization": f"Bearer {shop.token()}"},
        )  # fmt: skip
    assert shop.call().charged == FEE
    sound(shop)


def test_a_broken_stream_is_charged_as_far_as_it_came_and_not_shown_as_whole(
    shop: Shop, replay: Upstream
) -> None:
    replay.answers(Script([chunk("four" * 10) for _ in range(10)], SSE, breaks=True))
    with pytest.raises(httpx.RemoteProtocolError):
        shop.ask(OUR, json=chat(stream=True))
    call = shop.call()
    assert set(call.flags) == {"cut", "estimated", "unpriced"}
    assert call.usage["output"] == 100 and call.charged > 0
    sound(shop)


def test_a_stream_that_says_it_failed_and_states_no_usage_is_free(
    shop: Shop, replay: Upstream
) -> None:
    replay.answers(Script([chunk(), b'data: {"error": {"message": "tool_use_failed"}}\n\n'], SSE))
    assert "tool_use_failed" in shop.ask(OUR, json=chat(stream=True)).text
    call = shop.call()
    assert (call.status, call.error, call.charged) == ("error", "provider_error", 0)
    sound(shop)


def test_an_answer_without_usage_is_estimated_and_said_to_be(shop: Shop, replay: Upstream) -> None:
    replay.answers(
        Script([json.dumps({"choices": [{"message": {"content": "x" * 400}}]}).encode()])
    )
    shop.ask(OUR)
    call = shop.call()
    assert "estimated" in call.flags and call.usage["output"] == 100
    assert call.usage["input"] == call.estimated_input


def test_bytes_out_equal_bytes_in_but_for_the_frame_we_asked_for(
    shop: Shop, replay: Upstream
) -> None:
    ours = chunk("", choices=[], usage=usage())
    odd = [b": keep-alive\n\n", b"event: x\r\nid: 7\r\ndata: a\r\n\r\n", chunk("\u00e9\u2028\x00"),
           b"retry: 5\n\ndata:no space\n\n", b"data: [DONE]\n\n"]  # fmt: skip
    whole = b"".join([*odd[:-1], ours, odd[-1]])
    for size in (1, 3, 7, 64, len(whole)):
        pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
        replay.answers(Script(pieces, SSE))
        assert shop.ask(OUR, json=chat(stream=True)).content == b"".join(odd)
        asked = chat(stream=True, stream_options={"include_usage": True})
        assert shop.ask(OUR, json=asked).content == whole
    assert {call.charged for call in settled(shop)} == {FEE}


def test_a_provider_that_does_not_know_the_option_is_asked_again_without(
    shop: Shop, replay: Upstream
) -> None:
    refusal = b'{"error": {"message": "Unknown field: stream_options"}}'
    done = [chunk("", usage=usage()), b"data: [DONE]\n\n"]
    replay.answers(Script([refusal], status="400 Bad Request"), Script(done, SSE))
    answer = shop.ask(OUR, json=chat(stream=True))
    assert answer.content == b"".join(done)
    first, second = replay.requests
    assert b"stream_options" in first and b"stream_options" not in second
    assert shop.call().charged == FEE


def test_another_400_comes_through_as_it_is(shop: Shop, replay: Upstream) -> None:
    replay.answers(Script([b'{"error": {"message": "bad role"}}'], status="400 Bad Request"))
    answer = shop.ask(OUR, json=chat(stream=True))
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "bad role"}})
    assert shop.call().charged == 0 and len(replay.requests) == 1


LIES = [
    usage(-5, -5),
    usage(10**30, 10**30),
    usage("1e999", True),
    usage(10_000_000, 40_000_000),
    usage(1.5, [1]),
    {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": -1},
]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("stream", [False, True])
def test_impossible_usage_is_bounded_and_said(
    shop: Shop, replay: Upstream, lie: dict[str, Any], stream: bool
) -> None:
    body = json.dumps({"choices": [], "usage": lie}).encode()
    whole = b"data: " + body + b"\n\n"
    replay.answers(Script([whole] * 3, SSE) if stream else Script([body]))
    shop.ask(OUR, json=chat(stream=stream))
    call = shop.call()
    assert 0 <= call.charged < 10
    if lie.get("total_tokens") is None:
        assert {"suspect", "capped"} & set(call.flags)
    else:
        assert call.charged == FEE
    sound(shop)


def test_the_key_is_never_echoed(shop: Shop, replay: Upstream) -> None:
    echo = f'{{"error": {{"message": "Incorrect API key provided: {PROVIDER_KEY}"}}}}'.encode()
    headers = [f"X-Echo: {PROVIDER_KEY}", "Set-Cookie: a=b", "OpenAI-Organization: org-secret",
               "Access-Control-Allow-Origin: *", "X-RateLimit-Remaining: 7"]  # fmt: skip
    for script in (
        Script([echo], status="401 Unauthorized", headers=headers),
        Script([echo], headers=headers),
        Script([b"data: " + echo + b"\n\n"], SSE, headers=headers),
    ):
        replay.answers(script)
        answer = shop.ask(OUR)
        assert PROVIDER_KEY not in answer.text + str(answer.headers)
        assert "[redacted]" in answer.text
        assert not {
            "set-cookie",
            "openai-organization",
            "access-control-allow-origin",
            "x-echo",
        } & (set(answer.headers))
        assert answer.headers["x-ratelimit-remaining"] == "7"
    assert PROVIDER_KEY not in shop.server.logs()


def test_a_redirect_is_not_followed(shop: Shop, replay: Upstream) -> None:
    for place in ("http://169.254.169.254/latest", f"{shop.server.provider_url}/v1/models"):
        replay.answers(Script([b"{}"], status="302 Found", headers=[f"Location: {place}"]))
        answer = shop.ask(OUR)
        assert answer.status_code == 302 and "location" not in answer.headers
    assert shop.server.journal() == []


def test_a_packed_answer_is_read_as_well(shop: Shop, replay: Upstream) -> None:
    import gzip

    body = json.dumps({"usage": usage(), "choices": []}).encode()
    replay.answers(Script([gzip.compress(body)], headers=["Content-Encoding: gzip"]))
    assert shop.ask(OUR).json()["usage"] == usage()
    bomb = gzip.compress(b'{"a": "' + b"0" * (60 << 20) + b'", "usage": {"prompt_tokens": 7}}')
    replay.answers(Script([bomb], headers=["Content-Encoding: gzip"]))
    shop.ask(OUR)
    first, second = settled(shop)
    assert first.charged == FEE and second.usage["input"] == 7


def test_a_provider_that_is_not_there(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    shop.provide("gone", f"http://127.0.0.1:{port}/v1")
    answer = shop.ask("/v1/forward/gone/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_unreachable")
    assert shop.call().error == "provider_unreachable"
    sound(shop)


def test_a_name_that_leads_into_ones_own_network_is_not_reached(
    shop: Shop, replay: Upstream
) -> None:
    """As DNS rebinding does: the address is checked where the socket is made."""

    Provider.objects.of(shop.merchant).filter(slug="replay").update(
        scheme="https", host="localhost", private=False
    )
    ProviderKey.objects.of(shop.merchant).filter(provider="replay").update(
        origin=f"https://localhost:{replay.port}"
    )
    answer = shop.ask(OUR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "target_not_allowed")
    assert replay.requests == []
    sound(shop)


def test_a_key_stays_with_the_origin_it_was_entered_for(shop: Shop, replay: Upstream) -> None:
    Provider.objects.of(shop.merchant).filter(slug="local").update(port=replay.port)
    answer = shop.ask()
    assert answer.json()["error"]["code"] == "provider_key_missing"
    assert replay.requests == []


def test_an_endless_answer_hurts_no_other_call(shop: Shop, replay: Upstream) -> None:
    replay.answers(Script([b"x" * 65536], "text/plain", endless=True))
    with httpx.stream(
        "POST", f"{shop.server.url}{OUR}", json=chat(), timeout=30,
        headers={"authorization": f"Bearer {shop.token()}"},
    ) as answer:  # fmt: skip
        for number, _ in enumerate(answer.iter_raw()):
            if number == 20:
                started = time.monotonic()
                assert shop.ask().status_code == 200
                assert time.monotonic() - started < 3
            if number > 30:
                break
    replay.answers(Script([b"{}"]))
    replay.close()


def test_a_killed_process_leaves_nothing_free_twice_or_held(
    gateway_server: Server, transactional_db: object
) -> None:
    server = gateway_server
    try:
        shop = Shop(server)
        headers = {"authorization": f"Bearer {shop.token()}"}

        def stream(delay: int) -> None:
            try:
                httpx.post(
                    f"{server.url}/v1/forward/local/v1/chat/completions",
                    json=chat(stream=True),
                    headers=headers | {"x-stub-delay-ms": str(delay), "x-stub-output-tokens": "400",
                                       "x-stub-chunk-delay-ms": "200"},
                    timeout=30,
                )  # fmt: skip
            except httpx.HTTPError:
                pass

        with ThreadPoolExecutor(6) as pool:
            for delay in (0, 0, 0, 30_000, 30_000, 30_000):
                pool.submit(stream, delay)
            # Past a heartbeat: of three something has come back, of three nothing.
            eventually(
                lambda: GatewayCall.objects.of(shop.merchant).filter(seen_bytes__gt=0).count() == 3
            )
            server.kill()
        shop.connection.refresh_from_db()
        assert shop.connection.held > 0
        now = timezone.now()
        assert sweep.dead(now) == []
        later = now + sweep.DEAD_AFTER + timedelta(seconds=1)
        found = sweep.dead(later)
        assert len(found) == 6
        for _ in range(2):
            for call_id in found:
                sweep.settle(call_id, now=later)
        calls = shop.calls()
        assert sorted(call.status for call in calls) == ["abandoned"] * 3 + ["completed"] * 3
        for call in calls:
            charged = UsageRequest.objects.filter(pk=call.pk).count()
            assert charged == (call.status == "completed")
            assert (call.charged > 0) == (call.status == "completed")
        assert not Hold.objects.filter(state="open").exists()
        sound(shop)
        server.process = server.start()
        assert shop.ask().status_code == 200
        sound(shop)
    finally:
        if server.process.poll() is not None:
            server.process = server.start()
