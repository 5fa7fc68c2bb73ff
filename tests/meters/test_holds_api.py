"""`/v1/holds`: set aside, settled with what was really used, given back; by whom and how often."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import Client
from django.utils import timezone

import billing.audit
import meters.audit
from billing import credits, errors, holds, ledger
from billing.models import Connection, Hold, LedgerEntry
from meters.gateway.models import GatewayCall
from meters.models import MeterPosition, UsageRequest
from tests import factories

pytestmark = pytest.mark.django_db

THREADS = 20


class Shop:
    """A subscriber with 25 of credits on a plan that stops; `chat` is 3 a million, then 2."""

    def __init__(self, **plan: Any) -> None:
        self.merchant = factories.make_merchant()
        values = {"price": "0", "when_depleted": "block"}
        self.plan = factories.make_plan(self.merchant, **(values | plan))
        self.meter = factories.make_meter(
            self.merchant, self.plan, tiers=[("0", "3"), ("1000000", "2")]
        )
        self.now = timezone.now()
        self.customer = factories.make_subscription(self.plan, now=self.now).connection
        self.key = factories.make_key(self.merchant)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return Client().generic(
            method,
            f"/v1/holds{path}",
            "" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.key}"} | headers,
        )

    def place(self, amount: str | None = "5", **body: Any) -> Any:
        told = {"connection_id": self.customer.public_id} | body
        return self.call("POST", "", told if amount is None else told | {"amount": amount})

    def settle(self, hold: str, tokens: int, **body: Any) -> Any:
        told = {"meter_slug": "chat", "input_tokens": tokens} | body
        return self.call("POST", f"/{hold}/settle", told)

    def release(self, hold: str) -> Any:
        return self.call("POST", f"/{hold}/release")

    def balance(self) -> dict[str, str]:
        answer = Client().get(
            f"/v1/connections/{self.customer.public_id}/balance",
            headers={"Authorization": f"Bearer {self.key}"},
        )
        found: dict[str, str] = answer.json()
        return found

    def expire(self) -> None:
        assert holds.sweep(now=self.now + timedelta(days=1, seconds=1)) == 1


@pytest.fixture
def shop() -> Shop:
    return Shop()


def silent() -> None:
    for rule in (*billing.audit.RULES, *meters.audit.RULES):
        assert rule.rows() == [], rule.name


def test_an_amount_is_set_aside_and_the_balance_says_so(shop: Shop) -> None:
    made = shop.place("20", purpose="Render scene 7", expires_in_s=60)
    assert made.status_code == 201, made.content
    hold = made.json()
    assert (hold["status"], hold["amount"], hold["request_id"]) == ("open", "20.0000000000", None)
    assert hold["connection_id"] == hold["customer_id"] == shop.customer.public_id
    assert hold["balance"]["available"] == "5.0000000000"
    assert shop.balance()["held"] == "20.0000000000"
    assert shop.balance()["total_remaining"] == "25.0000000000"
    refused = shop.place("5.0000000001")
    assert refused.status_code == 402
    assert refused.json()["error"]["code"] == "insufficient_credits"
    assert Hold.objects.count() == 1
    silent()


def test_usage_is_set_aside_at_the_price_of_its_charge(shop: Shop) -> None:
    told = {"meter_slug": "chat", "input_tokens": 1_500_000}
    hold = shop.place(None, **told).json()
    assert hold["amount"] == "4.0000000000"
    assert not UsageRequest.objects.exists() and not MeterPosition.objects.exists()
    assert not LedgerEntry.objects.filter(kind="usage").exists()
    settled = shop.settle(hold["hold_id"], 1_500_000).json()
    assert settled["fee"]["amount"] == hold["amount"]
    # From here on a million costs 2, and the next hold knows it.
    assert shop.place(None, **told).json()["amount"] == "3.0000000000"
    silent()


def test_usage_that_is_free_is_held_at_nothing(shop: Shop) -> None:
    free = factories.make_meter(shop.merchant, shop.plan, slug="free", tiers=[("0", "0")])
    hold = shop.place(None, meter_slug=free.slug, input_tokens=9).json()
    assert hold["amount"] == "0.0000000000"
    assert shop.release(hold["hold_id"]).json()["status"] == "released"
    silent()


def test_a_settled_hold_is_charged_what_was_used_and_frees_the_rest(shop: Shop) -> None:
    hold = shop.place("20").json()["hold_id"]
    answer = shop.settle(hold, 1_000_000, request_id="scene-7", metadata={"scene": "7"})
    assert answer.status_code == 200, answer.content
    settled = answer.json()
    assert settled["request_id"] == "scene-7" and settled["metadata"] == {"scene": "7"}
    assert settled["balance"]["total_remaining"] == "22.0000000000"
    assert settled["hold"]["status"] == "settled"
    assert settled["hold"]["charged"] == "3.0000000000"
    assert settled["hold"]["request_id"] == "scene-7"
    assert shop.balance()["held"] == "0.0000000000"
    assert shop.balance()["available"] == "22.0000000000"
    assert shop.call("GET", f"/{hold}").json() == settled["hold"]
    silent()


def test_settled_again_it_is_answered_again_and_charged_once(shop: Shop) -> None:
    hold = shop.place("20").json()["hold_id"]
    first, again = shop.settle(hold, 1_000_000), shop.settle(hold, 1_000_000)
    assert first.json()["request_id"] == hold
    assert first.json() == again.json()
    other = shop.settle(hold, 1)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "request_id_reused")
    named = shop.settle(hold, 1, request_id="another")
    assert (named.status_code, named.json()["error"]["code"]) == (409, "hold_settled")
    assert UsageRequest.objects.count() == 1
    silent()


def test_work_that_cost_more_than_was_held_is_recorded_whole(shop: Shop) -> None:
    hold = shop.place("1").json()["hold_id"]
    settled = shop.settle(hold, 20_000_000, enforce=True).json()
    assert settled["fee"]["amount"] == "41.0000000000"
    assert settled["balance"]["total_remaining"] == "-16.0000000000"
    silent()


def test_a_hold_that_expired_is_settled_late(shop: Shop) -> None:
    hold = shop.place("20").json()["hold_id"]
    shop.expire()
    assert shop.call("GET", f"/{hold}").json()["status"] == "expired"
    assert shop.balance()["held"] == "0.0000000000"
    settled = shop.settle(hold, 1_000_000).json()
    assert settled["hold"]["status"] == "settled"
    assert shop.balance()["held"] == "0.0000000000"
    assert settled == shop.settle(hold, 1_000_000).json()
    silent()


def test_released_is_not_settled_and_settled_is_not_released(shop: Shop) -> None:
    one, two = (shop.place("5").json()["hold_id"] for _ in range(2))
    assert shop.release(one).json()["balance"]["held"] == "5.0000000000"
    assert shop.release(one).json()["status"] == "released"
    refused = shop.settle(one, 1_000_000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "hold_released")
    shop.settle(two, 1_000_000)
    refused = shop.release(two)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "hold_settled")
    assert UsageRequest.objects.count() == 1
    silent()


def test_a_refused_settlement_leaves_the_hold_as_it_was(shop: Shop) -> None:
    hold = shop.place("5").json()["hold_id"]
    assert shop.settle(hold, 1, meter_slug="none").status_code == 404
    assert shop.settle(hold, -1).status_code == 400
    other = factories.make_subscription(shop.plan, now=shop.now).connection
    refused = shop.settle(hold, 1, connection_id=other.public_id)
    assert refused.json()["error"]["code"] == "hold_of_another_connection"
    Client().post(
        "/v1/requests",
        {
            "request_id": "r",
            "connection_id": shop.customer.public_id,
            "meter_slug": "chat",
            "input_tokens": 1,
        },
        content_type="application/json",
        headers={"Authorization": f"Bearer {shop.key}"},
    )
    # The id is that of a request without this hold: it is not the same call.
    refused = shop.settle(hold, 1, request_id="r")
    assert refused.json()["error"]["code"] == "request_id_reused"
    assert shop.call("GET", f"/{hold}").json()["status"] == "open"
    assert shop.settle(hold, 1, customer_id=shop.customer.public_id).status_code == 200
    silent()


def test_a_hold_of_a_gateway_call_is_seen_and_left_to_its_call(shop: Shop) -> None:
    hold = holds.place(shop.merchant, shop.customer.pk, amount=Decimal(5), now=shop.now)
    GatewayCall.objects.create(
        pk=hold.pk,
        merchant=shop.merchant,
        provider="openai",
        method="POST",
        endpoint="/",
        seen_at=shop.now,
        created_at=shop.now,
    )
    assert len(shop.call("GET", "").json()["data"]) == 1
    for refused in (shop.settle(hold.public_id, 1), shop.release(hold.public_id)):
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "hold_of_a_call")


def test_the_same_key_places_one_hold(shop: Shop) -> None:
    body = {"connection_id": shop.customer.public_id, "amount": "5"}
    headers = {"Idempotency-Key": "job-1"}
    first = shop.call("POST", "", body, **headers)
    again = shop.call("POST", "", body, **headers)
    assert again["Idempotent-Replayed"] == "true" and first.content == again.content
    assert shop.call("POST", "", body | {"amount": "6"}, **headers).status_code == 409
    settle = {"meter_slug": "chat", "input_tokens": 1_000_000}
    path = f"/{first.json()['hold_id']}/settle"
    answers = [shop.call("POST", path, settle, **{"Idempotency-Key": "s"}) for _ in range(2)]
    assert answers[1]["Idempotent-Replayed"] == "true" and answers[0].content == answers[1].content
    assert Hold.objects.count() == UsageRequest.objects.count() == 1
    silent()


def test_holds_are_listed_to_the_end_and_found_by_state_and_customer(shop: Shop) -> None:
    made = [shop.place("1").json()["hold_id"] for _ in range(5)]
    shop.settle(made[0], 1, request_id="r")
    shop.release(made[1])
    seen, query = [], "?limit=2"
    while True:
        page = shop.call("GET", query).json()
        seen += [row["hold_id"] for row in page["data"]]
        if not page["has_more"]:
            break
        query = f"?limit=2&cursor={page['next_cursor']}"
    assert seen == made[::-1] and "next_cursor" not in page
    (settled,) = shop.call("GET", "?status=settled").json()["data"]
    assert (settled["hold_id"], settled["request_id"]) == (made[0], "r")
    found = shop.call("GET", f"?customer_id={shop.customer.public_id}&status=open").json()["data"]
    assert [row["hold_id"] for row in found] == made[:1:-1]
    assert shop.call("GET", "?status=gone").status_code == 400


def test_nobody_else_sees_or_ends_a_hold(shop: Shop) -> None:
    hold = shop.place("5").json()["hold_id"]
    other = Shop()
    paths = [("GET", f"/{hold}"), ("POST", f"/{hold}/settle"), ("POST", f"/{hold}/release")]
    for method, path in paths:
        body = {"meter_slug": "chat", "input_tokens": 1} if path.endswith("settle") else None
        assert other.call(method, path, body).status_code == 404
        assert Client().generic(method, f"/v1/holds{path}").status_code == 401
    refused = other.place("1", connection_id=shop.customer.public_id)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "connection_not_found")
    assert other.call("GET", "").json()["data"] == []
    assert shop.call("GET", f"/{hold}").json()["status"] == "open"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "1000000000000"}, "amount"),
        ({}, "amount"),
        ({"amount": "1", "meter_slug": "chat"}, "amount"),
        ({"amount": "1", "expires_in_s": 0}, "expires_in_s"),
        ({"amount": "1", "expires_in_s": 86_401}, "expires_in_s"),
        ({"amount": "1", "purpose": "x" * 256}, "purpose"),
        ({"meter_slug": "chat", "input_tokens": -1}, "input_tokens"),
    ],
)
def test_what_is_wrong_is_named(shop: Shop, body: dict[str, Any], param: str) -> None:
    refused = shop.place(**({"amount": None} | body))
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param
    assert not Hold.objects.exists()


def test_credits_taken_by_hand_leave_what_is_held(shop: Shop) -> None:
    def take(amount: str) -> None:
        with transaction.atomic():
            locked = ledger.lock(shop.customer.pk)
            credits.take(locked, amount=Decimal(amount), reason="x", actor="Ana", now=shop.now)

    hold = shop.place("20").json()["hold_id"]
    with pytest.raises(errors.Refused) as refused:
        take("5.0000000001")
    assert refused.value.details["available"] == "5.0000000000"
    assert "20 is set aside" in refused.value.message
    take("5")
    # What was held is there to be spent, to the last cent.
    assert shop.settle(hold, 9_500_000).json()["balance"]["total_remaining"] == "0.0000000000"
    silent()


def race(act: Callable[[int], Any], times: int = THREADS) -> list[Any]:
    """Every call at once, each on its own thread; gives their answers."""
    gate = threading.Barrier(times)
    answers: list[Any] = [None] * times

    def work(number: int) -> None:
        gate.wait()
        try:
            answers[number] = act(number)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.django_db(transaction=True)
def test_parallel_holds_never_set_aside_more_than_there_is() -> None:
    shop = Shop(credit="12")
    answers = race(lambda number: shop.place("1"))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] * 12 + [402] * 8
    made = [answer.json()["hold_id"] for answer in answers if answer.status_code == 201]
    settled = race(lambda number: shop.settle(made[number], 333_333), 12)
    assert {answer.status_code for answer in settled} == {200}
    left = credits.balance(Connection.objects.get(pk=shop.customer.pk), now=shop.now)
    assert left.held == 0 and left.total == Decimal("12") - sum(
        Decimal(answer.json()["fee"]["amount"]) for answer in settled
    )
    silent()


@pytest.mark.django_db(transaction=True)
def test_a_hold_settled_in_parallel_is_charged_once_and_answered_alike() -> None:
    shop = Shop()
    hold = shop.place("20").json()["hold_id"]
    answers = race(lambda number: shop.settle(hold, 1_000_000))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert UsageRequest.objects.count() == 1
    silent()


@pytest.mark.django_db(transaction=True)
def test_a_hold_ends_once_whoever_ends_it() -> None:
    shop = Shop()
    made = [shop.place("5").json()["hold_id"] for _ in range(5)]
    later = shop.now + timedelta(days=1, seconds=1)

    def end(number: int) -> Any:
        hold = made[number % 5]
        if number % 4 == 0:
            return shop.settle(hold, 100_000)
        if number % 4 == 1:
            return holds.sweep(now=later)
        if number % 4 == 2:
            return shop.settle(hold, 100_000, request_id=f"other-{number}")
        return shop.release(hold)

    answers = race(end)
    rows = {row.public_id: row for row in Hold.objects.all()}
    assert all(row.state != Hold.State.OPEN for row in rows.values())
    charged = set(UsageRequest.objects.values_list("pk", flat=True))
    assert {row.request_id for row in rows.values() if row.request_id} == charged
    for number, answer in enumerate(answers):
        if number % 2 == 0:
            hold = rows[made[number % 5]]
            assert answer.status_code in (200, 409)
            if answer.status_code == 200:
                assert hold.state == Hold.State.SETTLED
    assert Connection.objects.get(pk=shop.customer.pk).held == 0
    silent()
