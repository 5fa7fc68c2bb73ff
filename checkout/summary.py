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

from django.utils.translation import gettext
from moneyed import Money

from billing import locales, money, periods
from billing.models import CreditBundle, Plan, Subscription
from checkout import intervals, prices

# Lines of prices that are shown; those past them are folded away.
MOST_RATES = 8


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount in a column: up to the cent, the digits past it, hidden zeros that align it, and
    the currency where the language writes it last."""

    main: str
    past: str = ""
    pad: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """A line of prices; one without an amount is a note to the lines above it."""

    label: str
    amount: Amount
    # Whether it goes on with the meter of the line above.
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the summary: a sentence, or prices."""

    label: str
    text: str = ""
    rates: Sequence[Rate] = ()
    # The prices past the first few, folded away, and of how many meters they are.
    more: Sequence[Rate] = ()

    @property
    def more_meters(self) -> int:
        return sum(not rate.goes_on for rate in self.more)


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
        main, past, tail = money.pieces(amount, currency, sign=bool(signs and signs[index]))
        if abs(amount) < 1:
            main, past = main + past, ""
        found.append(Amount(main, past, "0" * (deepest - money.places(amount, currency)), tail))
    return found


def day(moment: datetime, zone: str, *, year: bool = False) -> str:
    """A date of a sentence: October 14, or October 14, 2026."""
    return locales.day(moment, zone, year=year)


def of_plan(plan: Plan, *, now: datetime, zone: str) -> Summary:
    """The summary of a plan that starts at `now`."""
    interval = plan.billing_interval
    currency = plan.currency
    first = periods.cycle(now, interval, 0, zone)
    every = intervals.every(interval)
    rows = []
    if plan.included_credit:
        credits = money.display(plan.included_credit, currency)
        gives = gettext("{credits} of credits {every}").format(credits=credits, every=every)
        rows.append(Row(gettext("You get"), gives))
    shown, folded = rates(plan)
    if shown:
        rows.append(Row(gettext("Credits buy"), rates=shown, more=folded))
    today = day(now, zone, year=True)
    pays = gettext("Nothing today") if plan.is_free else _paid_today(plan.price, today)
    rows.append(Row(gettext("You pay"), pays))
    renews = day(first.end, zone, year=interval == "year")
    then = gettext("{date}, then {every}").format(date=renews, every=every)
    rows.append(Row(gettext("Renews"), then))
    if plan.included_credit:
        rows.append(Row(gettext("Unused credits"), _unused(plan)))
    rows.append(Row(gettext("If they run out"), _depleted(plan)))
    return Summary(
        name=plan.name,
        price=gettext("Free") if plan.is_free else show(plan.price),
        per="" if plan.is_free else intervals.per(interval),
        aside=gettext("Cancel any time"),
        rows=rows,
    )


def of_bundle(bundle: CreditBundle, *, now: datetime, zone: str) -> Summary:
    """The summary of a pack, before its buyer is known."""
    credits = money.display(bundle.credit_amount, str(bundle.cost.currency))
    return Summary(
        name=bundle.name,
        price=show(bundle.cost),
        per=gettext("once"),
        rows=[
            Row(gettext("You get"), of_credits(credits)),
            Row(gettext("You pay"), _paid_today(bundle.cost, day(now, zone, year=True))),
            Row(gettext("Unused credits"), _kept(bundle.plan)),
        ],
    )


def of_credits(amount: str) -> str:
    """What somebody gets: $25.00 of credits."""
    return gettext("{amount} of credits").format(amount=amount)


def _paid_today(price: Money, date: str) -> str:
    return gettext("{price} today, {date}").format(price=show(price), date=date)


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
    after_those = intervals.after_credits_of_this(interval)
    if bundle.plan.bundle_rollover_type == Plan.Rollover.NONE:
        note = gettext("Pack credits are used {after_those} and end {with_it}.").format(
            after_those=after_those, with_it=intervals.with_end(interval)
        )
    else:
        note = gettext(
            "Pack credits are used {after_those} and carry over for as long as you have a plan."
        ).format(after_those=after_those)
    if owes:
        note = gettext("What you owe is paid first.") + " " + note
    return Summary(
        name=bundle.name,
        price=show(bundle.cost),
        per=gettext("once"),
        sum=[
            Line(gettext("You owe for past use") if owes else gettext("Credits now"), now_),
            Line(bundle.name, pack),
            Line(gettext("Credits after"), then, total=True),
        ],
        note=note,
    )


def rates(plan: Any) -> tuple[list[Rate], list[Rate]]:
    """What the plan's meters cost, a line for each rate and one for what else a price has: the
    meters of the first few lines, and those to fold away.

    The meters are read through the plan's own relation: they belong to a room next door.
    """
    attached = plan.meters.filter(archived_at=None).exclude(price=None).select_related("price")
    found = [
        line
        for meter in attached.order_by("name", "id")
        for line in prices.lines(
            meter.name, meter.price, plan.currency, interval=plan.billing_interval
        )
    ]
    starts = [place for place, line in enumerate(found) if not line.goes_on] + [len(found)]
    cut = max([place for place in starts if place <= MOST_RATES and place] or starts[1:2] or [0])
    return _rates(found[:cut], plan.currency), _rates(found[cut:], plan.currency)


def _rates(lines: Sequence[prices.Line], currency: str) -> list[Rate]:
    amounts = iter(column([(line.rate, currency) for line in lines if line.rate is not None]))
    return [
        Rate(
            line.label,
            next(amounts) if line.rate is not None else Amount(line.text),
            goes_on=line.goes_on,
        )
        for line in lines
    ]


def _unused(plan: Plan) -> str:
    interval = plan.billing_interval
    if plan.rollover_type == Plan.Rollover.NONE:
        return ends(interval)
    if plan.rollover_cap is None:
        return gettext("Roll over {to_next}").format(to_next=intervals.to_next(interval))
    return gettext("Roll over {to_next}, up to {cap}").format(
        to_next=intervals.to_next(interval), cap=money.display(plan.rollover_cap, plan.currency)
    )


def ends(interval: str) -> str:
    """What becomes of credits that do not roll over: End with the month."""
    return gettext("End {with_it}").format(with_it=intervals.with_end(interval))


def _kept(plan: Plan) -> str:
    if plan.bundle_rollover_type == Plan.Rollover.NONE:
        return ends(plan.billing_interval)
    return gettext("Carry over for as long as you have a plan")


def _depleted(plan: Plan) -> str:
    interval = plan.billing_interval
    itself = plan.default_auto_top_up_bundle
    if itself is not None and itself.deleted_at is None:
        return gettext("{pack} is bought by itself for {price}; you can switch it off").format(
            pack=itself.name, price=show(itself.cost)
        )
    if plan.when_depleted == Plan.WhenDepleted.BLOCK:
        cheapest = plan.live_bundles.order_by("cost", "id").first()
        if cheapest is None:
            return gettext("Requests pause {until_next}").format(
                until_next=intervals.until_next(interval)
            )
        return gettext("Requests pause until you add credits; {pack} is {price}").format(
            pack=cheapest.name, price=show(cheapest.cost)
        )
    said = {
        "threshold": money.display(plan.overage_threshold, plan.currency),
        "at_end": intervals.at_end(interval),
    }
    if plan.overage_cap is None:
        return gettext(
            "Requests go on; your card is charged at each {threshold} and {at_end}"
        ).format(**said)
    return gettext(
        "Requests go on; your card is charged at each {threshold} and {at_end}, at most {cap} {per}"
    ).format(
        **said,
        cap=money.display(plan.overage_cap, plan.currency),
        per=intervals.per(interval),
    )


def consent_to_plan(plan: Plan, *, merchant: str, now: datetime, zone: str) -> str:
    """What a customer agrees to with a plan: what is charged, when, and for what else."""
    packs = plan.live_bundles.exists()
    past = plan.when_depleted == Plan.WhenDepleted.OVERAGE
    if packs and past:
        others = gettext("for packs you buy and use past your credits")
    elif packs:
        others = gettext("for packs you buy")
    else:
        others = gettext("for use past your credits") if past else ""
    said = {
        "merchant": merchant,
        "others": others,
        "price": show(plan.price),
        "each": _each(plan.billing_interval, now.astimezone(ZoneInfo(zone))),
    }
    if plan.is_free:
        text = gettext(
            "By starting you let {merchant} save this card and charge it {others}. "
            "Nothing is charged today."
        )
    elif others:
        text = gettext(
            "By paying you let {merchant} save this card and charge it {price} {each} until you "
            "cancel, and {others}."
        )
    else:
        text = gettext(
            "By paying you let {merchant} save this card and charge it {price} {each} until you "
            "cancel."
        )
    return text.format(**said) + _bought_by_itself(plan)


def _bought_by_itself(plan: Plan) -> str:
    """The consent to automatic top-ups that a plan begins with; empty: it begins with none."""
    bundle = plan.default_auto_top_up_bundle
    if bundle is None or bundle.deleted_at is not None:
        return ""
    said = gettext(
        "Auto top-up is on from the start: each time your credits run out, {pack} is bought with "
        "this card for {price}, as many at once as are missing, without a monthly limit and "
        "without asking you, until you set one or switch it off on your billing page."
    )
    return " " + said.format(pack=bundle.name, price=show(bundle.cost))


def consent_to_bundle(
    bundle: CreditBundle, *, merchant: str, subscription: Subscription, zone: str
) -> str:
    """What a customer agrees to with a pack."""
    until = day(subscription.cycle_end, zone)
    if subscription.pending_change == Subscription.PendingChange.CANCELLATION:
        then = gettext("Your plan still ends on {date}.")
    else:
        then = gettext("Your plan still renews on {date}.")
    once = gettext("By paying you let {merchant} charge this card {price} once.")
    paid = once.format(merchant=merchant, price=show(bundle.cost))
    return f"{paid} {then.format(date=until)}"


def _each(interval: str, local: datetime) -> str:
    if interval == "day":
        return intervals.every(interval)
    if interval == "week":
        return gettext("every {weekday}").format(weekday=locales.weekday(local))
    if interval == "year":
        date = locales.day(local, str(local.tzinfo))
        return gettext("on {date} of every year").format(date=date)
    number = locales.ordinal(local.day)
    if local.day > 28:
        return gettext("on the {ordinal} of every month (or its last day)").format(ordinal=number)
    return gettext("on the {ordinal} of every month").format(ordinal=number)
