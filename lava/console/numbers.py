"""The numbers of the overview, each by one query over the merchant's own rows.

Read-only; the instants are on the merchant's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Count, F, Q, Sum
from django.db.models.functions import TruncDate

from billing import credits
from billing.models import (
    Connection,
    CreditGrant,
    Event,
    Merchant,
    Payment,
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


def tiles(merchant: Merchant, *, now: datetime, days: int) -> list[Tile]:
    """The eight numbers of the front page."""
    since = now - timedelta(days=days)
    today = now.astimezone(ZoneInfo(merchant.time_zone)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    paid = Q(status=Payment.Status.SUCCEEDED)
    cards = Payment.objects.of(merchant).aggregate(
        revenue=Sum("amount", filter=paid & Q(settled_at__gte=since)),
        before=Sum(
            "amount",
            filter=paid & Q(settled_at__gte=since - timedelta(days=days), settled_at__lt=since),
        ),
        today=Sum("amount", filter=paid & Q(settled_at__gte=today)),
        today_count=Count("pk", filter=paid & Q(settled_at__gte=today)),
        failed=Count("pk", filter=Q(status=Payment.Status.FAILED, created_at__gte=since)),
        failed_sum=Sum("amount", filter=Q(status=Payment.Status.FAILED, created_at__gte=since)),
    )
    usage = UsageRequest.objects.of(merchant).filter(created_at__gte=since)
    used = usage.aggregate(count=Count("pk"), charged=Sum("charged"), cost=Sum("provider_cost"))
    owed = Connection.objects.of(merchant).aggregate(
        debt=Sum("debt", filter=Q(owes=True)), count=Count("pk", filter=Q(owes=True))
    )
    left = CreditGrant.objects.of(merchant).filter(credits.live(now), is_spent=False)
    outstanding = left.aggregate(sum=Sum("remaining"))["sum"] or ZERO
    plans = plan_rows(merchant)
    mrr = sum((row["mrr"] for row in plans), ZERO)
    active = sum(row["customers"] for row in plans)
    past_due = sum(row["past_due"] for row in plans)
    revenue = cards["revenue"] or ZERO
    charged = used["charged"] or ZERO
    return [
        Tile("Revenue", "/console/payments/", amount=revenue, text=f"the {days} days before",
             change=revenue - (cards["before"] or ZERO)),
        Tile("MRR", "/console/plans/", amount=mrr, text="from active plans, per month"),
        Tile("Active subscriptions", "/console/connections/", count=active,
             text=f"{past_due} past due" if past_due else "none past due"),
        Tile("Usage charged", "/console/requests/", amount=charged,
             text=f"{used['count']:,} requests"),
        Tile("Credits outstanding", "/console/connections/", amount=outstanding,
             text="A liability: prepaid, not used yet"),
        Tile("Overage due", "/console/connections/", amount=owed["debt"] or ZERO,
             text=f"{owed['count']:,} connections owe"),
        Tile("Failed payments", "/console/payments/?status=failed", count=cards["failed"],
             bad=bool(cards["failed"]), text="", amount=cards["failed_sum"] or ZERO),
        Tile("Collected today", "/console/payments/", amount=cards["today"] or ZERO,
             text=f"{cards['today_count']:,} payments"),
    ]  # fmt: skip


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
        .filter(created_at__gte=first)
        .annotate(day=TruncDate("created_at", tzinfo=zone))
        .values("meter_id", "day", name=F("meter__name"), unit=F("meter__price__unit"))
        .annotate(charged=Sum("charged"), counted=Sum("quantity"))
        .order_by()
    )
    found: dict[Any, Series] = {}
    for row in rows:
        series = found.setdefault(row["meter_id"], Series(row["name"], ZERO, {}, ZERO, row["unit"]))
        series.total += row["charged"]
        series.quantity += row["counted"]
        series.days[row["day"]] = row["charged"]
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
    return list(rows.order_by("-created_at")[:count])


def needs(merchant: Merchant, *, now: datetime) -> list[dict[str, Any]]:
    """Where a person must act; only what is true now, at most five."""
    found: list[dict[str, Any]] = []
    facts = Payment.objects.of(merchant).aggregate(
        flagged=Count("pk", filter=~Q(flag="")),
        unknown=Count("pk", filter=Q(status="unknown")),
    )
    late = Subscription.objects.of(merchant).filter(status="past_due")
    sums = late.aggregate(count=Count("pk"), sum=Sum("plan__price"))
    if facts["flagged"]:
        found.append({
            "what": f"{facts['flagged']} payments to look at",
            "why": "The card network and the books differ; nothing was granted for them.",
            "verb": "Look", "url": "/console/payments/?flagged=1",
        })  # fmt: skip
    if sums["count"]:
        noun = "customer is" if sums["count"] == 1 else "customers are"
        found.append({
            "what": f"{sums['count']} {noun} past due", "amount": sums["sum"],
            "why": "Their card declined. It is tried again after 1, 3, 5 and 7 days.",
            "verb": "Review", "url": "/console/payments/?status=failed",
        })  # fmt: skip
    if facts["unknown"]:
        found.append({
            "what": f"{facts['unknown']} payments being checked",
            "why": "The card network has not answered; it is asked, never charged again.",
            "verb": "Look", "url": "/console/payments/?status=unknown",
        })  # fmt: skip
    owing = Connection.objects.of(merchant).filter(
        owes=True, payment_methods__isnull=True, status="active"
    )
    without = owing.aggregate(count=Count("pk"), sum=Sum("debt"))
    if without["count"]:
        found.append({
            "what": f"{without['count']} owe without a card", "amount": without["sum"],
            "why": "Their usage went past their credit and no card is saved.",
            "verb": "See who", "url": "/console/connections/",
        })  # fmt: skip
    return found[:5]
