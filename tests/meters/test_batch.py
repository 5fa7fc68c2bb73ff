"""Many requests at once: each on its own terms, in one trip, in no circle of waits."""

from __future__ import annotations

import random
import threading
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

import billing.audit
import meters.audit
from billing import ids
from billing.models import Connection, LedgerEntry
from meters.models import MeterPosition, UsageRequest
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def shop() -> Any:
    class Shop:
        def __init__(self) -> None:
            self.merchant = factories.make_merchant()
            self.plan = factories.make_plan(self.merchant, price="0")
            tiers = [("0", "3"), ("1000000", "2")]
            self.meter = factories.make_meter(self.merchant, self.plan, tiers=tiers)
            now = timezone.now()
            self.customers = [
                factories.make_subscription(self.plan, now=now).connection for _ in range(4)
            ]
            self.key = factories.make_key(self.merchant)

        def post(self, path: str, body: Any, **headers: str) -> Any:
            return Client().post(
                f"/v1/requests{path}",
                body,
                content_type="application/json",
                headers={"Authorization": f"Bearer {self.key}"} | headers,
            )

        def line(self, name: str, customer: int = 0, **fields: Any) -> dict[str, Any]:
            return {
                "request_id": name,
                "connection_id": self.customers[customer].public_id,
                "meter_slug": "chat",
                "input_tokens": 1000,
            } | fields

    return Shop()


def silent() -> None:
    for rule in (*billing.audit.RULES, *meters.audit.RULES):
        assert rule.rows() == [], rule.name


def test_one_bad_line_spoils_no_other_and_answers_come_in_order(shop: Any) -> None:
    lines = [
        shop.line("z"),
        shop.line("bad", input_tokens=-1),
        shop.line("y", meter_slug="none"),
        shop.line("x", 1),
        shop.line("w", connection_id="con_test_01J8ZZZZZZZZZZZZZZZZZZZZZZ"),
        shop.line("z"),
        shop.line("z", input_tokens=7),
        {"request_id": "v", "customer_id": shop.customers[2].public_id, "meter_slug": "chat"},
        {},
    ]
    answer = shop.post("/batch", {"requests": lines})
    assert answer.status_code == 200, answer.content
    results = answer.json()["results"]
    assert [row["status"] for row in results] == [200, 400, 404, 200, 404, 200, 409, 200, 400]
    assert [row["request_id"] for row in results[:4]] == ["z", "bad", "y", "x"]
    assert results[1]["error"]["param"] == "input_tokens"
    assert results[0]["body"] == results[5]["body"]
    assert results[6]["error"]["code"] == "request_id_reused"
    assert results[0]["body"]["fee"]["amount"] == "0.0030000000"
    assert sorted(UsageRequest.objects.values_list("request_id", flat=True)) == ["v", "x", "z"]
    single = shop.post("", shop.line("z")).json()
    assert single == results[0]["body"]
    silent()


def test_a_batch_is_one_trip_and_costs_what_singles_cost(
    shop: Any, django_assert_num_queries: Any
) -> None:
    lines = [shop.line(f"r{number:03}", number % 2, input_tokens=90_001) for number in range(40)]
    with django_assert_num_queries(1):
        answer = shop.post("/batch", {"requests": lines})
    fees = [Decimal(row["body"]["fee"]["amount"]) for row in answer.json()["results"]]
    for line in lines:
        other = 2 + lines.index(line) % 2
        told = line | {
            "request_id": f"s{line['request_id']}",
            "connection_id": shop.customers[other].public_id,
        }
        fees.append(-Decimal(shop.post("", told).json()["fee"]["amount"]))
    assert sum(fees) == 0 and fees[0] == -fees[40] > 0
    for number in (0, 1):
        one, other = shop.customers[number], shop.customers[number + 2]
        one.refresh_from_db()
        other.refresh_from_db()
        assert one.balance == other.balance
        places = MeterPosition.objects.filter(connection__in=[one, other])
        assert len(set(places.values_list("quantity", flat=True))) == 1
    silent()


def test_a_brief_answer_says_what_was_charged_and_what_is_left(
    shop: Any, django_assert_num_queries: Any
) -> None:
    lines = [shop.line(f"r{number}", number % 2, input_tokens=400_001) for number in range(6)]
    lines.insert(3, shop.line("bad", meter_slug="nothing"))
    with django_assert_num_queries(1):
        answer = shop.post("/batch", {"requests": lines}, Prefer="respond-async, return=minimal")
    assert answer["Preference-Applied"] == "return=minimal"
    brief = answer.json()["results"]
    assert brief[3]["status"] == 404 and brief[3]["error"]["code"] == "meter_not_found"
    # Said again, each is answered by what it was; and in whole, by the same figures.
    assert (
        shop.post("/batch", {"requests": lines}, Prefer="return=minimal").json()["results"] == brief
    )
    whole = shop.post("/batch", {"requests": lines})
    assert "Preference-Applied" not in whole
    for one, other in zip(brief, whole.json()["results"], strict=True):
        if one["status"] == 200:
            body = other["body"]
            assert one == {
                "status": 200,
                "request_id": body["request_id"],
                "charged": body["total_wallet_cost"],
                "total_remaining": body["balance"]["total_remaining"],
            }
    assert UsageRequest.objects.count() == 6
    silent()


def test_a_brief_answer_to_a_cost_looked_up_here(shop: Any) -> None:
    """A line whose cost is found by its model's price is charged by itself, and answered alike."""
    meter = factories.make_meter(
        shop.merchant, shop.plan, slug="share", rate_type="percentage", tiers=[("0", "50")]
    )
    line = shop.line("r1", meter_slug=meter.slug, model="gpt-4o-mini", input_tokens=1_000_000)
    lines = {"requests": [line, shop.line("r2")]}
    brief = shop.post("/batch", lines, Prefer="return=minimal").json()["results"]
    whole = shop.post("/batch", lines).json()["results"]
    assert Decimal(brief[0]["charged"]) > 0
    assert [row["charged"] for row in brief] == [row["body"]["total_wallet_cost"] for row in whole]
    silent()


def test_enforced_lines_that_do_not_fit_are_refused_with_what_is_left(shop: Any) -> None:
    shop.plan.when_depleted = "block"
    shop.plan.save()
    lines = [shop.line(f"r{n}", input_tokens=5_000_000, enforce=True) for n in range(4)]
    results = shop.post("/batch", {"requests": lines}).json()["results"]
    assert [row["status"] for row in results] == [200, 200, 402, 402]
    assert UsageRequest.objects.count() == 2
    silent()


@pytest.mark.parametrize("body", [{}, {"requests": []}, {"requests": {}}, {"requests": [1]}])
def test_a_batch_of_nothing_is_refused(shop: Any, body: Any) -> None:
    assert shop.post("/batch", body).status_code == 400


def test_more_than_a_thousand_and_a_wrong_key_write_nothing(shop: Any) -> None:
    lines = [shop.line(f"r{number}") for number in range(1001)]
    assert shop.post("/batch", {"requests": lines}).status_code == 400
    wrong = ids.new_secret_key(True)
    for told in ([shop.line("r")], [{}]):
        refused = Client().post(
            "/v1/requests/batch",
            {"requests": told},
            content_type="application/json",
            headers={"Authorization": f"Bearer {wrong}"},
        )
        assert refused.status_code == 401
    assert not UsageRequest.objects.exists()


def test_a_storm_of_singles_batches_and_duplicates_never_deadlocks(shop: Any) -> None:
    names = [f"r{number}" for number in range(60)]
    owner = {name: number % 4 for number, name in enumerate(names)}
    statuses: list[int] = []

    def send(seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(6):
                chosen = [shop.line(name, owner[name]) for name in dice.sample(names, 20)]
                if dice.random() < 0.5:
                    answer = shop.post("/batch", {"requests": chosen})
                    statuses.extend(row["status"] for row in answer.json()["results"])
                else:
                    statuses.extend(shop.post("", line).status_code for line in chosen[:5])
        finally:
            connections.close_all()

    senders = [threading.Thread(target=send, args=(seed,)) for seed in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert set(statuses) == {200}
    rows = UsageRequest.objects.all()
    assert rows.count() == len(set(rows.values_list("request_id", flat=True)))
    assert LedgerEntry.objects.filter(kind="usage").count() == rows.count()
    silent()


def test_an_estimate_says_what_the_charge_would_and_writes_nothing(shop: Any) -> None:
    lines, heads = LedgerEntry.objects.count(), list(Connection.objects.values_list("entry_count"))
    told = shop.line("r", input_tokens=1_500_000)
    del told["request_id"]
    estimate = shop.post("/estimate", told).json()
    assert not UsageRequest.objects.exists() and not MeterPosition.objects.exists()
    assert LedgerEntry.objects.count() == lines
    assert list(Connection.objects.values_list("entry_count")) == heads
    charged = shop.post("", told | {"request_id": "r"}).json()
    assert estimate["fee"] == charged["fee"] and len(charged["fee"]["breakdown"]) == 2
    assert estimate["balance_after"] == charged["balance"]
    assert estimate["covered"] is True
    dear = shop.post("/estimate", told | {"input_tokens": 90_000_000}).json()
    assert dear["covered"] is False
