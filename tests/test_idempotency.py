"""Idempotency keys and rate limits: one effect, one answer, whoever sends it how often."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from billing import connections as verbs
from billing import replays
from billing.api import limits
from billing.models import Connection, IdempotentCall, SecretKey, WebhookEndpoint
from meters.models import UsageRequest
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def shop() -> Any:
    class Shop:
        merchant = factories.make_merchant()
        key = factories.make_key(merchant)

        def post(
            self, path: str, body: Any, idempotency: str | None = "k1", key: str | None = None
        ) -> Any:
            headers = {"Authorization": f"Bearer {key or self.key}"}
            if idempotency is not None:
                headers["Idempotency-Key"] = idempotency
            return Client().post(path, body, content_type="application/json", headers=headers)

    return Shop()


def test_the_same_call_is_answered_again_and_done_once(shop: Any) -> None:
    first = shop.post("/v1/customers", {"email": "a@b.example"})
    again = shop.post("/v1/customers", {"email": "a@b.example"})
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first
    assert Connection.objects.count() == 1
    assert shop.post("/v1/customers", {"email": "a@b.example"}, "k2").content != first.content
    assert Connection.objects.count() == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/customers", {"email": "c@d.example"}), ("/v1/connections", {"email": "a@b.example"})],
)
def test_another_call_with_the_key_is_refused(shop: Any, path: str, body: Any) -> None:
    shop.post("/v1/customers", {"email": "a@b.example"})
    refused = shop.post(path, body)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "idempotency_key_reused"
    assert Connection.objects.count() == 1


def test_a_key_is_of_one_merchant(shop: Any) -> None:
    other = factories.make_key(factories.make_merchant())
    shop.post("/v1/customers", {"email": "a@b.example"})
    made = shop.post("/v1/customers", {"email": "a@b.example"}, key=other)
    assert made.status_code == 201 and "Idempotent-Replayed" not in made
    assert Connection.objects.count() == 2


def test_a_refusal_is_answered_again_too(shop: Any) -> None:
    refused = shop.post("/v1/customers", {"email": "nobody"})
    again = shop.post("/v1/customers", {"email": "nobody"})
    assert refused.status_code == again.status_code == 400
    assert refused.content == again.content
    assert again["Idempotent-Replayed"] == "true"


def test_twenty_at_once_are_one(shop: Any) -> None:
    answers: list[Any] = []

    def send() -> None:
        try:
            answers.append(shop.post("/v1/customers", {"email": "a@b.example"}))
        finally:
            connections.close_all()

    senders = [threading.Thread(target=send) for _ in range(20)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert Connection.objects.count() == 1


def test_a_process_that_dies_leaves_neither_the_effect_nor_the_key(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = verbs.create

    def die(*args: Any, **kwargs: Any) -> Any:
        create(*args, **kwargs)
        raise SystemExit

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(verbs, "create", die)
        shop.post("/v1/customers", {"email": "a@b.example"})
    connection.close()
    assert not IdempotentCall.objects.exists() and not Connection.objects.exists()
    assert shop.post("/v1/customers", {"email": "a@b.example"}).status_code == 201


def test_a_lease_ends_by_itself(shop: Any) -> None:
    now = timezone.now()
    call = {"key": "k", "meaning": replays.fingerprint("POST", "/v1/x", b"{}")}
    assert replays.begin(shop.merchant, now=now, **call) is None
    with pytest.raises(Exception, match="being answered"):
        replays.begin(shop.merchant, now=now + timedelta(seconds=1), **call)
    assert replays.begin(shop.merchant, now=now + replays.LEASE, **call) is None


def test_a_charge_with_a_key_is_replayed_and_charged_once(shop: Any) -> None:
    plan = factories.make_plan(shop.merchant)
    factories.make_meter(shop.merchant, plan)
    customer = factories.make_subscription(plan, now=timezone.now()).connection
    body = {
        "request_id": "r1",
        "connection_id": customer.public_id,
        "meter_slug": "chat",
        "input_tokens": 10,
    }
    first = shop.post("/v1/requests", body)
    again = shop.post("/v1/requests", body)
    assert first.status_code == 200 and first.content == again.content
    assert again["Idempotent-Replayed"] == "true"
    other = shop.post("/v1/requests", body | {"request_id": "r2"})
    assert other.status_code == 409
    assert UsageRequest.objects.count() == 1


def test_a_secret_that_is_shown_once_is_kept_sealed_and_shown_again_to_the_same_call(
    shop: Any,
) -> None:
    for path, body, name in (
        ("/v1/secret_keys", {"name": "CI"}, "secret_key"),
        ("/v1/webhooks", {"name": "x", "url": "https://h.example.com"}, "webhook_secret"),
    ):
        first = shop.post(path, body, path).json()
        assert shop.post(path, body, path).json() == first
        kept = bytes(IdempotentCall.objects.get(key=path).answer or b"")
        assert first[name].encode() not in kept
    assert SecretKey.objects.count() == 2 and WebhookEndpoint.objects.count() == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\u00e9"])
def test_a_key_that_is_none_is_refused(shop: Any, key: str) -> None:
    refused = shop.post("/v1/customers", {}, key)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_idempotency_key"
    assert not Connection.objects.exists()


def test_answers_are_kept_for_a_day_and_then_forgotten(shop: Any) -> None:
    shop.post("/v1/customers", {})
    assert replays.forget(timezone.now() + timedelta(hours=25)) == 0
    assert replays.forget(timezone.now() + timedelta(hours=49)) == 1


def test_a_key_that_calls_too_often_is_told_when_to_come_back(shop: Any, settings: Any) -> None:
    settings.API_CALLS_A_MINUTE, settings.WEB_PROCESSES = 6, 2
    limits._windows.clear()
    headers = {"Authorization": f"Bearer {shop.key}"}
    left = []
    for _ in range(3):
        answer = Client().get("/v1/connections", headers=headers)
        assert answer.status_code == 200 and answer["X-RateLimit-Limit"] == "3"
        left.append(answer["X-RateLimit-Remaining"])
    assert left == ["2", "1", "0"]
    refused = Client().get("/v1/connections", headers=headers)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limited"
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert refused["X-RateLimit-Remaining"] == "0"
    other = factories.make_key(shop.merchant)
    assert (
        Client().get("/v1/connections", headers={"Authorization": f"Bearer {other}"}).status_code
        == 200
    )


def test_a_charge_says_its_rate_and_asks_the_database_once(
    shop: Any, django_assert_num_queries: Any
) -> None:
    plan = factories.make_plan(shop.merchant)
    factories.make_meter(shop.merchant, plan)
    customer = factories.make_subscription(plan, now=timezone.now()).connection
    body = {"request_id": "r", "connection_id": customer.public_id, "meter_slug": "chat"}
    with django_assert_num_queries(1):
        answer = shop.post("/v1/requests", body, None)
    assert answer.status_code == 200 and int(answer["X-RateLimit-Remaining"]) > 0
