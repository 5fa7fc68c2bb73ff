"""Usage added up: the same as the requests, to the last digit, at any moment."""

from __future__ import annotations

import random
import threading
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection as database
from django.db import connections
from django.test import Client

import meters.audit
from meters import rollups
from meters.models import ConnectionUsage, MerchantUsage, UsageDelta, UsageRequest
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def shop() -> Any:
    class Shop:
        def __init__(self) -> None:
            self.merchant = factories.make_merchant()
            self.plan = factories.make_plan(self.merchant)
            self.meters = [
                factories.make_meter(self.merchant, self.plan, slug=slug)
                for slug in ("chat", "image")
            ]
            self.now = self.merchant.now()
            self.customers = [
                factories.make_subscription(self.plan, now=self.now).connection for _ in range(2)
            ]
            self.key = factories.make_key(self.merchant)
            self.count = 0

        def use(
            self,
            at: datetime,
            *,
            customer: int = 0,
            meter: str = "chat",
            tokens: int = 1000,
            **fields: Any,
        ) -> None:
            self.count += 1
            body = {
                "request_id": f"r{self.count}",
                "connection_id": self.customers[customer].public_id,
                "meter_slug": meter,
                "input_tokens": tokens,
                "timestamp": at.isoformat(),
            }
            answer = Client().post(
                "/v1/requests",
                body | fields,
                content_type="application/json",
                headers={"Authorization": f"Bearer {self.key}"},
            )
            assert answer.status_code == 200, answer.content

        def usage(self, **query: str) -> Any:
            answer = Client().get(
                "/v1/usage", query, headers={"Authorization": f"Bearer {self.key}"}
            )
            assert answer.status_code == 200, answer.content
            return answer.json()

    return Shop()


def adds_up() -> None:
    names = {"usage_adds_up", "usage_by_day_adds_up", "usage_by_model_adds_up"}
    rules = {rule.name: rule.rows() for rule in meters.audit.RULES if rule.name in names}
    assert rules == {name: [] for name in names}


def by_hand(shop: Any, start: datetime, end: datetime, **filters: Any) -> dict[Any, Any]:
    """The usage of a span, added up by this test from the requests alone."""
    found: dict[Any, Any] = {}
    rows = UsageRequest.objects.filter(timestamp__gte=start, timestamp__lt=end, **filters)
    for row in rows.filter(status="completed"):
        day = row.timestamp.astimezone(start.tzinfo).date()
        count, tokens, fee = found.get(day, (0, 0, Decimal(0)))
        found[day] = count + 1, tokens + row.input_tokens + row.output_tokens, fee + row.fee
    return found


@pytest.mark.parametrize("minutes", [0, 330, 345, -210, 720, -720, 840, 337])
def test_days_are_those_of_the_starts_offset_before_and_after_compaction(
    shop: Any, minutes: int
) -> None:
    dice = random.Random(minutes)
    for _ in range(25):
        shop.use(
            shop.now - timedelta(seconds=dice.randrange(3 * 86400)),
            customer=dice.randrange(2),
            meter=dice.choice(["chat", "image"]),
            tokens=dice.randrange(10**6),
        )
    zone = timezone(timedelta(minutes=minutes))
    # Neither edge lies on a quarter of an hour.
    start = (shop.now - timedelta(days=2, hours=5, minutes=7, seconds=13)).astimezone(zone)
    end = shop.now - timedelta(hours=1, minutes=3, seconds=1)
    query = {"start": start.isoformat(), "end": end.isoformat()}
    filters: list[tuple[dict[str, str], dict[str, Any]]] = [
        ({}, {}),
        ({"connection_id": shop.customers[0].public_id}, {"connection": shop.customers[0]}),
        ({"meter_id": shop.meters[1].public_id}, {"meter": shop.meters[1]}),
        (
            {
                "customer_id": shop.customers[1].public_id,
                "meter_id": shop.meters[0].public_id,
            },
            {"connection": shop.customers[1], "meter": shop.meters[0]},
        ),
    ]
    for _ in range(2):
        for asked, narrow in filters:
            answer = shop.usage(**query, **asked)
            wanted = by_hand(shop, start, end, merchant=shop.merchant, **narrow)
            seen = {
                datetime.fromisoformat(item["date"]).date(): (
                    item["total_requests"],
                    item["total_usage_tokens"],
                    Decimal(item["total_fee_amount"]),
                )
                for item in answer["items"]
                if item["total_requests"]
            }
            assert seen == wanted
            fees = sum((fee for _, _, fee in wanted.values()), Decimal(0))
            assert Decimal(answer["totals"]["total_fee_amount"]) == fees
        rollups.compact()
        assert not UsageDelta.objects.exists() and MerchantUsage.objects.exists()
    adds_up()


def by_connection(
    shop: Any, first: date, last: date
) -> dict[Any, tuple[Decimal, Decimal, Decimal]]:
    with database.cursor() as cursor:
        cursor.execute(
            rollups.BY_CONNECTION, rollups.of_days(shop.merchant, first=first, last=last)
        )
        return {row[0]: row[1:] for row in cursor.fetchall()}


def test_local_days_of_each_connection_are_its_requests_in_every_zone(shop: Any) -> None:
    dice = random.Random(7)
    for number in range(60):
        cost = {"provider_cost": f"0.{dice.randrange(1, 10**8)}"} if dice.random() < 0.6 else {}
        shop.use(
            shop.now - timedelta(seconds=dice.randrange(29 * 86400)),
            customer=dice.randrange(2), tokens=dice.randrange(10**6), **cost,
        )  # fmt: skip
        if number == 40:
            rollups.compact()
    for zone in ("America/St_Johns", "Pacific/Kiritimati", "UTC"):
        # The days of what is summed move with the merchant's zone; what is noted has none yet.
        shop.merchant.time_zone = zone
        shop.merchant.save()
        adds_up()
        today = shop.now.astimezone(ZoneInfo(zone)).date()
        for length in (1, 7, 8, 16, 30, 41):
            first = today - timedelta(days=length - 1)
            wanted: dict[Any, tuple[Decimal, Decimal, Decimal]] = {}
            for row in UsageRequest.objects.all():
                if not first <= row.timestamp.astimezone(ZoneInfo(zone)).date() <= today:
                    continue
                charged, costed, cost = wanted.get(row.connection_id, (Decimal(0),) * 3)
                known = row.provider_cost is not None
                wanted[row.connection_id] = (
                    charged + row.charged, costed + (row.charged if known else 0),
                    cost + (row.provider_cost or 0),
                )  # fmt: skip
            assert by_connection(shop, first, today) == wanted
    rollups.compact()
    adds_up()


def test_a_span_of_days_is_read_in_eights_and_each_day_once(shop: Any) -> None:
    for length in range(1, 100):
        first = date(2026, 9, 1) + timedelta(days=length % 9)
        asked = rollups.of_days(shop.merchant, first=first, last=first + timedelta(days=length - 1))
        days = asked["ones"] + [
            day + timedelta(days=number) for day in asked["eights"] for number in range(8)
        ]
        assert sorted(days) == [first + timedelta(days=number) for number in range(length)]
        assert len(asked["ones"]) <= 14


def test_models_are_summed_apart_also_in_a_batch(shop: Any) -> None:
    shop.use(shop.now, model="one", provider_cost="0.5")
    rollups.compact()
    body = {
        "requests": [
            {
                "request_id": f"b{number}", "connection_id": shop.customers[0].public_id,
                "meter_slug": "chat", "input_tokens": 1000, "model": model,
            }
            for number, model in enumerate(["one", "two", "two"])
        ]
    }  # fmt: skip
    answer = Client().post(
        "/v1/requests/batch", body, content_type="application/json",
        headers={"Authorization": f"Bearer {shop.key}"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.content
    start, end = shop.now - timedelta(days=1), shop.now + timedelta(days=1)
    each = UsageRequest.objects.get(request_id="b0").charged
    for _ in range(2):
        found = rollups.by_model(shop.merchant, start=start, end=end, most=9)
        assert {row.name: (row.requests, row.charged, row.costed, row.cost) for row in found} == {
            "one": (2, 2 * each, each, Decimal("0.5")),
            "two": (2, 2 * each, 0, 0),
        }
        adds_up()
        rollups.compact()


def test_days_are_whole_and_join_without_gaps(shop: Any) -> None:
    start = datetime(2026, 11, 20, 18, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    answer = shop.usage(start=start.isoformat(), end="2026-11-23T00:00:00Z")
    items = answer["items"]
    assert [item["date"] for item in items] == [
        "2026-11-20",
        "2026-11-21",
        "2026-11-22",
        "2026-11-23",
    ]
    assert items[0]["start"] == "2026-11-20T12:30:00.000Z"
    assert items[1]["start"] == items[0]["end"] == "2026-11-20T18:30:00.000Z"
    assert items[-1]["end"] == "2026-11-23T00:00:00.000Z"


def test_late_and_voided_requests_count_at_once(shop: Any) -> None:
    shop.use(shop.now)
    rollups.compact()
    shop.use(shop.now - timedelta(days=20), tokens=5)
    query = {"start": (shop.now - timedelta(days=25)).astimezone(UTC).isoformat()}
    assert shop.usage(**query)["totals"]["total_usage_tokens"] == 1005
    adds_up()
    # However a request comes to count no more: its share is taken back in the same transaction.
    UsageRequest.objects.filter(request_id="r1").update(status="error")
    totals = shop.usage(**query)["totals"]
    assert (totals["total_requests"], totals["total_usage_tokens"]) == (1, 5)
    rollups.compact()
    assert shop.usage(**query)["totals"] == totals
    adds_up()


def test_metadata_filters_read_the_requests(shop: Any) -> None:
    shop.use(shop.now, metadata={"team": "a"})
    shop.use(shop.now, metadata={"team": "b"})
    rollups.compact()
    query = {"start": (shop.now - timedelta(days=1)).isoformat()}
    query["end"] = (shop.now + timedelta(minutes=1)).isoformat()
    assert shop.usage(**query)["totals"]["total_requests"] == 2
    found = shop.usage(**query, metadata_filters='[["team","a"]]')
    assert found["totals"]["total_requests"] == 1


def test_compacting_while_charges_run_loses_and_doubles_nothing(shop: Any) -> None:
    done = threading.Event()
    seen: list[int] = []
    query = {
        "start": (shop.now - timedelta(days=1)).isoformat(),
        "end": (shop.now + timedelta(hours=1)).isoformat(),
    }

    def compact() -> None:
        try:
            while not done.is_set():
                rollups.compact()
        finally:
            connections.close_all()

    def watch() -> None:
        try:
            while not done.is_set():
                before = UsageRequest.objects.count()
                counted = shop.usage(**query)["totals"]["total_requests"]
                after = UsageRequest.objects.count()
                assert before <= counted <= after
                seen.append(counted)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=act) for act in (compact, compact, watch)]
    for worker in workers:
        worker.start()
    for _ in range(60):
        shop.use(shop.now)
    done.set()
    for worker in workers:
        worker.join()
    assert seen and seen == sorted(seen)
    rollups.compact()
    assert sum(ConnectionUsage.objects.values_list("requests", flat=True)) == 60
    assert shop.usage(**query)["totals"]["total_requests"] == 60
    adds_up()


def test_requests_are_listed_by_when_the_work_was_done(shop: Any) -> None:
    for hours in (1, 30, 60):
        shop.use(shop.now - timedelta(hours=hours), tokens=hours)
    query = {
        "start": (shop.now - timedelta(hours=40)).isoformat(),
        "end": (shop.now - timedelta(hours=2)).isoformat(),
    }
    headers = {"Authorization": f"Bearer {shop.key}"}
    found = Client().get("/v1/requests", query, headers=headers).json()["data"]
    assert [row["model_usage"]["input_tokens"] for row in found] == [30]
