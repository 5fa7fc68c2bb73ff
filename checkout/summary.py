"""What an offer says: the summary of a plan or pack, its consent sentence, in people's words.

Reads rows and writes sentences; called by `checkout.pages`. Amounts keep every digit they have,
dates are local to the merchant (design tokens of the customer pages, Money, dates and words).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from moneyed import Money

from billing import money, periods
from billing.models import CreditBundle, Plan, Subscription

PER = {"day": "a day", "week": "a week", "month": "a month", "year": "a year"}
MOST_RATES = 8
_MILLION = Decimal(1_000_000)
# The word a meter's name may already carry, and what a price of the unit is per.
_UNITS = {
    "tokens_1m": ("tokens", "per million"),
    "characters_1m": ("characters", "per million"),
    "minutes": ("minutes", "per minute"),
    "requests": ("requests", "per request"),
}


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount in a column: up to the cent, the digits past it, hidden zeros that align it."""

    main: str
    past: str = ""
    pad: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    label: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the summary: a sentence, or prices."""

    label: str
    text: str = ""
    rates: Sequence[Rate] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a sum."""

    label: str
    amount: Amount
    total: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """The head of a page: what it is, what it costs, what it gives."""

    name: str
    price: str
    per: str
    aside: str = ""
    rows: list[Row] = field(default_factory=list)
    sum: list[Line] = field(default_factory=list)
    note: str = ""


def show(price: Money) -> str:
    """A card amount for people, e.g. $25.00."""
    return money.display(price.amount, str(price.currency))


def column(amounts: Sequence[tuple[Decimal, str]], *, signs: Sequence[bool] = ()) -> list[Amount]:
    """Amounts below each other, aligned on the decimal point; past the cent muted from 1 up."""
    deepest = max((money.places(amount, currency) for amount, currency in amounts), default=0)
    found = []
    for index, (amount, currency) in enumerate(amounts):
        main, past = money.parts(amount, currency, sign=bool(signs and signs[index]))
        if abs(amount) < 1:
            main, past = main + past, ""
        found.append(Amount(main, past, "0" * (deepest - money.places(amount, currency))))
    return found


def day(moment: datetime, zone: str, *, year: bool = False) -> str:
    """A date of a sentence: October 14, or October 14, 2026."""
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local:%B} {local.day}" + (f", {local.year}" if year else "")


def of_plan(plan: Plan, *, now: datetime, zone: str) -> Summary:
    """The summary of a plan that starts at `now`."""
    interval = plan.billing_interval
    currency = plan.currency
    first = periods.cycle(now, interval, 0, zone)
    every = f"every {interval}"
    rows = []
    if plan.included_credit:
        credits = money.display(plan.included_credit, currency)
        rows.append(Row("You get", f"{credits} of credits {every}"))
    prices = rates(plan)
    if prices:
        rows.append(Row("Credits buy", rates=prices))
    today = day(now, zone, year=True)
    rows.append(
        Row("You pay", "Nothing today" if plan.is_free else f"{show(plan.price)} today, {today}")
    )
    renews = day(first.end, zone, year=interval == "year")
    rows.append(Row("Renews", f"{renews}, then {every}"))
    if plan.included_credit:
        rows.append(Row("Unused credits", _unused(plan)))
    rows.append(Row("If they run out", _depleted(plan)))
    return Summary(
        name=plan.name,
        price="Free" if plan.is_free else show(plan.price),
        per="" if plan.is_free else PER[interval],
        aside="Cancel any time",
        rows=rows,
    )


def of_bundle(bundle: CreditBundle, *, now: datetime, zone: str) -> Summary:
    """The summary of a pack, before its buyer is known."""
    credits = money.display(bundle.credit_amount, str(bundle.cost.currency))
    return Summary(
        name=bundle.name,
        price=show(bundle.cost),
        per="once",
        rows=[
            Row("You get", f"{credits} of credits"),
            Row("You pay", f"{show(bundle.cost)} today, {day(now, zone, year=True)}"),
            Row("Unused credits", _kept(bundle.plan)),
        ],
    )


def of_bundle_for(bundle: CreditBundle, *, balance: Decimal) -> Summary:
    """The summary of a pack for a known buyer: credits now, and after."""
    currency = str(bundle.cost.currency)
    after = balance + bundle.credit_amount
    now_, pack, then = column(
        [(balance, currency), (bundle.credit_amount, currency), (after, currency)],
        signs=(False, True, False),
    )
    owes = balance < 0
    interval = bundle.plan.billing_interval
    kept = _kept(bundle.plan)
    kept = kept[0].lower() + kept[1:]
    note = f"Pack credits are used after this {interval}\u2019s credits and {kept}."
    return Summary(
        name=bundle.name,
        price=show(bundle.cost),
        per="once",
        sum=[
            Line("You owe for past use" if owes else "Credits now", now_),
            Line(bundle.name, pack),
            Line("Credits after", then, total=True),
        ],
        note="What you owe is paid first. " + note if owes else note,
    )


def rates(plan: Any) -> list[Rate]:
    """What the plan's meters cost, a line for each tier.

    The meters are read through the plan's own relation: they belong to a room next door.
    """
    found: list[tuple[str, Decimal | None, str]] = []
    attached = plan.meters.filter(archived_at=None).exclude(price=None).select_related("price")
    for meter in attached.order_by("name", "id"):
        found += _tiers(meter, plan.currency)
    more = len(found) - MOST_RATES
    shown = found[:MOST_RATES]
    amounts = iter(
        column([(amount, plan.currency) for _, amount, _ in shown if amount is not None])
    )
    lines = [
        Rate(label, next(amounts) if amount is not None else Amount(text))
        for label, amount, text in shown
    ]
    if more > 0:
        lines.append(Rate(f"and {more} more", Amount("")))
    return lines


def _tiers(meter: Any, currency: str) -> list[tuple[str, Decimal | None, str]]:
    price = meter.price
    word, per = _UNITS[price.unit]
    named = word in meter.name.lower()
    lines: list[tuple[str, Decimal | None, str]] = []
    for index, tier in enumerate(price.tiers):
        if price.rate_type == "percentage":
            label = f"{meter.name}, on the provider\u2019s price"
            amount, text = None, f"{tier.rate.normalize():f}%"
        elif price.unit in ("tokens_1m", "characters_1m"):
            label = f"{meter.name}, {per}" if named else f"{meter.name}, {per} {word}"
            amount, text = tier.rate, ""
        else:
            label = meter.name if named else f"{meter.name}, {per}"
            amount, text = tier.rate, ""
        if price.base_cost_payer == "wallet":
            label = f"{label}, plus that price" if amount is None else f"{label}, plus its cost"
        if index:
            label = f"after {_quantity(tier.start)} {word}"
        lines.append((label, amount, text))
    return lines


def _quantity(count: Decimal) -> str:
    if count >= _MILLION and count % (_MILLION / 10) == 0:
        return f"{(count / _MILLION).normalize():f} million"
    whole = count.normalize()
    return f"{whole:,f}"


def _unused(plan: Plan) -> str:
    interval = plan.billing_interval
    if plan.rollover_type == Plan.Rollover.NONE:
        return f"End with the {interval}"
    if plan.rollover_cap is None:
        return f"Roll over to the next {interval}"
    cap = money.display(plan.rollover_cap, plan.currency)
    return f"Roll over to the next {interval}, up to {cap}"


def _kept(plan: Plan) -> str:
    if plan.bundle_rollover_type == Plan.Rollover.NONE:
        return f"End with the {plan.billing_interval}"
    return "Carry over for as long as you have a plan"


def _depleted(plan: Plan) -> str:
    interval = plan.billing_interval
    itself = plan.default_auto_top_up_bundle
    if itself is not None and itself.deleted_at is None:
        return f"{itself.name} is bought by itself for {show(itself.cost)}; you can switch it off"
    if plan.when_depleted == Plan.WhenDepleted.BLOCK:
        cheapest = plan.live_bundles.order_by("cost", "id").first()
        if cheapest is None:
            return f"Requests pause until the next {interval}"
        return f"Requests pause until you add credits; {cheapest.name} is {show(cheapest.cost)}"
    threshold = money.display(plan.overage_threshold, plan.currency)
    text = (
        f"Requests go on; your card is charged at each {threshold} and at the {interval}\u2019s end"
    )
    if plan.overage_cap is not None:
        text += f", at most {money.display(plan.overage_cap, plan.currency)} {PER[interval]}"
    return text


def consent_to_plan(plan: Plan, *, merchant: str, now: datetime, zone: str) -> str:
    """What a customer agrees to with a plan: what is charged, when, and for what else."""
    extras = []
    if plan.live_bundles.exists():
        extras.append("packs you buy")
    if plan.when_depleted == Plan.WhenDepleted.OVERAGE:
        extras.append("use past your credits")
    others = f"for {' and '.join(extras)}" if extras else ""
    itself = _bought_by_itself(plan)
    if plan.is_free:
        return (
            f"By starting you let {merchant} save this card and charge it {others}. "
            f"Nothing is charged today.{itself}"
        )
    return (
        f"By paying you let {merchant} save this card and charge it {show(plan.price)} "
        f"{_each(plan.billing_interval, now.astimezone(ZoneInfo(zone)))} until you cancel"
        + (f", and {others}." if others else ".")
        + itself
    )


def _bought_by_itself(plan: Plan) -> str:
    """The consent to automatic top-ups that a plan begins with; empty: it begins with none."""
    bundle = plan.default_auto_top_up_bundle
    if bundle is None or bundle.deleted_at is not None:
        return ""
    return (
        f" Auto top-up is on from the start: each time your credits run out, {bundle.name} is "
        f"bought with this card for {show(bundle.cost)}, as many at once as are missing, without a "
        "monthly limit and without asking you, until you set one or switch it off on your billing "
        "page."
    )


def consent_to_bundle(
    bundle: CreditBundle, *, merchant: str, subscription: Subscription, zone: str
) -> str:
    """What a customer agrees to with a pack."""
    until = day(subscription.cycle_end, zone)
    ends = subscription.pending_change == Subscription.PendingChange.CANCELLATION
    then = f"Your plan still {'ends' if ends else 'renews'} on {until}."
    return f"By paying you let {merchant} charge this card {show(bundle.cost)} once. {then}"


def _each(interval: str, local: datetime) -> str:
    if interval == "day":
        return "every day"
    if interval == "week":
        return f"every {local:%A}"
    if interval == "year":
        return f"on {local:%B} {local.day} of every year"
    number = _ordinal(local.day)
    if local.day > 28:
        return f"on the {number} of every month (or its last day)"
    return f"on the {number} of every month"


def _ordinal(number: int) -> str:
    if 10 < number < 14:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
