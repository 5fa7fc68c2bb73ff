"""`/v1/forward_tokens` and `/v1/spend_keys`: one table, its wall, and what a text is worth."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from meters.models import ForwardToken
from tests import factories

pytestmark = pytest.mark.django_db


class Shop:
    def __init__(self) -> None:
        self.merchant = factories.make_merchant()
        self.plan = factories.make_plan(self.merchant)
        self.meter = factories.make_meter(self.merchant, self.plan)
        self.connection = factories.make_subscription(self.plan, now=timezone.now()).connection
        self.key = factories.make_key(self.merchant)

    def send(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        return Client().generic(
            method,
            f"/v1/{path}",
            "" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.key if key is None else key}"},
        )

    def made(self, **fields: Any) -> dict[str, Any]:
        body = {"name": "Bot", "connection_id": self.connection.public_id, "meter_slug": "chat"}
        answer = self.send("POST", "forward_tokens", body | fields)
        assert answer.status_code == 201, answer.content
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_token_is_shown_once_and_says_who_pays_in_both_words(shop: Shop) -> None:
    made = shop.made(spend_limit={"amount": "5", "cycle": "weekly"}, rate_limit={"rpm": 60})
    text = made.pop("forward_token")
    assert text.startswith("lft_test_") and made["token_hint"].endswith(text[-4:])
    assert made["connection_id"] == made["customer_id"] == shop.connection.public_id
    assert (made["meter_id"], made["meter_slug"]) == (shop.meter.public_id, "chat")
    assert made["spend_limit"] == {"amount": "5.0000000000", "cycle": "weekly"}
    assert made["rate_limit"] == {"rpm": 60, "burst": None}
    one = shop.send("GET", f"forward_tokens/{made['forward_token_id']}")
    listed = shop.send("GET", "forward_tokens")
    assert one.json() == made and listed.json()["data"] == [made]
    assert text not in one.content.decode() + listed.content.decode()
    as_spend_key = shop.send("GET", f"spend_keys/{made['forward_token_id']}").json()
    assert as_spend_key["key_preview"] == made["token_hint"]


def test_the_newer_word_for_the_customer_is_read_too(shop: Shop) -> None:
    body = {"name": "Bot", "customer_id": shop.connection.public_id, "meter_slug": "chat"}
    assert shop.send("POST", "forward_tokens", body).json()["connection_id"] == (
        shop.connection.public_id
    )


def test_what_a_change_leaves_out_stays_and_null_is_no_limit(shop: Shop) -> None:
    limits = {"spend_limit": {"amount": "5", "cycle": "daily"}, "allowed_models": ["a", "b"]}
    token = shop.made(**limits, expires_at="2099-01-01T00:00:00Z")["forward_token_id"]
    changed = shop.send("PATCH", f"forward_tokens/{token}", {"allowed_models": None}).json()
    assert changed["allowed_models"] is None and changed["spend_limit"]["cycle"] == "daily"
    paused = shop.send("PUT", f"forward_tokens/{token}", {"status": "paused", "name": "X"}).json()
    assert (paused["status"], paused["name"]) == ("paused", "X")
    assert paused["spend_limit"] == changed["spend_limit"] and paused["expires_at"]


def test_rotating_changes_the_text_and_revoking_ends_it(shop: Shop) -> None:
    made = shop.made()
    token, old = made["forward_token_id"], made["forward_token"]
    before = ForwardToken.objects.get()
    fresh = shop.send("POST", f"forward_tokens/{token}/rotate").json()["forward_token"]
    after = ForwardToken.objects.get()
    assert fresh != old and bytes(after.secret_hash) != bytes(before.secret_hash)
    gone = shop.send("DELETE", f"forward_tokens/{token}")
    assert gone.json() == {"id": token, "deleted": True}
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
        assert shop.send(method, f"forward_tokens/{token}{path}", {}).status_code == 404
    assert shop.send("GET", "forward_tokens").json()["data"] == []


def test_another_merchants_tokens_connections_and_meters_are_not_found(shop: Shop) -> None:
    theirs = Shop()
    token = theirs.made()["forward_token_id"]
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")):
        assert shop.send(method, f"forward_tokens/{token}{path}", {}).status_code == 404
        assert shop.send(method, f"spend_keys/{token}{path}", {}).status_code == 404
    body = {"name": "Bot", "connection_id": theirs.connection.public_id, "meter_slug": "chat"}
    refused = shop.send("POST", "forward_tokens", body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "connection_id")
    other = factories.make_meter(theirs.merchant, theirs.plan, slug="theirs")
    refused = shop.send("POST", "forward_tokens", body | {"meter_slug": other.slug})
    assert refused.status_code == 404
    assert ForwardToken.objects.of(shop.merchant).count() == 0
    assert ForwardToken.objects.get().revoked_at is None


@pytest.mark.parametrize("path", ["forward_tokens", "spend_keys"])
def test_without_a_key_nothing_is_done(shop: Shop, path: str) -> None:
    for method, place in (("GET", path), ("POST", path), ("GET", f"{path}/spk_test_x")):
        assert shop.send(method, place, {"name": "x"}, key="").status_code == 401
    assert not ForwardToken.objects.exists()


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"name": ""}, 400, "name"),
        ({"name": None}, 400, "name"),
        ({"meter_slug": None}, 400, "meter_slug"),
        ({"meter_slug": "none"}, 404, "meter_slug"),
        ({"connection_id": "con_1"}, 404, "connection_id"),
        ({"spend_limit": "5"}, 400, "spend_limit"),
        ({"spend_limit": {"amount": "5"}}, 400, "spend_limit.cycle"),
        ({"spend_limit": {"amount": 5.5, "cycle": "daily"}}, 400, "spend_limit.amount"),
        ({"spend_limit": {"amount": "-5", "cycle": "daily"}}, 400, "spend_limit.amount"),
        ({"spend_limit": {"cycle": "daily"}}, 400, "spend_limit.amount"),
        ({"spend_limit": {"amount": "5", "cycle": "hourly"}}, 400, "spend_limit.cycle"),
        ({"request_limit": {"count": 0, "cycle": "daily"}}, 400, "request_limit.count"),
        ({"request_limit": {"count": 1.5, "cycle": "daily"}}, 400, "request_limit.count"),
        ({"rate_limit": {"rpm": True}}, 400, "rate_limit.rpm"),
        ({"rate_limit": {"rpm": 5, "burst": 0}}, 400, "rate_limit.burst"),
        ({"allowed_models": "gpt-4o"}, 400, "allowed_models"),
        ({"allowed_models": [""]}, 400, "allowed_models"),
        ({"expires_at": "tomorrow"}, 400, "expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 400, "expires_at"),
        ({"request_shape": "gemini"}, 400, "request_shape"),
        ({"status": "revoked"}, 400, "status"),
    ],
)
def test_what_is_no_token_is_refused_by_name(
    shop: Shop, fields: dict[str, Any], status: int, param: str
) -> None:
    body = {"name": "Bot", "connection_id": shop.connection.public_id, "meter_slug": "chat"}
    answer = shop.send("POST", "forward_tokens", body | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert not ForwardToken.objects.exists()


def test_a_token_made_twice_with_one_idempotency_key_is_one(shop: Shop) -> None:
    answers = [
        Client().post(
            "/v1/forward_tokens",
            {"name": "Bot"},
            content_type="application/json",
            headers={"Authorization": f"Bearer {shop.key}", "Idempotency-Key": "one"},
        )
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json() and ForwardToken.objects.count() == 1


def test_an_expired_token_may_still_be_renamed(shop: Shop) -> None:
    token = shop.made()["forward_token_id"]
    ForwardToken.objects.update(expires_at=timezone.now())
    assert shop.send("PATCH", f"forward_tokens/{token}", {"name": "Old"}).json()["name"] == "Old"
