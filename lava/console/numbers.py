"""The numbers of the overview, each by one query over the merchant's own rows or their sums.

Read-only; the instants are on the merchant's clock. Usage comes from `meters.rollups`, so that a
page costs the same at any size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection as database
from django.db.models import Count, Exists, OuterRef, Q, Sum

from billing import money
from billing.models import Connection, Event, Merchant, Payment, PaymentMethod, Plan, Subscription
from lava.console import periods
from lava.console.periods import Period
from meters import rollups
from meters.models import Meter

ZERO = Decimal(0)
# How many of each interval a month has, for MRR: a price of any interval as money a month.
PER_MONTH = {
    "day": Decimal(365) / 12,
    "week": Decimal(365) / 84,
    "month": Decimal(1),
    "year": Decimal(1) / 12,
}
# What is left of live credits, by the local month in which it ends: an end of its own, or the
# cycle's where the plan does not carry it on; null: none. `paid` is the part that was paid for: at
# the price of its payment and of the credits given in payment with it, or, rolled over, at that of
# the plan; what was given by hand is not. A refund takes its credits with it.
_CREDIT = """
SELECT date_trunc('month', ends AT TIME ZONE %(zone)s)::date AS month, sum(remaining),
       round(sum(remaining * ratio), 10)
  FROM (SELECT g.remaining,
               COALESCE(g.expires_at,
                        CASE WHEN g.pool = 1 AND p.rollover_type = 'none' THEN s.cycle_end
                             WHEN g.pool = 2 AND p.bundle_rollover_type = 'none' THEN s.cycle_end
                        END) AS ends,
               CASE WHEN (y.id IS NOT NULL OR c.id IS NOT NULL) AND g.amount > 0
                    THEN LEAST((COALESCE(y.amount, 0) + COALESCE(c.unused_value + c.owed, 0))
                               / g.amount, 1)
                    WHEN g.source = 'rollover' AND p.included_credit > 0
                    THEN LEAST(p.price / p.included_credit, 1)
                    ELSE 0 END AS ratio
          FROM billing_creditgrant g
          LEFT JOIN billing_subscription s
                 ON s.connection_id = g.connection_id AND s.status IN ('active', 'past_due')
          LEFT JOIN billing_plan p ON p.id = s.plan_id
          LEFT JOIN billing_payment y ON y.id = g.payment_id
          LEFT JOIN billing_cycle c ON c.id = g.cycle_id AND g.source = 'cycle'
         WHERE g.merchant_id = %(merchant)s AND NOT g.is_spent
           AND billing_has_begun(g.effective_at, %(now)s)
           AND (g.expires_at IS NULL OR g.expires_at > %(now)s)) live
 GROUP BY 1 ORDER BY 1
"""
# Who came, who left, what ended unused (not what an upgrade took in payment), and what needs a
# person, in one trip.
_PULSE = """
SELECT
 (SELECT count(*) FROM billing_subscription WHERE merchant_id = %(merchant)s
     AND started_at >= %(start)s AND started_at < %(end)s),
 (SELECT count(*) FROM billing_subscription WHERE merchant_id = %(merchant)s
     AND ended_at >= %(start)s AND ended_at < %(end)s),
 (SELECT count(*) FROM billing_subscription WHERE merchant_id = %(merchant)s
     AND started_at < %(start)s AND (ended_at IS NULL OR ended_at >= %(start)s)),
 (SELECT count(*) FROM billing_subscription WHERE merchant_id = %(merchant)s
     AND started_at < %(start)s AND ended_at >= %(start)s AND ended_at < %(end)s),
 (SELECT COALESCE(-sum(amount), 0) FROM billing_ledgerentry WHERE merchant_id = %(merchant)s
     AND kind <> 'usage' AND kind = 'expire' AND reason NOT LIKE 'Given in payment for %%'
     AND occurred_at >= %(start)s AND occurred_at < %(end)s),
 (SELECT count(*) FROM billing_webhookendpoint WHERE merchant_id = %(merchant)s
     AND deleted_at IS NULL AND (failing_since IS NOT NULL OR paused_at IS NOT NULL)),
 (SELECT count(*) FROM jsonb_array_elements(
     (SELECT gaps FROM billing_reconciliation WHERE merchant_id = %(merchant)s AND state = 'done'
       ORDER BY id DESC LIMIT 1)) gap WHERE gap ->> 'mended_at' IS NULL),
 (SELECT COALESCE(sum(amount), 0) FROM meters_volumesettlement WHERE merchant_id = %(merchant)s
     AND created_at >= %(start)s AND created_at < %(end)s)
"""


@dataclass(slots=True)
class Tile:
    """One number: its name, its value, the line below, where it opens."""

    name: str
    url: str
    amount: Decimal | None = None
    count: int | None = None
    text: str = ""
    bad: bool = False
    change: Decimal | None = None
    # Said instead of a number.
    words: str = ""


@dataclass(slots=True)
class Series:
    """A meter's usage in money: a day each, and the sum."""

    name: str
    total: Decimal = ZERO
    days: dict[date, Decimal] = field(default_factory=dict)
    quantity: Decimal = ZERO
    unit: str = "requests"
    key: Any = None
    count: int = 0
    # The provider's cost of the requests that have one, and what those were charged.
    cost: Decimal | None = None
    charged_with_cost: Decimal = ZERO
    sums: dict[date, rollups.Sums] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credit:
    """What is left of live credits that end in a month; None: they have no end."""

    month: date | None
    left: Decimal
    paid: Decimal


@dataclass(frozen=True, slots=True)
class Pulse:
    """Who came and left in the period, and what needs somebody."""

    came: int
    left: int
    # Subscriptions that were there when the period began, and those of them that ended in it.
    there: int
    lost: int
    breakage: Decimal
    failing: int
    gaps: int
    # What came back for the volume of cycles.
    volume: Decimal

    @property
    def churn(self) -> Decimal | None:
        """The share that was lost of those that were there, in percent."""
        return Decimal(self.lost) * 100 / self.there if self.there else None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the front page is made of, each asked once."""

    period: Period
    series: list[Series]
    plans: list[dict[str, Any]]
    cards: dict[str, Any]
    owed: dict[str, Any]
    credit: list[Credit]
    pulse: Pulse

    @property
    def outstanding(self) -> Decimal:
        return sum((row.left for row in self.credit), ZERO)

    @property
    def deferred(self) -> Decimal:
        return sum((row.paid for row in self.credit), ZERO)

    @property
    def mrr(self) -> Decimal:
        return sum((row["mrr"] for row in self.plans), ZERO)

    @property
    def customers(self) -> int:
        return sum(row["customers"] for row in self.plans)


def facts(merchant: Merchant, *, now: datetime, period: Period) -> Facts:
    """Ask for all of it: seven queries, and one for the meters' names."""
    return Facts(
        period=period,
        series=usage_by_meter(merchant, period),
        plans=plan_rows(merchant),
        cards=_cards(merchant, period, now=now),
        owed=_owed(merchant),
        credit=credit_by_month(merchant, now=now),
        pulse=_pulse(merchant, period),
    )


def _cards(merchant: Merchant, period: Period, *, now: datetime) -> dict[str, Any]:
    """What cards paid in the period, before it and today; what failed or wants looking at."""
    today = now.astimezone(ZoneInfo(merchant.time_zone)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    paid = Q(status=Payment.Status.SUCCEEDED)
    inside = Q(settled_at__gte=period.start, settled_at__lt=period.end)
    earlier = Q(settled_at__gte=period.before.start, settled_at__lt=period.start)
    failed = Q(
        status=Payment.Status.FAILED, created_at__gte=period.start, created_at__lt=period.end
    )
    found: dict[str, Any] = Payment.objects.of(merchant).aggregate(
        revenue=Sum("amount", filter=paid & inside, default=ZERO),
        before=Sum("amount", filter=paid & earlier, default=ZERO),
        today=Sum("amount", filter=paid & Q(settled_at__gte=today), default=ZERO),
        today_count=Count("pk", filter=paid & Q(settled_at__gte=today)),
        failed=Count("pk", filter=failed),
        failed_sum=Sum("amount", filter=failed, default=ZERO),
        flagged=Count("pk", filter=~Q(flag="", alarm="", dispute_flag="")),
        unknown=Count("pk", filter=Q(status=Payment.Status.UNKNOWN)),
    )
    return found


def _owed(merchant: Merchant) -> dict[str, Any]:
    """What is owed past the credit, and what of it no card can pay."""
    has_card = Exists(
        PaymentMethod.objects.filter(connection=OuterRef("pk"), is_default=True, detached_at=None)
    )
    stuck = Q(status=Connection.Status.ACTIVE) & ~Q(has_card)
    found: dict[str, Any] = (
        Connection.objects.of(merchant)
        .filter(owes=True)
        .annotate(has_card=has_card)
        .aggregate(
            sum=Sum("debt", default=ZERO),
            count=Count("pk"),
            stuck=Count("pk", filter=stuck),
            stuck_sum=Sum("debt", filter=stuck, default=ZERO),
        )
    )
    return found


def credit_by_month(merchant: Merchant, *, now: datetime) -> list[Credit]:
    """Credits outstanding by the month in which they end, those without an end last."""
    with database.cursor() as cursor:
        cursor.execute(_CREDIT, {"merchant": merchant.pk, "now": now, "zone": merchant.time_zone})
        return [Credit(*row) for row in cursor.fetchall()]


def _pulse(merchant: Merchant, period: Period) -> Pulse:
    with database.cursor() as cursor:
        cursor.execute(_PULSE, {"merchant": merchant.pk, "start": period.start, "end": period.end})
        row = cursor.fetchone()
    assert row is not None
    return Pulse(*row)


def tiles(found: Facts) -> list[Tile]:
    """The numbers of the front page, each with the address of its rows."""
    cards, owed, pulse, period = found.cards, found.owed, found.pulse, found.period
    past_due = sum(row["past_due"] for row in found.plans)
    charged = sum((one.total for one in found.series), ZERO)
    return [
        Tile("Revenue", f"/console/payments/?status=succeeded&{period.bounds}",
             amount=cards["revenue"], text=f"the {period.days} days before",
             change=cards["revenue"] - cards["before"]),
        Tile("MRR", "/console/plans/", amount=found.mrr, text="from active plans, per month"),
        Tile("Active subscriptions", "/console/connections/", count=found.customers,
             text=f"{pulse.came:,} new, {pulse.left:,} ended; "
             f"{f'{past_due:,}' if past_due else 'none'} past due"),
        margin_tile(found, charged),
        Tile("Credits outstanding", "#credit", amount=found.outstanding,
             text="A liability: prepaid, not used yet"),
        Tile("Deferred revenue", "#credit", amount=found.deferred,
             text="The part of it that was paid for"),
        Tile("Breakage", "/console/ledger?kind=ended", amount=pulse.breakage,
             text="Credit that ended unused"),
        Tile("Overage due", "/console/connections/?show=owing", amount=owed["sum"],
             text=f"{owed['count']:,} customer{'' if owed['count'] == 1 else 's'} owe"
             f"{'s' if owed['count'] == 1 else ''}"),
        Tile("ARPU", "/console/plans/",
             amount=money.round_fee(found.mrr / found.customers) if found.customers else ZERO,
             text="MRR for each active subscription"),
        Tile("Churn", "/console/connections/?show=ended",
             words=f"{pulse.churn:.1f} %" if pulse.churn is not None else "none yet",
             text=f"{pulse.lost:,} of {pulse.there:,} that were there"),
        Tile("Failed payments", f"/console/payments/?status=failed&{period.bounds}",
             count=cards["failed"], bad=bool(cards["failed"]), text="",
             amount=cards["failed_sum"]),
        Tile("Collected today", "/console/payments/", amount=cards["today"],
             text=f"{cards['today_count']:,} payment{'' if cards['today_count'] == 1 else 's'}"),
    ]  # fmt: skip


def margin_tile(found: Facts, charged: Decimal) -> Tile:
    """What was charged for usage, less what came back for its volume; with its margin where the
    provider's cost of all is known."""
    count = sum(one.count for one in found.series)
    costed = sum((one.charged_with_cost for one in found.series), ZERO)
    cost = sum((one.cost for one in found.series if one.cost is not None), ZERO)
    back = found.pulse.volume
    known = costed - (back * costed / charged if charged else ZERO)
    text = f"{count:,} request{'' if count == 1 else 's'}"
    if known:
        share = (known - cost) * 100 / known
        text += f"; margin {share:.1f} %"
        text += "" if costed == charged else " where its cost is known"
    if back:
        text += "; volume discounts are off"
    return Tile("Usage charged", f"/console/requests/?{found.period.bounds}",
                amount=charged - back, text=text)  # fmt: skip


def plan_rows(merchant: Merchant) -> list[dict[str, Any]]:
    """Plans with their customers and MRR, the largest first."""
    current = Q(subscriptions__status__in=Subscription.CURRENT)
    rows = Plan.objects.of(merchant).annotate(
        customers=Count("subscriptions", filter=current),
        past_due=Count("subscriptions", filter=Q(subscriptions__status="past_due")),
    )
    shown = [
        {
            "plan": row,
            "customers": row.customers,
            "past_due": row.past_due,
            "mrr": money.round_fee(
                row.customers * row.price.amount * PER_MONTH[row.billing_interval]
            ),
        }
        for row in rows
        if row.archived_at is None or row.customers
    ]
    return sorted(shown, key=lambda row: (-row["mrr"], -row["customers"], row["plan"].name))


def usage_by_meter(merchant: Merchant, period: Period) -> list[Series]:
    """What each meter charged, by local day, the largest meter first."""
    rows = rollups.by_meter(merchant, start=period.start, end=period.end, zone=period.zone)
    meters = {
        meter.pk: meter
        for meter in Meter.objects.of(merchant)
        .filter(pk__in={row.meter_id for row in rows})
        .select_related("price")
    }
    found: dict[Any, Series] = {}
    for row in rows:
        meter = meters[row.meter_id]
        unit = meter.price.unit if meter.price is not None else "requests"
        series = found.setdefault(meter.pk, Series(meter.name, unit=unit, key=meter.pk))
        series.total += row.sums.charged
        series.quantity += _counted(row.sums, unit)
        series.count += row.sums.requests
        series.days[row.date] = row.sums.charged
        series.sums[row.date] = row.sums
        if row.costed:
            series.cost = (series.cost or ZERO) + row.sums.provider_cost
            series.charged_with_cost += row.costed
    return sorted(found.values(), key=lambda series: (-series.total, series.name))


def used(merchant: Merchant, meter: Meter) -> tuple[Decimal, Decimal]:
    """What a meter counted and charged in the last 30 days."""
    period = periods.read({}, now=merchant.now(), zone=merchant.time_zone)
    found = next((one for one in usage_by_meter(merchant, period) if one.key == meter.pk), None)
    return (found.quantity, found.total) if found is not None else (ZERO, ZERO)


def _counted(sums: rollups.Sums, unit: str) -> Decimal:
    """How much was used, in what the meter counts (seconds for minutes)."""
    return {
        "tokens_1m": Decimal(sums.tokens),
        "characters_1m": Decimal(sums.characters),
        "minutes": sums.seconds,
        "requests": Decimal(sums.requests),
    }[unit]


def spoken(series: Series) -> str:
    """A quantity as people say it: 2,334 min, 1.42 B tokens."""
    if series.unit == "minutes":
        return f"{series.quantity / 60:,.0f} min"
    nouns = {"tokens_1m": "tokens", "characters_1m": "characters", "requests": "requests"}
    amount = series.quantity
    for size, letter in ((10**9, " B"), (10**6, " M")):
        if amount >= size:
            return f"{amount / size:,.2f}{letter} {nouns[series.unit]}"
    return f"{amount:,.0f} {nouns[series.unit]}"


def activity(merchant: Merchant, *, count: int = 8) -> list[Event]:
    """What happened last."""
    rows = Event.objects.of(merchant).select_related("connection__customer")
    # A balance that moved is told to machines; people read what moved it.
    rows = rows.exclude(name="connection.wallet.balance.updated")
    return list(rows.order_by("-created_at")[:count])


def needs(found: Facts) -> list[dict[str, Any]]:
    """Where a person must act; only what is true now, at most five."""
    rows: list[dict[str, Any]] = []
    cards, owed = found.cards, found.owed
    late = sum(row["past_due"] for row in found.plans)
    late_sum = sum((row["past_due"] * row["plan"].price.amount for row in found.plans), ZERO)

    def add(count: int, one: str, many: str, **words: Any) -> None:
        if count:
            rows.append({"what": f"{count:,} {one if count == 1 else many}"} | words)

    add(
        cards["flagged"], "payment to look at", "payments to look at", url="/console/payments/"
        "?flagged=1", verb="Look",
        why="The card network and the books differ; nothing was granted for it.",
    )  # fmt: skip
    add(
        late, "customer is past due", "customers are past due", amount=late_sum, verb="Review",
        url="/console/payments/?status=failed",
        why="A card declined. It is tried again after 1, 3, 5 and 7 days.",
    )  # fmt: skip
    pulse = found.pulse
    add(
        pulse.gaps, "gap to mend", "gaps to mend", verb="Mend", url="/console/reconcile",
        why="Stripe and the books differ.",
    )  # fmt: skip
    add(
        pulse.failing, "webhook endpoint is failing or paused",
        "webhook endpoints are failing or paused", verb="Look", url="/console/webhooks",
        why="What it should hear waits; none is lost.",
    )  # fmt: skip
    add(
        cards["unknown"], "payment being checked", "payments being checked", verb="Look",
        url="/console/payments/?status=unknown",
        why="The card network has not answered; it is asked, never charged again.",
    )  # fmt: skip
    add(
        owed["stuck"], "customer owes without a card", "customers owe without a card",
        amount=owed["stuck_sum"], verb="See who", url="/console/connections/?show=owing",
        why="Usage went past the credit and no card is saved.",
    )  # fmt: skip
    return rows[:5]
