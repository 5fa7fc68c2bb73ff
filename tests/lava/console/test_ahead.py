"""The calendar and the margins: what they say is what the forecast and the rows say."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing import forecast
from billing.models import Payment
from lava.console import calendar, margins, periods
from tests.lava.console.shop import Shop

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
    # 3 used in the last 7 days, 22 left.
    assert round(row["daily"] * 7, 15) == 3 and row["balance"] == 22
    # 22 x 7 / 3 days: 51 and a third.
    assert (row["at"] - now).days == 51


def test_margins_are_exact_and_the_tenth_that_loses_is_warned_of(ours: Shop) -> None:
    books = ours.sandbox
    books.use("costly", 1_000_000, provider_cost=Decimal("30.5"), model="big-1")
    merchant = books.merchant
    period = periods.read({"days": "7"}, now=merchant.now(), zone="UTC")
    ((line, connection, plan),) = margins.by_customer(merchant, period).rows
    assert (connection, plan) == (books.connection.pk, books.plan.pk)
    assert line.cost == Decimal("30.5") and line.paid == 24
    assert line.result == Decimal("-6.5")
    (by_meter,) = margins.by_meter(merchant, period)
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
    ((line, _, plan),) = margins.by_customer(books.merchant, period).rows
    assert plan is None and line.paid == 24
    assert Payment.objects.of(books.merchant).count() == 1
