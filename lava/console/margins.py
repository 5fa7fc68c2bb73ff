"""Margins: what usage was charged against what providers asked, by customer, plan, meter and model.

Reads only. Money in is what cards paid in the time less what went back; a plan is warned of where
nine of ten of its customers do better than one who costs more than they pay.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection as database
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import ids
from billing.models import Connection, Merchant, Plan
from lava.console import access, numbers, periods
from lava.console.periods import Period
from meters import volume

SHOWN = 25
ZERO = Decimal(0)
# Each customer who used or paid anything: the plan they are on, what they were charged, what of
# it has a known cost, that cost, and what their card paid.
_CUSTOMERS = """
WITH used AS (
    SELECT connection_id, sum(charged) AS charged, sum(costed) AS costed,
           sum(provider_cost) AS cost
      FROM (SELECT connection_id, charged, costed, provider_cost FROM meters_connectionusage
             WHERE merchant_id = %(merchant)s AND bucket >= %(start)s AND bucket < %(end)s
            UNION ALL
            SELECT connection_id, charged, costed, provider_cost FROM meters_usagedelta
             WHERE merchant_id = %(merchant)s AND bucket >= %(start)s AND bucket < %(end)s) u
     GROUP BY 1),
paid AS (
    SELECT connection_id, sum(amount - refunded) AS paid FROM billing_payment
     WHERE merchant_id = %(merchant)s AND status = 'succeeded'
       AND settled_at >= %(start)s AND settled_at < %(end)s
     GROUP BY 1)
SELECT connection_id, s.plan_id, COALESCE(charged, 0), COALESCE(costed, 0), COALESCE(cost, 0),
       COALESCE(paid, 0)
  FROM used FULL JOIN paid USING (connection_id)
  LEFT JOIN (SELECT connection_id, plan_id FROM billing_subscription
              WHERE merchant_id = %(merchant)s AND status IN ('active', 'past_due')) s
      USING (connection_id)
"""
_MODELS = """
SELECT model, count(*), sum(charged), sum(charged) FILTER (WHERE provider_cost IS NOT NULL),
       sum(provider_cost)
  FROM meters_usagerequest
 WHERE merchant_id = %(merchant)s AND id >= %(first)s AND status = 'completed'
   AND created_at >= %(start)s AND created_at < %(end)s
 GROUP BY 1 ORDER BY 3 DESC LIMIT 50
"""


@dataclass(slots=True)
class Line:
    """A row of a table: charged, the part of it with a known cost, that cost."""

    name: str
    url: str
    charged: Decimal
    costed: Decimal
    cost: Decimal
    count: int = 0
    paid: Decimal = ZERO
    # Of a plan: the customer whom nine of ten do better than, as money in less cost.
    worst_tenth: Decimal | None = None

    @property
    def margin(self) -> Decimal:
        return self.costed - self.cost

    @property
    def share(self) -> str:
        """The margin in percent of what was charged; empty where no cost is known."""
        if not self.costed:
            return "unknown" if not self.cost else "all cost"
        return f"{self.margin * 100 / self.costed:.1f} %".replace("-", "−")

    @property
    def result(self) -> Decimal:
        return self.paid - self.cost


@access.requires("billing.view_any")
@require_GET
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/margin`, for the days that are asked for."""
    merchant = request.merchant
    period = periods.read(request.GET.dict(), now=merchant.now(), zone=merchant.time_zone)
    customers = by_customer(merchant, period)
    plans = by_plan(merchant, customers)
    losing = [row for row in customers if row.result < 0]
    return render(
        request,
        "console/margin.html",
        {
            "period": period,
            "ranges": periods.RANGES,
            "total": _total([line for line, _, _ in customers.rows]),
            "plans": plans,
            "losing_plans": [
                row for row in plans if row.worst_tenth is not None and row.worst_tenth < 0
            ],
            "meters": by_meter(merchant, period),
            "models": by_model(merchant, period),
            "customers": named(merchant, customers),
            "losing": len(losing),
            "volume": volume.given(merchant, start=period.start, end=period.end),
            "count": len(customers.rows),
            "currency": merchant.currency,
        },
    )


@dataclass(frozen=True, slots=True)
class Customers:
    """The customers of a time: (line, connection, plan)."""

    rows: list[tuple[Line, UUID, UUID | None]]

    def __iter__(self) -> Any:
        return (line for line, _, _ in self.rows)


def by_customer(merchant: Merchant, period: Period) -> Customers:
    """Everybody who used or paid something, the dearest to serve first."""
    with database.cursor() as cursor:
        cursor.execute(
            _CUSTOMERS, {"merchant": merchant.pk, "start": period.start, "end": period.end}
        )
        rows = cursor.fetchall()
    found = [
        (Line("", "", charged, costed, cost, paid=paid), connection, plan)
        for connection, plan, charged, costed, cost, paid in rows
    ]
    return Customers(sorted(found, key=lambda row: (row[0].result, row[1])))


def named(merchant: Merchant, customers: Customers) -> list[Line]:
    """The customers with the least left over, by name."""
    shown = customers.rows[:SHOWN]
    people = {
        row.pk: row
        for row in Connection.objects.of(merchant)
        .filter(pk__in=[connection for _, connection, _ in shown])
        .select_related("customer")
    }
    found = []
    for line, key, _ in shown:
        line.name = str(people[key].customer)
        line.url = f"/console/connections/{people[key].public_id}"
        found.append(line)
    return found


def by_plan(merchant: Merchant, customers: Customers) -> list[Line]:
    """Each plan's customers together, and the one of them whom nine of ten do better than."""
    plans = {row.pk: row for row in Plan.objects.of(merchant)}
    groups: dict[UUID | None, list[Line]] = {}
    for line, _, plan in customers.rows:
        groups.setdefault(plan, []).append(line)
    found = []
    for key, lines in groups.items():
        plan = plans.get(key) if key is not None else None
        row = _total(lines)
        row.name = plan.name if plan is not None else "No plan"
        row.url = f"/console/plans/{plan.public_id}" if plan is not None else ""
        row.count = len(lines)
        if any(line.cost for line in lines):
            results = sorted(line.result for line in lines)
            row.worst_tenth = results[len(results) // 10]
        found.append(row)
    return sorted(found, key=lambda row: -row.charged)


def by_meter(merchant: Merchant, period: Period) -> list[Line]:
    """Each meter, from the sums."""
    return [
        Line(
            one.name,
            f"/console/requests/?meter={ids.public('prd', one.key)}&{period.bounds}",
            one.total,
            one.charged_with_cost,
            one.cost or ZERO,
            count=one.count,
        )
        for one in numbers.usage_by_meter(merchant, period)
    ]


def by_model(merchant: Merchant, period: Period) -> list[Line]:
    """Each provider's model; the only table that reads the requests themselves."""
    with database.cursor() as cursor:
        cursor.execute(
            _MODELS,
            {
                "merchant": merchant.pk,
                "start": period.start,
                "end": period.end,
                "first": ids.first(period.start - merchant.clock_offset),
            },
        )
        return [
            Line(model or "not said", "", charged, costed or ZERO, cost or ZERO, count=count)
            for model, count, charged, costed, cost in cursor.fetchall()
        ]


def _total(lines: list[Line]) -> Line:
    return Line(
        "",
        "",
        sum((line.charged for line in lines), ZERO),
        sum((line.costed for line in lines), ZERO),
        sum((line.cost for line in lines), ZERO),
        paid=sum((line.paid for line in lines), ZERO),
    )


urls: list[URLPattern] = [path("margin", page, name="margin")]
