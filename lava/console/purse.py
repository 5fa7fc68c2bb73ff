"""The figures of a customer's page: balances, the cycle, meters, the chart. Reads only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection as database
from django.db.models import OuterRef, Subquery, Sum
from django.db.models.functions import TruncDate

from billing import ids, money
from billing.models import Connection, CreditGrant, Plan, Subscription
from checkout import prices as words
from lava.console import charts, moments, rates, timeline
from meters import prices, pricing
from meters.models import Meter, MeterPosition, UsageRequest

ZERO = Decimal(0)
Source = CreditGrant.Source


@dataclass(frozen=True, slots=True)
class Tile:
    """A balance: what is left, of how much, when it is spent, what becomes of it."""

    label: str
    left: Decimal
    of: Decimal
    order: str
    note: str
    of_note: str = ""

    @property
    def share(self) -> str:
        """How full its bar is, from 0 to 100."""
        if self.of <= 0 or self.left <= 0:
            return "0"
        return f"{min(self.left / self.of, Decimal(1)) * 100:.1f}"


def tiles(
    connection: Connection,
    subscription: Subscription | None,
    live: list[CreditGrant],
    *,
    zone: str,
) -> list[Tile]:
    """The four balances, in the order of the draw."""

    def sums(*sources: str) -> tuple[Decimal, Decimal]:
        found = [grant for grant in live if grant.source in sources]
        # A grant spent in an earlier cycle is no part of this one.
        shown = [
            grant
            for grant in found
            if grant.remaining
            or subscription is None
            or grant.created_at >= subscription.cycle_start
        ]
        return (
            sum((grant.remaining for grant in shown), ZERO),
            sum((grant.amount for grant in shown), ZERO),
        )

    currency = connection.currency
    cycle, rolled, bundles = (
        sums(Source.CYCLE),
        sums(Source.ROLLOVER),
        sums(Source.BUNDLE, Source.MANUAL, Source.RETURNED, Source.VOLUME),
    )
    total = cycle[0] + rolled[0] + bundles[0] - connection.debt
    owed = money.display(connection.debt, currency)
    plan = subscription.plan if subscription is not None else None
    next_note, rolls, keeps = "No plan", "No plan", "Kept"
    if plan is not None and subscription is not None:
        end = moments.day_month(subscription.cycle_end, zone)
        full = plan.rollover_type == Plan.Rollover.FULL
        kept = plan.bundle_rollover_type == Plan.Rollover.FULL
        next_note = f"Next {money.display(plan.included_credit, currency)} on {end}"
        rolls = "Kept while subscribed" if full else f"Ends {end}"
        keeps = "Kept while subscribed" if kept else f"Ends {end}"
        if subscription.is_ending:
            next_note = f"Ends {end}"
    return [
        Tile(
            "Left to spend",
            total,
            cycle[1] + rolled[1] + bundles[1],
            "",
            f"Exactly {money.display(total, currency)}. Overage owed: {owed}",
            "this cycle",
        ),
        Tile("Plan credit", *cycle, "spent 1st", next_note),
        Tile("Rolled over", *rolled, "spent 2nd", rolls),
        Tile("Bundles", *bundles, "spent 3rd", keeps),
    ]


def balance(connection: Connection, live: Iterable[CreditGrant]) -> Decimal:
    left: Decimal = sum((grant.remaining for grant in live), ZERO) - connection.debt
    return left


def cycle(subscription: Subscription | None, *, now: datetime, zone: str) -> dict[str, Any] | None:
    """Where in the cycle it is: the day, of how many, and how full the bar is."""
    if subscription is None:
        return None
    start, end = subscription.cycle_start, subscription.cycle_end
    span = max((end - start).total_seconds(), 1)
    passed = min(max((now - start).total_seconds(), 0), span)
    total = max(round(span / 86400), 1)
    return {
        "day": min(int(passed // 86400) + 1, total),
        "days": total,
        "share": f"{Decimal(passed) / Decimal(span) * 100:.1f}",
        "ends": moments.short(end, zone),
        "overdue": end <= now,
    }


@dataclass(frozen=True, slots=True)
class Used:
    """What a connection used: by meter in this cycle, and in the last two weeks of 7 days."""

    meters: dict[UUID, tuple[Decimal, Decimal]]
    week: Decimal
    earlier: Decimal


def used_by(connection: Connection, subscription: Subscription | None, *, now: datetime) -> Used:
    """One query over the requests of the cycle and of the last 14 days."""
    if subscription is None:
        return Used({}, ZERO, ZERO)
    since = now - timedelta(days=14)
    first = min(since, subscription.cycle_start) - connection.merchant.clock_offset
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT meter_id, "
            "COALESCE(sum(quantity) FILTER (WHERE subscription_id = %(sub)s AND cycle_index = "
            " %(cycle)s), 0), "
            "COALESCE(sum(charged) FILTER (WHERE subscription_id = %(sub)s AND cycle_index = "
            " %(cycle)s), 0), "
            "COALESCE(sum(charged) FILTER (WHERE created_at >= %(week)s), 0), "
            "COALESCE(sum(charged) FILTER (WHERE created_at >= %(since)s AND created_at < "
            " %(week)s), 0) "
            "FROM meters_usagerequest WHERE connection_id = %(con)s AND id >= %(first)s "
            "GROUP BY meter_id",
            {
                "con": connection.pk,
                "sub": subscription.pk,
                "cycle": subscription.cycle_index,
                "week": now - timedelta(days=7),
                "since": since,
                "first": ids.first(first),
            },
        )
        rows = cursor.fetchall()
    return Used(
        {row[0]: (row[1], row[2]) for row in rows},
        sum((row[3] for row in rows), ZERO),
        sum((row[4] for row in rows), ZERO),
    )


def meters_this_cycle(
    connection: Connection, subscription: Subscription | None, used: Used
) -> list[dict[str, Any]]:
    """Each meter of the plan: used and charged this cycle, and the price of the next unit."""
    if subscription is None:
        return []
    lifetime = MeterPosition.objects.filter(
        connection=connection, meter=OuterRef("pk"), scope=connection.pk, window=-1
    )
    cycle = MeterPosition.objects.filter(
        connection=connection,
        meter=OuterRef("pk"),
        scope=subscription.pk,
        window=subscription.cycle_index,
    )
    found = []
    rows = (
        Meter.objects.filter(links__plan=subscription.plan_id)
        .select_related("price")
        .annotate(
            lifetime=Subquery(lifetime.values("quantity")[:1]),
            cycle=Subquery(cycle.values("quantity")[:1]),
        )
        .order_by("name", "id")
    )
    for meter in rows:
        price = meter.price
        assert price is not None
        quantity, charged = used.meters.get(meter.pk, (ZERO, ZERO))
        position = meter.cycle if price.tier_window == "cycle" else meter.lifetime
        here, now = _standing(price, position or ZERO, connection.currency)
        found.append(
            {
                "meter": meter,
                "quantity": rates.count(quantity, price.unit) + here,
                "charged": charged,
                "price": now,
            }
        )
    return found


def _standing(price: Any, position: Decimal, currency: str) -> tuple[str, str]:
    """Where a position (seconds for minutes) stands in a price: its tier, and what is paid now."""
    tiers: list[pricing.Tier] = price.tiers
    if tiers[0].kind:
        return "", words.tell(price, currency)
    terms = prices.of(price).price
    scale = pricing.scale(terms)
    if position < price.free_allowance * scale:
        return "", f"now free, up to {words.count(price.unit, price.free_allowance)}"
    counted = pricing.billable(terms, position)
    place = max(place for place, tier in enumerate(tiers) if tier.start * scale <= counted)
    note = words.rate(price, tiers[place].rate, currency)
    if price.tier_mode == "volume" and place:
        first = words.rate(price, tiers[0].rate, currency)
        return f", tier {place + 1} of {len(tiers)}", f"now {first}, in the end {note} for all"
    here = f", tier {place + 1} of {len(tiers)}" if len(tiers) > 1 else ""
    return here, f"now {note}"


def chart(
    connection: Connection,
    subscription: Subscription | None,
    live: list[CreditGrant],
    used: Used,
    *,
    which: str,
    now: datetime,
    zone: str,
) -> dict[str, Any] | None:
    """The balance over the cycle, or its usage by day; and the hour credit runs out at the rate of
    the last 7 days."""
    if subscription is None:
        return None
    left = balance(connection, live)
    begun = min(Decimal((now - subscription.started_at).total_seconds()) / 86400, Decimal(7))
    daily = used.week / max(begun, Decimal(1))
    runs_out = None
    if daily > 0 and left > 0:
        days = left / daily
        if days < 400:
            runs_out = now + timedelta(seconds=int(days * 86400))
    start, end = subscription.cycle_start, max(subscription.cycle_end, now)
    currency = connection.currency
    drawn: dict[str, Any] | None
    if which == "usage":
        sums = _charged_by_day(connection, subscription, zone=zone)
        drawn = charts.daily(sums, start=start, end=end, now=now, currency=currency, zone=zone)
    else:
        points = timeline.days(connection, since=start, zone=zone)
        drawn = charts.balance(
            [*points, (now, left)] if points else [],
            start=start,
            end=end,
            now=now,
            runs_out=runs_out,
            currency=currency,
            zone=zone,
        )
    if drawn is None:
        return None
    whole = money.floor_minor(daily, connection.currency)
    before = money.floor_minor(used.earlier / 7, connection.currency)
    plan = subscription.plan
    return drawn | {
        "runs_out": runs_out if runs_out and runs_out <= subscription.cycle_end else None,
        "daily": whole,
        "before": before if subscription.started_at <= now - timedelta(days=14) else None,
        "then": _then(plan),
        "left": left,
    }


def _charged_by_day(
    connection: Connection, subscription: Subscription, *, zone: str
) -> dict[date, Decimal]:
    """What was charged on each local day of the cycle."""
    rows = (
        UsageRequest.objects.filter(
            connection=connection,
            created_at__gte=subscription.cycle_start,
            pk__gte=ids.first(subscription.cycle_start - connection.merchant.clock_offset),
        )
        .annotate(day=TruncDate("created_at", tzinfo=ZoneInfo(zone)))
        .values_list("day")
        .annotate(Sum("charged"))
        .order_by()
    )
    return dict(rows)


def _then(plan: Plan) -> str:
    """What happens when the credit is gone, in a sentence."""
    if plan.when_depleted == Plan.WhenDepleted.BLOCK:
        return "Then requests are refused until a bundle is bought."
    if plan.overage_cap is None:
        return "Then the card is charged as overage."
    cap = money.display(plan.overage_cap, plan.currency)
    return f"Then the card is charged as overage, at most {cap} a cycle."
