"""The numbers of the overview, each by one query over the merchant's own rows.

Read-only; the instants are on the merchant's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Count, Exists, F, OuterRef, Q, Sum
from django.db.models.functions import TruncDate

from billing import credits, ids
from billing.models import (
    Connection,
    CreditGrant,
    Event,
    Merchant,
    Payment,
    PaymentMethod,
    Plan,
    Subscription,
)
from meters.models import UsageRequest

ZERO = Decimal(0)
# How many of each interval a month has, for MRR: a price of any interval as money a month.
PER_MONTH = {
    "day": Decimal(365) / 12,
    "week": Decimal(365) / 84,
    "month": Decimal(1),
    "year": Decimal(1) / 12,
}


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


@dataclass(slots=True)
class Series:
    """A meter's usage in money: a day each, and the sum."""

    name: str
    total: Decimal
    days: dict[date, Decimal]
    quantity: Decimal
    unit: str
    key: Any = None
    count: int = 0
    # The provider's cost of the requests that have one, and what those were charged.
    cost: Decimal | None = None
    charged_with_cost: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Facts:
    """What the front page is made of, each asked once."""

    days: int
    series: list[Series]
    plans: list[dict[str, Any]]
    cards: dict[str, Any]
    owed: dict[str, Any]
    outstanding: Decimal


def facts(merchant: Merchant, *, now: datetime, days: int) -> Facts:
    """Ask for all of it: five queries."""
    since = now - timedelta(days=days)
    today = now.astimezone(ZoneInfo(merchant.time_zone)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    paid = Q(status=Payment.Status.SUCCEEDED)
    failed = Q(status=Payment.Status.FAILED, created_at__gte=since)
    earlier = Q(settled_at__gte=since - timedelta(days=days), settled_at__lt=since)
    cards = Payment.objects.of(merchant).aggregate(
        revenue=Sum("amount", filter=paid & Q(settled_at__gte=since), default=ZERO),
        before=Sum("amount", filter=paid & earlier, default=ZERO),
        today=Sum("amount", filter=paid & Q(settled_at__gte=today), default=ZERO),
        today_count=Count("pk", filter=paid & Q(settled_at__gte=today)),
        failed=Count("pk", filter=failed),
        failed_sum=Sum("amount", filter=failed, default=ZERO),
        flagged=Count("pk", filter=~Q(flag="")),
        unknown=Count("pk", filter=Q(status=Payment.Status.UNKNOWN)),
    )
    has_card = Exists(
        PaymentMethod.objects.filter(connection=OuterRef("pk"), is_default=True, detached_at=None)
    )
    stuck = Q(status=Connection.Status.ACTIVE) & ~Q(has_card)
    owed = (
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
    left = CreditGrant.objects.of(merchant).filter(credits.live(now), is_spent=False)
    return Facts(
        days=days,
        series=usage_by_meter(merchant, now=now, days=days),
        plans=plan_rows(merchant),
        cards=cards,
        owed=owed,
        outstanding=left.aggregate(sum=Sum("remaining", default=ZERO))["sum"],
    )


def tiles(found: Facts) -> list[Tile]:
    """The eight numbers of the front page."""
    cards, owed = found.cards, found.owed
    past_due = sum(row["past_due"] for row in found.plans)
    charged = sum((one.total for one in found.series), ZERO)
    return [
        Tile("Revenue", "/console/payments/?status=succeeded", amount=cards["revenue"],
             text=f"the {found.days} days before", change=cards["revenue"] - cards["before"]),
        Tile("MRR", "/console/plans/", amount=sum((row["mrr"] for row in found.plans), ZERO),
             text="from active plans, per month"),
        Tile("Active subscriptions", "/console/connections/",
             count=sum(row["customers"] for row in found.plans),
             text=f"{past_due} past due" if past_due else "none past due"),
        margin_tile(found, charged),
        Tile("Credits outstanding", "/console/ledger", amount=found.outstanding,
             text="A liability: prepaid, not used yet"),
        Tile("Overage due", "/console/connections/?show=owing", amount=owed["sum"],
             text=f"{owed['count']:,} customer{'' if owed['count'] == 1 else 's'} owe"
             f"{'s' if owed['count'] == 1 else ''}"),
        Tile("Failed payments", "/console/payments/?status=failed", count=cards["failed"],
             bad=bool(cards["failed"]), text="", amount=cards["failed_sum"]),
        Tile("Collected today", "/console/payments/", amount=cards["today"],
             text=f"{cards['today_count']:,} payment{'' if cards['today_count'] == 1 else 's'}"),
    ]  # fmt: skip


def margin_tile(found: Facts, charged: Decimal) -> Tile:
    """What was charged for usage; with its margin where the provider's cost of all is known."""
    count = sum(one.count for one in found.series)
    costed = [one for one in found.series if one.cost is not None]
    known = sum((one.charged_with_cost for one in costed), ZERO)
    cost = sum((one.cost for one in costed if one.cost is not None), ZERO)
    text = f"{count:,} request{'' if count == 1 else 's'}"
    if known:
        share = (known - cost) * 100 / known
        text += f"; margin {share:.1f} %"
        text += "" if known == charged else " where its cost is known"
    return Tile("Usage charged", "/console/requests/", amount=charged, text=text)


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
            "mrr": row.customers * row.price.amount * PER_MONTH[row.billing_interval],
        }
        for row in rows
        if row.archived_at is None or row.customers
    ]
    return sorted(shown, key=lambda row: (-row["mrr"], -row["customers"], row["plan"].name))


def usage_by_meter(merchant: Merchant, *, now: datetime, days: int) -> list[Series]:
    """What each meter charged, by local day, the largest meter first."""
    zone = ZoneInfo(merchant.time_zone)
    first = (now.astimezone(zone) - timedelta(days=days - 1)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    rows = (
        UsageRequest.objects.of(merchant)
        .filter(created_at__gte=first, pk__gte=ids.first(first - merchant.clock_offset))
        .annotate(day=TruncDate("created_at", tzinfo=zone))
        .values("meter_id", "day", name=F("meter__name"), unit=F("meter__price__unit"))
        .annotate(
            sum=Sum("charged"),
            counted=Sum("quantity"),
            requests=Count("pk"),
            cost=Sum("provider_cost"),
            with_cost=Sum("charged", filter=Q(provider_cost__isnull=False), default=ZERO),
        )
        .order_by()
    )
    found: dict[Any, Series] = {}
    for row in rows:
        series = found.setdefault(
            row["meter_id"], Series(row["name"], ZERO, {}, ZERO, row["unit"], row["meter_id"])
        )
        series.total += row["sum"]
        series.quantity += row["counted"]
        series.count += row["requests"]
        series.days[row["day"]] = row["sum"]
        if row["cost"] is not None:
            series.cost = (series.cost or ZERO) + row["cost"]
            series.charged_with_cost += row["with_cost"]
    return sorted(found.values(), key=lambda series: -series.total)


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
    add(
        cards["unknown"], "payment being checked", "payments being checked", verb="Look",
        url="/console/payments/?status=unknown",
        why="The card network has not answered; it is asked, never charged again.",
    )  # fmt: skip
    add(
        owed["stuck"], "owes without a card", "owe without a card", amount=owed["stuck_sum"],
        verb="See who", url="/console/connections/?show=owing",
        why="Usage went past the credit and no card is saved.",
    )  # fmt: skip
    return rows[:5]
