"""The 90 days to come: what will be charged, given and end on each, and who runs out of credit.

Reads only. The days are `billing.forecast`, which supposes that nothing more is used and that each
card does what it did last; who runs out supposes the pace of the last 7 days and today.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection as database
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import forecast
from billing.models import Connection, Merchant, Plan, Subscription
from lava.console import access, clock, moments
from meters import rollups

DAYS = 90
# Rows of one day that are listed, and customers who run out.
SHOWN = 200
SOONEST = 12
ZERO = Decimal(0)
# At the pace of the last 7 local days and today: the balance, what a day uses, the soonest end
# first.
_RUN_OUT = f"""
WITH used AS (
    SELECT connection_id, charged / %(elapsed)s AS daily FROM ({rollups.BY_CONNECTION}) sums
     WHERE charged > 0)
SELECT c.id, c.balance, u.daily
  FROM used u JOIN billing_connection c ON c.id = u.connection_id
 WHERE c.merchant_id = %(merchant)s AND c.status = 'active' AND c.balance > 0
   AND c.balance / u.daily < %(days)s
 ORDER BY c.balance / u.daily, c.id LIMIT %(most)s
"""  # noqa: S608


@dataclass(slots=True)
class Day:
    """What falls due on a local day."""

    date: date
    rows: list[forecast.Due] = field(default_factory=list)

    @property
    def charged(self) -> Decimal:
        return sum((row.asked for row in self.rows if row.pays), ZERO)

    @property
    def at_risk(self) -> Decimal:
        """What cards are asked for that declined last time, or are missing."""
        return sum((row.asked for row in self.rows if not row.pays), ZERO)

    @property
    def granted(self) -> Decimal:
        return sum((row.granted for row in self.rows if row.pays), ZERO)

    @property
    def ended(self) -> Decimal:
        return sum((row.ended for row in self.rows), ZERO)


@access.requires("billing.view_subscription")
@require_GET
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/calendar`: the days by week; `?day=` lists one."""
    merchant = request.merchant
    now, zone = merchant.now(), merchant.time_zone
    found = forecast.ahead(merchant, until=now + timedelta(days=DAYS), now=now)
    days = by_day(found, now=now, zone=zone)
    chosen = days.get(moments.read_day(request.GET.get("day", "")) or date.min)
    if chosen is None:
        chosen = next((day for day in days.values() if day.rows), None)
    return render(
        request,
        "console/calendar.html",
        {
            "weeks": _weeks(list(days.values())),
            "months": _months(list(days.values())),
            "chosen": chosen,
            "told": [clock.told(row) for row in chosen.rows[:SHOWN]] if chosen else [],
            "hidden": max(len(chosen.rows) - SHOWN, 0) if chosen else 0,
            "forecast": found,
            "at_risk": sum((day.at_risk for day in days.values()), ZERO),
            "run_out": run_out(merchant, now=now),
            "days": DAYS,
            "zone": zone,
            "currency": merchant.currency,
        },
    )


def by_day(found: forecast.Forecast, *, now: datetime, zone: str) -> dict[date, Day]:
    """Every day of the time, with what falls due on it."""
    local = ZoneInfo(zone)
    today = now.astimezone(local).date()
    days = {
        today + timedelta(days=number): Day(today + timedelta(days=number))
        for number in range(DAYS + 1)
    }
    for row in found.rows:
        day = days.get(row.at.astimezone(local).date())
        if day is not None:
            day.rows.append(row)
    return days


def _weeks(days: list[Day]) -> list[list[Day | None]]:
    """Days in rows of Monday to Sunday."""
    cells: list[Day | None] = [None] * days[0].date.weekday()
    cells += days
    cells += [None] * (-len(cells) % 7)
    return [cells[place : place + 7] for place in range(0, len(cells), 7)]


def _months(days: list[Day]) -> list[dict[str, Any]]:
    """The sums of each calendar month of the time."""
    found: dict[date, dict[str, Any]] = {}
    for day in days:
        row = found.setdefault(
            day.date.replace(day=1),
            {"month": day.date, "charged": ZERO, "granted": ZERO, "ended": ZERO},
        )
        for name in ("charged", "granted", "ended"):
            row[name] += getattr(day, name)
    return list(found.values())


def run_out(merchant: Merchant, *, now: datetime) -> list[dict[str, Any]]:
    """Who runs out of credit in the time, at the pace of the last 7 days, the soonest first."""
    today = now.astimezone(ZoneInfo(merchant.time_zone)).date()
    asked = rollups.of_days(merchant, first=today - timedelta(days=7), last=today)
    elapsed = Decimal((now - asked["start"]) // timedelta(seconds=1)) / 86400
    with database.cursor() as cursor:
        cursor.execute(_RUN_OUT, asked | {"elapsed": elapsed, "days": DAYS, "most": SOONEST})
        rows: list[tuple[UUID, Decimal, Decimal]] = cursor.fetchall()
    keys = [key for key, _, _ in rows]
    people = Connection.objects.of(merchant).filter(pk__in=keys).select_related("customer")
    named = {row.pk: row for row in people}
    current = Subscription.objects.of(merchant).current().filter(connection__in=keys)
    plans = {row.connection_id: row for row in current.select_related("plan")}
    found = []
    for key, balance, daily in rows:
        held = plans.get(key)
        at = now + timedelta(seconds=int(balance / daily * 86400))
        found.append(
            {
                "connection": named[key],
                "at": at,
                "balance": balance,
                "daily": daily,
                "then": _then(held, at),
            }
        )
    return found


def _then(subscription: Subscription | None, at: datetime) -> tuple[str, str]:
    """What happens at that hour: a tone and words."""
    if subscription is None:
        return "bad", "no plan: requests are refused"
    if subscription.cycle_end <= at and not subscription.is_ending:
        return "", "after the next renewal"
    if subscription.auto_top_up_bundle_id is not None:
        return "ok", "tops up by itself"
    if subscription.plan.when_depleted == Plan.WhenDepleted.BLOCK:
        return "bad", "requests are refused"
    return "warn", "the card is charged"


urls: list[URLPattern] = [path("calendar", page, name="calendar")]
