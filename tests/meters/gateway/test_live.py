"""Calls through a live gateway to the local AI provider."""

from __future__ import annotations

import json
from decimal import Decimal

import httpx
import pytest

from meters.gateway import keyring
from meters.models import RequestCost
from tests import factories
from tests.meters.gateway.live import PROVIDER_KEY, Server, Shop, chat, settled, shop, sound

__all__ = ["shop"]


def test_a_call_is_forwarded_measured_and_charged(shop: Shop) -> None:
    answer = shop.ask(headers={"cookie": "a=b", "x-lava-metadata": '{"team": "a"}', "x-own": "1"})
    assert answer.status_code == 200, answer.text
    used = answer.json()["usage"]
    call = shop.call()
    fee = Decimal(used["total_tokens"]) * 3 / 1_000_000
    assert Decimal(answer.headers["x-lava-charge"]) == fee == call.charged
    assert Decimal(answer.headers["x-lava-balance"]) == 25 - fee == shop.balance()
    assert answer.headers["x-lava-request-id"] == call.public_id
    assert float(answer.headers["x-lava-overhead-ms"]) >= 0
    assert (call.status, call.http_status, call.metadata) == ("completed", 200, {"team": "a"})
    (arrived,) = shop.server.journal()
    assert arrived["headers"]["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert arrived["headers"]["x-own"] == "1"
    assert arrived["headers"]["accept-encoding"] == "identity"
    assert not {"cookie", "x-lava-metadata"} & set(arrived["headers"])
    assert json.loads(arrived["body"]) == chat()
    found = httpx.get(
        f"{shop.server.url}/v1/requests/{call.public_id}",
        headers={"authorization": f"Bearer {shop.key}"},
    )
    assert Decimal(found.json()["fee"]["amount"]) == fee
    sound(shop)


def lines(answer: httpx.Response) -> list[str]:
    return [line for line in answer.text.splitlines() if line.startswith("data: ")]


def test_a_chat_stream_is_charged_and_the_usage_we_asked_for_is_not_shown(shop: Shop) -> None:
    answer = shop.ask(json=chat(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert '"usage":{' not in answer.text and lines(answer)[-1] == "data: [DONE]"
    call = shop.call()
    assert call.charged > 0 and call.stream and call.usage["output"] > 0
    (arrived,) = shop.server.journal()
    assert json.loads(arrived["body"])["stream_options"] == {"include_usage": True}
    assert shop.balance() == 25 - call.charged
    sound(shop)


def test_a_client_that_asks_for_usage_gets_it_and_its_body_is_untouched(shop: Shop) -> None:
    body = b'{ "stream_options":{"include_usage":true}, "stream":true, "model":"gpt-4o",\n'
    body += b'"messages":[{"role":"user","content":"\\u00e9"}] }'
    answer = shop.ask(content=body, headers={"content-type": "application/json"})
    assert any('"usage":{' in line for line in lines(answer))
    assert shop.server.journal()[0]["body"].encode() == body
    assert shop.call().charged > 0


@pytest.mark.parametrize("stream", [False, True])
def test_the_other_dialects(shop: Shop, stream: bool) -> None:
    said = {"model": "claude-sonnet-4-5", "max_tokens": 20, "stream": stream,
            "messages": [{"role": "user", "content": "Hi"}]}  # fmt: skip
    ours = {"x-api-key": shop.token(), "anthropic-version": "2023-06-01"}
    url = shop.server.url
    anthropic = httpx.post(f"{url}/v1/forward/claude/v1/messages", json=said, headers=ours)
    assert anthropic.status_code == 200, anthropic.text
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    gemini = httpx.post(
        f"{url}/v1/forward/gem/v1beta/models/gemini-2.5-flash:{verb}",
        json={"contents": [{"parts": [{"text": "Hi"}]}]},
        headers={"x-goog-api-key": shop.token()},
    )
    assert gemini.status_code == 200, gemini.text
    said = {"model": "gpt-5-mini", "input": "Hi", "stream": stream}
    responses = shop.ask("/v1/forward/local/v1/responses", json=said)
    assert responses.status_code == 200
    calls = settled(shop)
    assert [call.model for call in calls] == [
        "claude-sonnet-4-5", "gemini-2.5-flash", "gpt-5-mini"
    ]  # fmt: skip
    assert all(call.charged > 0 and not set(call.flags) - {"unpriced"} for call in calls)
    first, second, third = shop.server.journal()
    assert first["headers"]["x-api-key"] == PROVIDER_KEY
    assert second["headers"]["x-goog-api-key"] == PROVIDER_KEY
    assert third["headers"]["authorization"] == f"Bearer {PROVIDER_KEY}"
    sound(shop)


def test_gemini_as_an_array(shop: Shop) -> None:
    answer = shop.ask(
        "/v1/forward/gem/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        json={"contents": [{"parts": [{"text": "Hi"}]}]},
    )
    assert answer.json()[-1]["usageMetadata"]["candidatesTokenCount"] == shop.call().usage["output"]


def test_embeddings_and_model_lists(shop: Shop) -> None:
    said = {"model": "text-embedding-3-small", "input": ["a b c", "d"]}
    assert shop.ask("/v1/forward/local/v1/embeddings", json=said).status_code == 200
    assert shop.ask("/v1/forward/local/v1/models", method="GET").json()["data"]
    first, second = settled(shop)
    assert first.usage == {"input": 4} and first.charged > 0
    assert (second.method, second.charged, second.hold_id) == ("GET", 0, None)
    sound(shop)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/"])
def test_a_path_without_a_provider_finds_it_by_the_model(shop: Shop, path: str) -> None:
    answer = shop.ask(path, json=chat(model="local/gpt-4o-mini"))
    assert answer.json()["model"] == "gpt-4o-mini"
    assert shop.call().provider == "local"
    assert shop.ask(path, json=chat(model="nobody-knows")).json()["error"]["code"] == (
        "model_not_found"
    )
    missing = shop.ask(path, json=chat(model="gpt-4o-mini"))
    assert missing.json()["error"]["code"] == "provider_key_missing"
    said = {"model": "claude/claude-sonnet-4-5", "max_tokens": 5,
            "messages": [{"role": "user", "content": "Hi"}]}  # fmt: skip
    assert shop.ask("/v1/messages", json=said).status_code == 200


def test_models_lists_what_the_keys_reach(shop: Shop) -> None:
    keyring.set_key(shop.merchant, provider="openai", key="sk-x" * 5, actor="t", now=shop.now)
    found = shop.ask("/v1/models", method="GET").json()
    by_id = {row["id"]: row for row in found["data"]}
    assert by_id["gpt-4o-mini"]["pricing"]["input_per_million"] == "0.1500000000"
    assert {row["owned_by"] for row in found["data"]} == {"openai"}


def test_credits_that_do_not_cover_it_block_before_the_provider_is_called(shop: Shop) -> None:
    poor = Shop(shop.server, credit="0.000001")
    for path, dialect in (
        ("/v1/forward/local/v1/chat/completions", "openai"),
        ("/v1/forward/claude/v1/messages", "anthropic"),
        ("/v1/forward/gem/v1beta/models/g:generateContent", "google"),
    ):
        answer = poor.ask(path)
        assert answer.status_code == 402
        error = answer.json()["error"]
        if dialect == "openai":
            assert (error["code"], error["status"]) == ("insufficient_credits", 402)
        elif dialect == "anthropic":
            assert answer.json()["type"] == "error" and error["type"] == "billing_error"
        else:
            assert (error["code"], error["status"]) == (402, "FAILED_PRECONDITION")
        assert answer.headers["x-lava-request-id"].startswith("req_")
    assert poor.server.journal() == []
    assert [
        (call.status, call.http_status, call.error, call.provider, call.held, call.charged)
        for call in poor.calls()
    ] == [
        ("blocked", 402, "insufficient_credits", slug, 0, 0) for slug in ("local", "claude", "gem")
    ]
    factories.give(poor.connection, "1", now=poor.now)
    assert poor.ask().status_code == 200
    sound(poor)


def test_a_missing_limit_does_not_hold_everything(
    gateway_server: Server, transactional_db: object
) -> None:
    """LiteLLM #27509. 4,096 tokens at 1,000 a million would be 4.096."""
    shop = Shop(gateway_server, credit="0.60", tiers=[("0", "1000")])
    assert shop.ask().status_code == 200
    limited = shop.ask(json=chat(max_tokens=4096))
    assert limited.status_code == 402
    assert [call.held for call in settled(shop)] == [Decimal("0.5"), 0]


def test_a_failed_call_is_free_and_its_error_comes_through(shop: Shop) -> None:
    answer = shop.ask(headers={"x-stub-status": "529"})
    assert answer.status_code == 529 and "asked for status 529" in answer.text
    call = shop.call()
    assert (call.status, call.charged, call.error) == ("error", 0, "http_529")
    assert shop.balance() == 25
    sound(shop)


def test_the_modes_without_a_customer(shop: Shop) -> None:
    for told in ({"connection_id": None, "meter_slug": None}, {"connection_id": None}):
        assert shop.ask(token=shop.token(**told)).status_code == 200
    assert shop.ask(token=shop.key).status_code == 200
    assert shop.ask(token=shop.token(disable_billing=True)).status_code == 200
    calls = settled(shop)
    assert [(call.connection_id is None, call.meter_id is None) for call in calls] == [
        (True, True), (True, False), (True, True), (False, False)
    ]  # fmt: skip
    assert calls[3].billing_disabled and calls[3].usage["output"] > 0
    assert shop.balance() == 25
    sound(shop)


def test_the_callers_own_key_is_sent_and_the_fee_still_charged(shop: Shop) -> None:
    assert shop.ask(token=shop.token(provider_key="sk-of-the-caller")).status_code == 200
    assert shop.server.journal()[0]["headers"]["authorization"] == "Bearer sk-of-the-caller"
    call = shop.call()
    assert call.own_key and call.charged > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/forward/local/v1/batches", {}),
        ("/v1/forward/local/v1/fine_tuning/jobs", {}),
        ("/v1/forward/local/v1/realtime/sessions", {}),
        ("/v1/forward/claude/v1/messages/batches", {}),
        ("/v1/forward/local/v1/responses", {"model": "m", "input": "x", "background": True}),
        ("/v1/forward/gem/v1beta/models/g:batchGenerateContent", {}),
    ],
)
def test_what_runs_on_is_not_forwarded(shop: Shop, path: str, body: object) -> None:
    assert shop.ask(path, json=body).status_code == 403
    assert shop.ask("/v1/forward/local/v1/files/f", method="DELETE").status_code == 403
    assert shop.server.journal() == []


def test_a_target_in_the_body_is_ignored(shop: Shop) -> None:
    """LiteLLM #24952: `api_base` in the body."""
    assert shop.ask(json=chat(api_base="http://127.0.0.1:1/")).status_code == 200


@pytest.mark.parametrize("token", ["sk-x", "aks_test_x", "lft_test_x", "e30="])
def test_no_token_no_call(shop: Shop, token: str) -> None:
    for path in ("/v1/forward/local/v1/chat/completions", "/v1/chat/completions", "/v1/models"):
        answer = shop.ask(path, token=token)
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_key"
        assert answer.headers["x-lava-request-id"]
    assert shop.server.journal() == []


def test_a_percentage_meter_takes_its_share_of_the_cost(shop: Shop) -> None:
    share = Shop(shop.server, rate_type="percentage", tiers=[("0", "20")])
    unknown = share.ask()
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (422, "cost_unknown")
    assert share.server.journal() == []
    rates = {"input": Decimal(1), "output": Decimal(2)}
    keyring.set_price(
        share.merchant, provider="local", model="gpt-4o*", rates=rates, actor="t", now=share.now
    )
    answer = share.ask()
    used = answer.json()["usage"]
    cost = (Decimal(used["prompt_tokens"]) + 2 * Decimal(used["completion_tokens"])) / 1_000_000
    assert share.call().charged == cost / 5
    stored = RequestCost.objects.get(pk=share.call().pk)
    assert (stored.source, stored.amount) == ("override", cost)
    assert stored.rates == {"input": "1", "output": "2"}
    sound(share)
