"""The calendar and the margins: what they say is what the forecast and the rows say."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing import forecast
from billing.models import Dispute, Payment
from lava.console import calendar, margins, numbers, periods
from meters import prices, pricing, volume
from meters.models import UsageRequest
from tests.lava.console.shop import Shop
from tests.meters.test_charge import report

pytestmark = pytest.mark.django_db


def test_each_day_holds_what_the_forecast_has_for_it_and_all_of_it_once(ours: Shop) -> None:
    merchant = ours.sandbox.merchant
    now = merchant.now()
    found = forecast.ahead(merchant, until=now + timedelta(days=calendar.DAYS), now=now)
    days = calendar.by_day(found, now=now, zone="UTC")
    assert sum(day.charged for day in days.values()) == found.charged > 0
    assert sum(len(day.rows) for day in days.values()) == len(found.rows)
    assert len(days) == calendar.DAYS + 1
    renewal = next(row for row in found.rows if row.asked)
    page = ours.client().get("/console/calendar", {"day": renewal.at.date().isoformat()})
    assert b"Renewal" in page.content and b"Northwind Quill" in page.content


def test_a_card_that_is_missing_is_at_risk_and_not_counted_as_charged(ours: Shop) -> None:
    merchant = ours.sandbox.merchant
    ours.sandbox.card.detached_at = merchant.now()
    ours.sandbox.card.save()
    now = merchant.now()
    found = forecast.ahead(merchant, until=now + timedelta(days=calendar.DAYS), now=now)
    days = calendar.by_day(found, now=now, zone="UTC")
    assert sum(day.charged for day in days.values()) == 0
    assert sum(day.at_risk for day in days.values()) > 0
    assert b"at risk" in ours.client().get("/console/calendar").content


def test_who_runs_out_is_told_at_the_pace_of_the_last_week(ours: Shop) -> None:
    merchant, now = ours.sandbox.merchant, ours.sandbox.merchant.now()
    (row,) = calendar.run_out(merchant, now=now)
    # 3 used in the last 7 days and today, 22 left.
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    elapsed = 7 + Decimal((now - midnight).seconds) / 86400
    assert round(row["daily"] * elapsed, 15) == 3 and row["balance"] == 22
    assert (row["at"] - now).days == int(22 * elapsed / 3)


def test_margins_are_exact_and_the_tenth_that_loses_is_warned_of(ours: Shop) -> None:
    books = ours.sandbox
    books.use("costly", 1_000_000, provider_cost=Decimal("30.5"), model="big-1")
    merchant = books.merchant
    period = periods.read({"days": "7"}, now=merchant.now(), zone="UTC")
    ((line, connection, plan),) = margins.by_customer(merchant, period)
    assert (connection, plan) == (books.connection.pk, books.plan.pk)
    assert line.cost == Decimal("30.5") and line.paid == 24
    assert line.result == Decimal("-6.5")
    (by_meter,) = margins.by_meter(merchant, period, given={})
    assert (by_meter.charged, by_meter.cost) == (line.charged, line.cost)
    models = {row.name: row for row in margins.by_model(merchant, period)}
    assert models["big-1"].cost == Decimal("30.5") and "not said" in models
    assert sum(row.charged for row in models.values()) == line.charged
    page = ours.client().get("/console/margin?days=7").content.decode()
    assert "One customer in ten costs more than they pay" in page and "−$6.50" in page


def test_who_earns_is_not_warned_of(ours: Shop) -> None:
    ours.sandbox.use("cheap", 10, provider_cost=Decimal("0.01"))
    page = ours.client().get("/console/margin").content.decode()
    assert "One customer in ten" not in page


def test_a_customer_whose_plan_ended_still_counts(ours: Shop) -> None:
    books = ours.sandbox
    now = books.merchant.now()
    type(books.subscription).objects.filter(pk=books.subscription.pk).update(
        status="cancelled", ended_at=now
    )
    period = periods.read({}, now=now, zone="UTC")
    ((line, _, plan),) = margins.by_customer(books.merchant, period)
    assert plan is None and line.paid == 24
    assert Payment.objects.of(books.merchant).count() == 1


def test_what_came_back_for_volume_is_off_customers_plans_and_meters(ours: Shop) -> None:
    books, merchant = ours.sandbox, ours.sandbox.merchant
    meter = prices.create_meter(
        merchant, slug="bulk", name="Bulk", actor="Ana", now=merchant.now(),
        terms=prices.Terms(
            tiers=(pricing.Tier(Decimal(0), Decimal(2)), pricing.Tier(Decimal(3), Decimal(1))),
            unit="requests", tier_mode="volume", tier_window="cycle",
        ),
    )  # fmt: skip
    prices.attach(meter, books.plan)
    for number in range(5):
        report(
            books.secret, books.connection, f"bulk-{number}", meter_slug="bulk",
            provider_cost=Decimal("0.5") if number < 4 else None,
        )  # fmt: skip
    # Five at 2 when they came, five at 1 in the end.
    volume.settle(books.subscription.pk, now=merchant.now(), early=True)
    period = periods.read({"days": "7"}, now=merchant.now(), zone="UTC")
    given = volume.given(merchant, start=period.start, end=period.end)
    assert given == {meter.pk: 5}
    whole = sum(row.charged for row in UsageRequest.objects.of(merchant))
    assert whole == 13
    ((line, _, _),) = margins.by_customer(merchant, period)
    by_meter = {row.name: row for row in margins.by_meter(merchant, period, given=given)}
    plans, least, _ = margins.by_plan(merchant, period)
    assert line.charged == least[0].charged == sum(row.charged for row in plans) == 8
    # Of the 13, 8 have a known cost; so have 8 thirteenths of what came back.
    assert line.costed == plans[0].costed == 8 - round(Decimal(5) * 8 / 13, 10)
    assert by_meter["Bulk"].charged == 5 and by_meter["Bulk"].costed == 4
    assert sum(row.charged for row in by_meter.values()) == 8
    found = numbers.facts(merchant, now=merchant.now(), period=period)
    (tile,) = [tile for tile in numbers.tiles(found) if tile.name == "Usage charged"]
    assert tile.amount == 8 and "volume discounts are off" in tile.text
    page = ours.client().get("/console/margin?days=7").content.decode()
    assert "of volume discounts are off" in page and "before volume discounts" in page


@pytest.mark.parametrize("used", [0, 1])
def test_what_comes_back_for_usage_before_the_time_is_off_its_meter(ours: Shop, used: int) -> None:
    books, merchant = ours.sandbox, ours.sandbox.merchant
    meter = prices.create_meter(
        merchant, slug="bulk", name="Bulk", actor="Ana", now=merchant.now(),
        terms=prices.Terms(
            tiers=(pricing.Tier(Decimal(0), Decimal(2)), pricing.Tier(Decimal(3), Decimal(1))),
            unit="tokens_1m", tier_mode="volume", tier_window="cycle",
        ),
    )  # fmt: skip
    prices.attach(meter, books.plan)
    before = merchant.now() - timedelta(days=20)
    report(
        books.secret, books.connection, "bulk", meter_slug="bulk", input_tokens=5_000_000,
        timestamp=before,
    )  # fmt: skip
    for number in range(used):
        # Asked and counted nothing: nothing is charged.
        report(books.secret, books.connection, f"none-{number}", meter_slug="bulk", input_tokens=0)
    volume.settle(books.subscription.pk, now=merchant.now(), early=True)
    period = periods.read({"days": "7"}, now=merchant.now(), zone="UTC")
    given = volume.given(merchant, start=period.start, end=period.end)
    by_meter = {row.name: row for row in margins.by_meter(merchant, period, given=given)}
    assert (by_meter["Bulk"].charged, by_meter["Bulk"].count) == (-5, used)
    ((line, _, _),) = margins.by_customer(merchant, period)
    assert line.charged == sum(row.charged for row in by_meter.values())
    assert ours.client().get("/console/margin?days=7").status_code == 200


@pytest.mark.parametrize(("status", "paid"), [("open", 0), ("lost", 0), ("won", 24)])
def test_what_the_bank_took_back_is_no_money_in(ours: Shop, status: str, paid: int) -> None:
    books, now = ours.sandbox, ours.sandbox.merchant.now()
    Dispute(
        merchant=books.merchant, payment=books.payment, connection=books.connection,
        dispute_id="dp_1", status=status, amount=books.payment.amount, created_at=now,
        closed_at=None if status == "open" else now,
    ).save()  # fmt: skip
    period = periods.read({}, now=now, zone="UTC")
    ((line, _, _),) = margins.by_customer(books.merchant, period)
    assert line.paid == paid
