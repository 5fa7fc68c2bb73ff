"""Cycles by the calendar: zones, summer time, leap days; nothing renews twice, nothing drifts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from billing import audit, clock, credits, renewals, sweep
from billing.models import Connection, Cycle, Merchant, Payment, Plan
from lava.demo.card_network.process import CardNetwork
from meters.models import UsageRequest
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def the_books_hold() -> Iterator[None]:
    """After each test every rule of the audit holds; only that much is due in these years."""
    yield
    rules = [rule for rule in audit.RULES if rule.name != "nothing_is_stuck"]
    assert not {rule.name: rule.rows() for rule in rules if rule.rows()}


def free_plan(zone: str, **fields: str) -> Plan:
    merchant = factories.make_merchant(zone=zone)
    return factories.make_plan(
        merchant, price="0", credit="5", when_depleted="block", rollover_type="none", **fields
    )


def subscribe(plan: Plan, start: datetime) -> Connection:
    return factories.make_subscription(plan, now=start).connection


def run(merchant: Merchant, moment: datetime) -> None:
    """Everything due at an instant, by both ways of renewing, twice."""
    for _ in range(2):
        sweep.run(merchant, now=moment + merchant.clock_offset)


def test_a_merchant_at_utc_plus_five_thirty_renews_once(card_network: CardNetwork) -> None:
    shop = cn.Shop(zone="Asia/Kolkata", billing_interval="day")
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    for hours in (0, 1, 5.5, 6, 12, 18.5, 23.9):
        clock.advance(shop.merchant, to=end + timedelta(hours=hours, seconds=1))
    assert Payment.objects.filter(purpose="renewal").count() == 1
    assert credits.balance(connection, now=shop.now).total == Decimal(50)


def test_a_daily_plan_has_one_renewal_on_each_day_of_a_change_of_the_clocks() -> None:
    plan = free_plan("Europe/Berlin", billing_interval="day")
    connection = subscribe(plan, datetime(2026, 10, 23, 0, 30, tzinfo=UTC))  # 02:30 in Berlin
    run(plan.merchant, datetime(2026, 10, 28, 12, 0, tzinfo=UTC))
    starts = Cycle.objects.filter(subscription__connection=connection).order_by("index")
    walls = [row.start.astimezone(ZoneInfo("Europe/Berlin")) for row in starts]
    assert [(wall.day, wall.hour, wall.minute) for wall in walls] == [
        (day, 2, 30) for day in range(23, 29)
    ]
    assert sum(row.state == "granted" for row in starts) == 2


@pytest.mark.parametrize(
    ("every", "start", "ends"),
    [
        ("year", "2028-02-29", ["2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29"]),
        ("month", "2027-12-31", ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"]),
        ("month", "2027-01-30", ["2027-02-28", "2027-03-30", "2027-04-30", "2027-05-30"]),
    ],
)
@pytest.mark.parametrize("by_set", [True, False])
def test_leap_days_and_short_months_neither_gap_nor_overlap(
    every: str, start: str, ends: list[str], by_set: bool
) -> None:
    plan = free_plan("UTC", billing_interval=every)
    began = datetime.fromisoformat(f"{start}T10:00:00+00:00")
    connection = subscribe(plan, began)
    seen = []
    for _ in ends:
        end = connection.subscription.cycle_end
        seen.append(end.date().isoformat())
        if by_set:
            assert renewals.renew_set(end, merchant=plan.merchant) == 1
        else:
            renewals.renew(connection.subscription.pk, now=end)
    assert seen == ends
    cycles = list(Cycle.objects.order_by("index"))
    assert all(a.end == b.start for a, b in itertools.pairwise(cycles))


@pytest.mark.parametrize("by_set", [True, False])
def test_three_months_asleep_is_one_renewal_and_two_on_record(by_set: bool) -> None:
    plan = free_plan("America/New_York")
    connection = subscribe(plan, datetime(2026, 1, 31, 15, 0, tzinfo=UTC))
    now = datetime(2026, 5, 2, tzinfo=UTC)
    for _ in range(3):
        if by_set:
            renewals.renew_set(now, merchant=plan.merchant)
        else:
            renewals.renew(connection.subscription.pk, now=now)
    states = Cycle.objects.order_by("index").values_list("state", flat=True)
    assert list(states) == ["granted", "skipped", "skipped", "granted"]
    assert credits.balance(connection, now=now).total == Decimal(5)


def test_a_change_of_zone_leaves_the_running_cycle_and_its_anchor() -> None:
    plan = free_plan("Asia/Kolkata", billing_interval="day")
    connection = subscribe(plan, datetime(2026, 5, 1, 20, 0, tzinfo=UTC))
    end = connection.subscription.cycle_end
    merchant = plan.merchant
    merchant.time_zone = "America/New_York"
    merchant.save()
    assert connection.subscription.cycle_end == end
    run(merchant, end)
    renewals.renew(connection.subscription.pk, now=end)
    assert connection.subscription.cycle_start == end
    # Who subscribes now lives in the new zone.
    later = subscribe(plan, end)
    assert later.subscription.time_zone == "America/New_York"


def test_usage_during_a_renewal_falls_wholly_in_one_cycle(card_network: CardNetwork) -> None:
    shop = cn.Shop(rollover_type="none", when_depleted="block")
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end - timedelta(minutes=1), run=False)
    before = shop.use(connection, "r1", "5")
    clock.advance(shop.merchant, to=end, run=False)
    between = shop.use(connection, "r2", "3")
    renewals.renew(connection.subscription.pk, now=shop.now)
    after = shop.use(connection, "r3", "2")
    told = [answer.request.pk for answer in (before, between, after)]
    indexes = dict(UsageRequest.objects.filter(pk__in=told).values_list("pk", "cycle_index"))
    assert [indexes[pk] for pk in told] == [0, 0, 1]
    # The 3 came after the old credits had ended: owed, and paid first out of the new ones.
    assert credits.balance(connection, now=shop.now).total == Decimal(20)
