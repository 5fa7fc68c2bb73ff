"""Margins: what usage was charged against what providers asked, by customer, plan, meter and model.

Reads only. Money in is what cards paid in the time less what went back or the bank took back; a
plan is warned of where nine of ten of its customers do better than one who costs more than they
pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from django.db import connection as database
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import ids, money
from billing.models import Connection, Merchant, Plan
from lava.console import access, numbers, periods
from lava.console.periods import Period
from meters import rollups, volume
from meters.models import Meter

SHOWN = 25
ZERO = Decimal(0)
# Each customer who used or paid anything: the plan they are on, what they were charged less what
# came back of it for the volume of a cycle, what of it has a known cost, that cost, and what their
# card paid. What came back lessens the part with a known cost by as large a share of it.
_CUSTOMERS = f"""
WITH used AS ({rollups.BY_CONNECTION}),
given AS (
    SELECT connection_id, sum(amount) AS given FROM meters_volumesettlement
     WHERE merchant_id = %(merchant)s AND created_at >= %(start)s AND created_at < %(end)s
     GROUP BY 1),
paid AS (
    SELECT y.connection_id, sum(GREATEST(y.amount - y.refunded - COALESCE(d.amount, 0), 0)) AS paid
      FROM billing_payment y
      LEFT JOIN (SELECT payment_id, sum(amount) AS amount FROM billing_dispute
                  WHERE merchant_id = %(merchant)s AND status IN ('open', 'lost')
                  GROUP BY 1) d ON d.payment_id = y.id
     WHERE y.merchant_id = %(merchant)s AND y.status = 'succeeded'
       AND y.settled_at >= %(start)s AND y.settled_at < %(end)s
     GROUP BY 1),
customers AS (
    SELECT connection_id, s.plan_id, COALESCE(charged, 0) - COALESCE(given, 0) AS charged,
           COALESCE(costed, 0) - CASE WHEN charged > 0
               THEN round(COALESCE(given, 0) * costed / charged, 10) ELSE 0 END AS costed,
           COALESCE(cost, 0) AS cost, COALESCE(paid, 0) AS paid,
           COALESCE(paid, 0) - COALESCE(cost, 0) AS result
      FROM used FULL JOIN paid USING (connection_id) FULL JOIN given USING (connection_id)
      LEFT JOIN (SELECT connection_id, plan_id FROM billing_subscription
                  WHERE merchant_id = %(merchant)s AND status IN ('active', 'past_due')) s
          USING (connection_id))
"""  # noqa: S608
_LEAST_FIRST = f"""{_CUSTOMERS}
SELECT connection_id, plan_id, charged, costed, cost, paid FROM customers
 ORDER BY result, connection_id
"""  # noqa: S608
# By plan, and the customers with the least left over, in one statement: a row of the one has no
# connection, of the other no count. The tenth is the one whom nine of ten do better than.
_PAGE = f"""{_CUSTOMERS}
(SELECT NULL::uuid, plan_id, sum(charged), sum(costed), sum(cost), sum(paid), count(*),
        count(*) FILTER (WHERE result < 0),
        CASE WHEN bool_or(cost > 0)
             THEN (array_agg(result ORDER BY result))[count(*) / 10 + 1] END
   FROM customers GROUP BY plan_id)
UNION ALL
(SELECT connection_id, plan_id, charged, costed, cost, paid, 0, 0, NULL FROM customers
  ORDER BY result, connection_id LIMIT {SHOWN})
"""  # noqa: S608
MODELS = 50


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
    plans, customers, losing = by_plan(merchant, period)
    given = volume.given(merchant, start=period.start, end=period.end)
    return render(
        request,
        "console/margin.html",
        {
            "period": period,
            "ranges": periods.RANGES,
            "total": _total(plans),
            "plans": plans,
            "losing_plans": [
                row for row in plans if row.worst_tenth is not None and row.worst_tenth < 0
            ],
            "meters": by_meter(merchant, period, given=given),
            "models": by_model(merchant, period),
            "customers": customers,
            "losing": losing,
            "volume": sum(given.values(), ZERO),
            "count": sum(row.count for row in plans),
            "currency": merchant.currency,
        },
    )


def by_customer(merchant: Merchant, period: Period) -> list[tuple[Line, UUID, UUID | None]]:
    """Everybody who used or paid something, the dearest to serve first: (line, connection,
    plan)."""
    with database.cursor() as cursor:
        cursor.execute(_LEAST_FIRST, _days(merchant, period))
        return [
            (Line("", "", charged, costed, cost, paid=paid), connection, plan)
            for connection, plan, charged, costed, cost, paid in cursor.fetchall()
        ]


def by_plan(merchant: Merchant, period: Period) -> tuple[list[Line], list[Line], int]:
    """Each plan's customers together, the customers with the least left over by name, and how many
    cost more than they pay."""
    with database.cursor() as cursor:
        cursor.execute(_PAGE, _days(merchant, period))
        rows = cursor.fetchall()
    names = {row.pk: row for row in Plan.objects.of(merchant)}
    plans: list[Line] = []
    least: list[tuple[Line, UUID]] = []
    losing = 0
    for connection, key, charged, costed, cost, paid, count, below, tenth in rows:
        line = Line("", "", charged, costed, cost, count=count, paid=paid, worst_tenth=tenth)
        if connection is not None:
            least.append((line, connection))
            continue
        plan = names.get(key)
        line.name = plan.name if plan is not None else "No plan"
        line.url = f"/console/plans/{plan.public_id}" if plan is not None else ""
        losing += below
        plans.append(line)
    plans.sort(key=lambda row: -row.charged)
    return plans, _named(merchant, least), losing


def _days(merchant: Merchant, period: Period) -> dict[str, Any]:
    return rollups.of_days(merchant, first=period.first, last=period.last)


def _named(merchant: Merchant, customers: list[tuple[Line, UUID]]) -> list[Line]:
    """Customers' lines by name, the least left over first."""
    people = {
        row.pk: row
        for row in Connection.objects.of(merchant)
        .filter(pk__in=[key for _, key in customers])
        .select_related("customer")
    }
    customers = sorted(customers, key=lambda row: (row[0].result, row[1]))
    for line, key in customers:
        line.name = str(people[key].customer)
        line.url = f"/console/connections/{people[key].public_id}"
    return [line for line, _ in customers]


def by_meter(merchant: Merchant, period: Period, *, given: Mapping[UUID, Decimal]) -> list[Line]:
    """Each meter, from the sums, less what was given back for its volume; also where that was used
    before the time."""
    found = []
    used = numbers.usage_by_meter(merchant, period)
    before = set(given) - {one.key for one in used}
    rest = Meter.objects.of(merchant).filter(pk__in=before).order_by("name")
    for one in [*used, *(numbers.Series(row.name, key=row.pk) for row in rest)]:
        back = given.get(one.key, ZERO)
        known = one.charged_with_cost
        url = f"/console/requests/?meter={ids.public('prd', one.key)}&{period.bounds}"
        found.append(
            Line(
                one.name,
                url,
                one.total - back,
                known - part(back, known, one.total),
                one.cost or ZERO,
                count=one.count,
            )
        )
    return found


def part(back: Decimal, known: Decimal, charged: Decimal) -> Decimal:
    """What of an amount that came back belongs to the usage with a known cost; none of it where
    nothing was charged in the time."""
    if not back or not charged:
        return ZERO
    return money.round_fee(Fraction(back) * Fraction(known) / Fraction(charged))


def by_model(merchant: Merchant, period: Period) -> list[Line]:
    """Each provider's model, as it was charged: what comes back for the volume of a cycle is no
    model's."""
    rows = rollups.by_model(merchant, start=period.start, end=period.end, most=MODELS)
    return [
        Line(row.name or "not said", "", row.charged, row.costed, row.cost, count=row.requests)
        for row in rows
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
