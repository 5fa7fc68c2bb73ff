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
from django.utils.text import capfirst
from django.utils.translation import gettext

from billing import credits, locales, money, receipts, topups
from billing.models import Connection, Payment, Plan, Subscription
from checkout import intervals, languages, prices, summary
from checkout.summary import Amount

Change = Subscription.PendingChange
ZERO = Decimal(0)
# A pace needs at least so much of the cycle behind it.
PACE_AFTER = timedelta(hours=24)
FURTHEST_PACE = timedelta(days=365)
MOST_RECEIPTS = 6


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
    # The price whole, where a few words are not; empty where they are.
    terms: str
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
    offered = {meter.price_id: meter.price for meter in plan.meters.select_related("price")}
    charged = sum((row["charged"] for row in rows), ZERO)
    currency = connection.currency
    column = summary.column([(row["charged"], currency) for row in rows] + [(charged, currency)])
    lines = [
        Used(
            name=row["name"],
            quantity=prices.used(row["unit"], row["rated"]),
            **_price(offered.get(row["version"]), plan),
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


def _price(price: Any, plan: Plan) -> dict[str, str]:
    """What a meter costs now, in a few words and whole; empty where it is off the plan."""
    if price is None:
        return {"price": "", "terms": ""}
    whole = prices.tell(price, plan.currency, interval=plan.billing_interval)
    return {
        "price": prices.brief(price, plan.currency),
        "terms": "" if prices.is_plain(price) else capfirst(whole),
    }


def parts(balance: credits.Balance, used: Usage, *, plan: Plan, collecting: Decimal) -> list[Part]:
    """The credits since the cycle began, in the order they are spent. They add up to what was there
    to spend, less what is owed."""
    interval, currency = plan.billing_interval, balance.currency
    there = used.charged + balance.total
    rolls = plan.rollover_type == Plan.Rollover.FULL
    keeps = plan.bundle_rollover_type == Plan.Rollover.FULL
    out_of = gettext("Out of {amount}").format(amount=money.display(there, currency))
    hint = (
        gettext("Used first; what is left rolls over")
        if rolls
        else gettext("Used first; what is left ends {with_it}")
    )
    since = gettext("Used since {date}").format(date=used.since)
    rows = [
        ("used", since, out_of if there > 0 else "", used.charged),
        (
            "cycle",
            intervals.credits_of_this(interval),
            hint.format(with_it=intervals.with_end(interval)),
            balance.cycle,
        ),
    ]
    if balance.bundle or plan.live_bundles.exists():
        hint = (
            gettext("Used next; carry over {every}").format(every=intervals.every(interval))
            if keeps
            else gettext("Used next; end {with_it}").format(with_it=intervals.with_end(interval))
        )
        rows.append(("bundle", gettext("Pack credits"), hint, balance.bundle))
    if balance.debt:
        hint = (
            gettext("Being charged to your card")
            if collecting
            else gettext("Paid first out of new credits")
        )
        rows.append(("debt", gettext("You owe for past use"), hint, balance.debt))
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
            pace = gettext("At this pace your credits last until about {date}.")
            said.append(pace.format(date=date))
    end = summary.day(current.cycle_end, zone)
    adds = coming(current)
    if current.pending_change == Change.CANCELLATION:
        said.append(gettext("Your plan ends on {date} and adds nothing more.").format(date=end))
    elif current.status == Subscription.Status.PAST_DUE:
        said.append(gettext("The plan adds credits again once its payment has gone through."))
    elif adds.included_credit:
        gives = money.display(adds.included_credit, adds.currency)
        said.append(gettext("The plan adds {amount} on {date}.").format(amount=gives, date=end))
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
            (gettext("Ends"), end),
            (gettext("Until then"), gettext("Everything works as before")),
            (
                gettext("Pack credits"),
                gettext("Stay yours") if keeps else gettext("End on {date}").format(date=end),
            ),
        ]
    facts = [(gettext("Renews"), end)]
    if then.pk != plan.pk:
        facts = [
            (gettext("Changes"), end),
            (gettext("Then"), f"{then.name}, {plan_price(then)}"),
        ]
    if then.included_credit:
        gives = money.display(then.included_credit, then.currency)
        facts.append((gettext("Then you get"), summary.of_credits(gives)))
    rolls = plan.rollover_type == Plan.Rollover.FULL
    unused = gettext("Roll over") if rolls else summary.ends(plan.billing_interval)
    facts.append((gettext("Unused credits"), unused))
    return facts


def plan_price(plan: Plan) -> str:
    """What a plan costs, e.g. $25.00 a month."""
    if plan.is_free:
        return gettext("Free")
    return f"{summary.show(plan.price)} {intervals.per(plan.billing_interval)}"


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
    sentence = gettext("When credits run out, buy {pack} for {price}.")
    if current.top_up_threshold:
        sentence = gettext("Below {amount} of credits, buy {pack} for {price}.")
    limit = money.display(cap, currency) if cap is not None else ""
    after = gettext("It has no monthly limit.")
    if limit and current.plan.when_depleted == Plan.WhenDepleted.BLOCK:
        after = gettext(
            "It stops at {limit} a month; then requests pause until you add credits."
        ).format(limit=limit)
    elif limit:
        after = gettext("It stops at {limit} a month; then your card is charged for use.").format(
            limit=limit
        )
    return TopUp(
        bundle=bundle.name,
        sentence=sentence.format(
            amount=money.display(current.top_up_threshold, currency),
            pack=bundle.name,
            price=summary.show(bundle.cost),
        ),
        since=summary.day(begins, current.merchant.time_zone),
        bought=money.display(spent, currency),
        cap=limit,
        width=_percent(min(spent, cap), cap) if cap else "0%",
        after=after,
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
            date=locales.short_day(row.settled_at, zone),
            what=receipts.what(row),
            url=languages.with_language(receipts.address(row)),
            amount=receipts.amount(row),
        )
        for row in rows
    ]


def _percent(part: Decimal, whole: Decimal) -> str:
    share = part / whole * 100 if whole > 0 else ZERO
    return f"{min(share, Decimal(100)).quantize(Decimal('0.01')):f}%"
