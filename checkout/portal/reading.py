"""What the portal reads of the books: the balance and what used it, the pace, the plan, the card.

Reads rows and writes words, in the manner of `checkout.summary`; changes nothing. Meters and
requests are read through billing's relations (`connection.requests`): they belong to a room next
door.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import F, Sum

from billing import credits, money, receipts, topups
from billing.models import Connection, Payment, Plan, Subscription
from checkout import summary
from checkout.summary import Amount

Change = Subscription.PendingChange
ZERO = Decimal(0)
# A pace needs at least so much of the cycle behind it.
PACE_AFTER = timedelta(hours=24)
FURTHEST_PACE = timedelta(days=365)
MOST_RECEIPTS = 6

_A_UNIT = {
    "tokens_1m": "a million",
    "characters_1m": "a million",
    "minutes": "a minute",
    "requests": "a request",
}
_WORDS = {"tokens_1m": "token", "characters_1m": "character", "requests": "request"}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the credits since the cycle began: a line of the list, and a stretch of the bar."""

    kind: str
    label: str
    hint: str
    amount: Amount
    # Per cent of the bar, as SVG takes them.
    start: str = "0%"
    width: str = "0%"
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    """What one meter used since the cycle began."""

    name: str
    quantity: str
    price: str
    charged: Decimal
    amount: Amount
    width: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used since the cycle began, by meter, the most first."""

    since: str
    lines: list[Used]
    charged: Decimal
    total: Amount


def usage(connection: Connection, current: Subscription) -> Usage:
    """What the running cycle's requests used; requests that were taken back are none."""
    requests: Any = connection.requests
    rows: list[dict[str, Any]] = list(
        requests.filter(
            status="completed", subscription_id=current.pk, cycle_index=current.cycle_index
        )
        .values(name=F("meter__name"), unit=F("price__unit"), version=F("meter__price"))
        .annotate(rated=Sum("quantity"), charged=Sum("charged"))
        .order_by("-charged", "name")
    )
    plan: Any = current.plan
    prices = {meter.price_id: meter.price for meter in plan.meters.select_related("price")}
    charged = sum((row["charged"] for row in rows), ZERO)
    currency = connection.currency
    column = summary.column([(row["charged"], currency) for row in rows] + [(charged, currency)])
    lines = [
        Used(
            name=row["name"],
            quantity=quantity(row["unit"], row["rated"]),
            price=price(prices.get(row["version"]), currency),
            charged=row["charged"],
            amount=column[index],
            width=_percent(row["charged"], charged),
        )
        for index, row in enumerate(rows)
    ]
    return Usage(
        since=summary.day(current.cycle_start, current.merchant.time_zone),
        lines=lines,
        charged=charged,
        total=column[-1],
    )


def parts(balance: credits.Balance, used: Usage, *, plan: Plan, collecting: Decimal) -> list[Part]:
    """The credits since the cycle began, in the order they are spent. They add up to what was there
    to spend, less what is owed."""
    interval, currency = plan.billing_interval, balance.currency
    there = used.charged + balance.total
    rolls = plan.rollover_type == Plan.Rollover.FULL
    keeps = plan.bundle_rollover_type == Plan.Rollover.FULL
    out_of = f"Out of {money.display(there, currency)}" if there > 0 else ""
    rows = [
        ("used", f"Used since {used.since}", out_of, used.charged),
        (
            "cycle",
            f"This {interval}\u2019s credits",
            f"Used first; what is left {'rolls over' if rolls else f'ends with the {interval}'}",
            balance.cycle,
        ),
    ]
    if balance.bundle or plan.live_bundles.exists():
        hint = (
            f"Used next; {f'carry over every {interval}' if keeps else f'end with the {interval}'}"
        )
        rows.append(("bundle", "Pack credits", hint, balance.bundle))
    if balance.debt:
        hint = "Being charged to your card" if collecting else "Paid first out of new credits"
        rows.append(("debt", "You owe for past use", hint, balance.debt))
    column = summary.column([(amount, currency) for *_, amount in rows])
    whole = used.charged + balance.cycle + balance.bundle
    found, start = [], ZERO
    for (kind, label, hint, amount), shown in zip(rows, column, strict=True):
        drawn = kind != "debt" and amount > 0
        found.append(
            Part(
                kind,
                label,
                hint,
                shown,
                start=_percent(start, whole),
                width=_percent(amount, whole) if drawn else "0%",
                gap=drawn and start > 0,
            )
        )
        start += amount if drawn else ZERO
    return found


def outlook(balance: credits.Balance, used: Usage, current: Subscription, *, now: datetime) -> str:
    """How long credits last at the pace of this cycle, and what the plan adds when."""
    zone = current.merchant.time_zone
    said = []
    behind = now - current.cycle_start
    if used.charged > 0 and balance.total > 0 and behind >= PACE_AFTER:
        seconds = Decimal(behind.total_seconds())
        left = timedelta(
            seconds=min(
                int(balance.total / used.charged * seconds), int(FURTHEST_PACE.total_seconds())
            )
        )
        if left < FURTHEST_PACE:
            date = summary.day(now + left, zone, year=left > timedelta(days=180))
            said.append(f"At this pace your credits last until about {date}.")
    end = summary.day(current.cycle_end, zone)
    adds = coming(current)
    if current.pending_change == Change.CANCELLATION:
        said.append(f"Your plan ends on {end} and adds nothing more.")
    elif current.status == Subscription.Status.PAST_DUE:
        said.append("The plan adds credits again once its payment has gone through.")
    elif adds.included_credit:
        gives = money.display(adds.included_credit, adds.currency)
        said.append(f"The plan adds {gives} on {end}.")
    return " ".join(said)


def coming(current: Subscription) -> Plan:
    """The plan of the next cycle."""
    return current.pending_plan or current.plan


def plan_facts(current: Subscription) -> list[tuple[str, str]]:
    """The lines below the plan's name."""
    zone = current.merchant.time_zone
    plan, then = current.plan, coming(current)
    end = summary.day(current.cycle_end, zone, year=True)
    if current.pending_change == Change.CANCELLATION:
        keeps = plan.bundle_rollover_type == Plan.Rollover.FULL
        return [
            ("Ends", end),
            ("Until then", "Everything works as before"),
            ("Pack credits", "Stay yours" if keeps else f"End on {end}"),
        ]
    facts = [("Renews", end)]
    if then.pk != plan.pk:
        price = "Free" if then.is_free else f"{summary.show(then.price)} {_per(then)}"
        facts = [("Changes", end), ("Then", f"{then.name}, {price}")]
    if then.included_credit:
        gives = money.display(then.included_credit, then.currency)
        facts.append(("Then you get", f"{gives} of credits"))
    rolls = plan.rollover_type == Plan.Rollover.FULL
    facts.append(("Unused credits", "Roll over" if rolls else f"End with the {_interval(plan)}"))
    return facts


def plan_price(plan: Plan) -> str:
    """What a plan costs, e.g. $25.00 a month."""
    return "Free" if plan.is_free else f"{summary.show(plan.price)} {_per(plan)}"


@dataclass(frozen=True, slots=True)
class TopUp:
    """The automatic top-up in words; `bundle` empty: it is off."""

    bundle: str
    sentence: str
    since: str
    bought: str
    cap: str
    width: str
    after: str


def top_up(current: Subscription, *, now: datetime) -> TopUp:
    """What is bought by itself, what was this month, and where it stops."""
    bundle, cap = current.auto_top_up_bundle, current.top_up_monthly_cap
    if bundle is None or bundle.deleted_at is not None:
        return TopUp("", "", "", "", "", "0%", "")
    begins = topups.month_of(current, now=now)[0]
    spent = ZERO + (
        Payment.objects.filter(
            connection=current.connection_id,
            purpose=Payment.Purpose.TOP_UP,
            status__in=(*Payment.OPEN, Payment.Status.SUCCEEDED),
            created_at__gte=begins,
        ).aggregate(total=Sum("amount"))["total"]
        or ZERO
    )
    currency = bundle.plan.currency
    when = "When credits run out"
    if current.top_up_threshold:
        when = f"Below {money.display(current.top_up_threshold, currency)} of credits"
    blocks = current.plan.when_depleted == Plan.WhenDepleted.BLOCK
    then = "requests pause until you add credits" if blocks else "your card is charged for use"
    limit = money.display(cap, currency) if cap is not None else ""
    return TopUp(
        bundle=bundle.name,
        sentence=f"{when}, buy {bundle.name} for {summary.show(bundle.cost)}.",
        since=summary.day(begins, current.merchant.time_zone),
        bought=money.display(spent, currency),
        cap=limit,
        width=_percent(min(spent, cap), cap) if cap else "0%",
        after=f"It stops at {limit} a month; then {then}." if limit else "It has no monthly limit.",
    )


@dataclass(frozen=True, slots=True)
class Paper:
    """A line of the receipts."""

    date: str
    what: str
    url: str
    amount: str


def papers(connection: Connection) -> list[Paper]:
    """The newest receipts; each opens its page."""
    zone = connection.merchant.time_zone
    rows = (
        Payment.objects.filter(connection=connection, status=Payment.Status.SUCCEEDED)
        .exclude(receipt_number="")
        .select_related("plan", "bundle")
        .order_by("-settled_at", "-id")[:MOST_RECEIPTS]
    )
    return [
        Paper(
            date=short_day(row.settled_at, zone),
            what=receipts.what(row),
            url=receipts.address(row),
            amount=receipts.amount(row),
        )
        for row in rows
    ]


def short_day(moment: datetime, zone: str) -> str:
    """A date of a list, e.g. Nov 25, 2026."""
    month, _, rest = summary.day(moment, zone, year=True).partition(" ")
    return f"{month[:3]} {rest}"


def quantity(unit: str, amount: Decimal) -> str:
    """How much was used, as people say it: 12,480 tokens, 4 min 12 s, 1,624 min. Minutes are
    counted in seconds."""
    if unit == "minutes":
        minutes, rest = divmod(amount, 60)
        if minutes >= 100:
            return f"{minutes:,f} min"
        short = f"{rest.normalize():f} s" if rest else ""
        return f"{minutes:f} min {short}".strip() if minutes else short or "0 s"
    word = _WORDS.get(unit, "unit")
    number = f"{amount.normalize():,f}"
    return f"{number} {word}" if amount == 1 else f"{number} {word}s"


def price(version: Any, currency: str) -> str:
    """What a meter costs now, in a few words; empty where it is off the plan."""
    if version is None:
        return ""
    plain = not (any(version.tier_flats) or version.free_allowance or version.package_size)
    if len(version.tier_rates) != 1 or not plain:
        return "Several rates"
    rate = version.tier_rates[0]
    if version.rate_type == "percentage":
        said = f"{rate.normalize():f}% of its cost"
    else:
        said = f"{money.display(rate, currency)} {_A_UNIT[version.unit]}"
    return f"{said}, plus cost" if version.base_cost_payer == "wallet" else said


def _percent(part: Decimal, whole: Decimal) -> str:
    share = part / whole * 100 if whole > 0 else ZERO
    return f"{min(share, Decimal(100)).quantize(Decimal('0.01')):f}%"


def _per(plan: Plan) -> str:
    return summary.PER[plan.billing_interval]


def _interval(plan: Plan) -> str:
    return str(plan.billing_interval)
