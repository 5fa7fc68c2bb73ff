"""Other plans in words: which there are, and what a switch costs and gives now or later.

Called by `checkout.portal.pages` and `checkout.pages`; what a switch is, `billing.changes` and
`billing.upgrades` say.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.utils.translation import gettext, gettext_noop
from moneyed import Money

from billing import changes, money
from billing.models import Plan, Subscription
from checkout import intervals, summary
from checkout.portal import reading
from checkout.summary import Line

# How what is wrong with a switch is said, by the code of its refusal.
REFUSALS = {
    "payment_under_way": gettext_noop("A payment of yours is under way. Try again in a minute."),
    "already_subscribed": gettext_noop("You are on this plan already."),
    "plan_archived": gettext_noop("This plan is offered no more."),
    "subscription_ended": gettext_noop("Your plan has ended."),
    "no_card": gettext_noop("Save a card first."),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Another plan in the list."""

    id: str
    name: str
    price: str
    gives: str


def offered(current: Subscription) -> Any:
    """The plans a customer can switch to."""
    return (
        Plan.objects.of(current.merchant)
        .filter(archived_at=None, price_currency=current.plan.currency)
        .exclude(pk=current.plan_id)
        .order_by("price", "name", "id")
    )


def choices(current: Subscription) -> list[Choice]:
    """The list, the least price first."""
    return [
        Choice(
            id=plan.public_id,
            name=plan.name,
            price=reading.plan_price(plan),
            gives=gettext("{credits} of credits {every}").format(
                credits=money.display(plan.included_credit, plan.currency),
                every=intervals.every(plan.billing_interval),
            )
            if plan.included_credit
            else gettext("No credits included"),
        )
        for plan in offered(current)
    ]


@dataclass(frozen=True, slots=True)
class Offer:
    """What the page of a switch says before it is pressed."""

    heading: str
    lead: str
    sum: list[Line]
    facts: list[tuple[str, str]]
    consent: str
    action: str
    busy: str
    needs_card: bool


def offer(current: Subscription, found: changes.Preview, *, card: str = "") -> Offer:
    """A switch in words. `card`: what the consent calls the card; empty: the saved one's name."""
    return _upgrade(found, current, card) if found.is_upgrade else _later(found, current)


def as_summary(current: Subscription, found: changes.Preview) -> summary.Summary:
    """A switch as the head of the checkout's payment page: you are on one, switch to the other?"""
    told, plan = offer(current, found), found.to_plan
    return summary.Summary(
        name=gettext("You are on {current}. Switch to {plan}?").format(
            current=current.plan.name, plan=plan.name
        ),
        price=gettext("Free") if plan.is_free else summary.show(plan.price),
        per="" if plan.is_free else intervals.per(plan.billing_interval),
        rows=[summary.Row(label, text) for label, text in told.facts],
        sum=told.sum,
        note=told.lead,
    )


def pay_and_switch(charge: Money) -> str:
    """The words of the button."""
    return gettext("Pay {price} and switch").format(price=summary.show(charge))


def _upgrade(found: changes.Preview, current: Subscription, card: str) -> Offer:
    merchant, zone, currency = current.merchant, current.merchant.time_zone, found.to_plan.currency
    plan = found.to_plan
    lines = [(intervals.first(plan.billing_interval, plan.name), Decimal(found.price.amount))]
    if found.unused_value:
        unused = money.display(found.unused_credit, currency)
        label = gettext("{amount} of unused {plan} credits").format(
            amount=unused, plan=current.plan.name
        )
        lines.append((label, -found.unused_value))
    if found.owed:
        label = gettext("Too little for a card: paid out of the new credits")
        lines.append((label, -found.owed))
    lines.append((gettext("Due today"), Decimal(found.charge.amount)))
    amounts = summary.column([(amount, currency) for _, amount in lines])
    end = summary.day(found.cycle_end, zone, year=True)
    facts = [
        (
            gettext("You get today"),
            summary.of_credits(money.display(found.included_credit, currency)),
        ),
        (
            gettext("Renews"),
            gettext("{date}, then {price}").format(date=end, price=reading.plan_price(plan)),
        ),
    ]
    kept = found.bundle_credit + (found.rest if found.rest_is_kept else 0)
    if kept:
        have = gettext("{amount} of credits you have")
        facts.append((gettext("You keep"), have.format(amount=money.display(kept, currency))))
    if found.rest and not found.rest_is_kept:
        older = gettext("{amount} of older credits")
        facts.append(
            (gettext("Ends today"), older.format(amount=money.display(found.rest, currency)))
        )
    facts += _top_up(found)
    saved = current.connection.card
    pays = found.charge.amount > 0
    return Offer(
        heading=gettext("Switch to {plan}").format(plan=plan.name),
        lead=gettext("It starts at once and takes the place of {plan}.").format(
            plan=current.plan.name
        ),
        sum=[
            Line(label, amount, total=index == len(lines) - 1)
            for index, ((label, _), amount) in enumerate(zip(lines, amounts, strict=True))
        ],
        facts=facts,
        consent=_consent(
            found, merchant=merchant.name, card=card or str(saved or gettext("your card"))
        ),
        action=pay_and_switch(found.charge)
        if pays
        else gettext("Switch to {plan}").format(plan=plan.name),
        busy=gettext("Paying...") if pays else gettext("Switching..."),
        needs_card=pays and saved is None,
    )


def _consent(found: changes.Preview, *, merchant: str, card: str) -> str:
    said = {
        "merchant": merchant,
        "card": card,
        "charge": summary.show(found.charge),
        "price": summary.show(found.price),
        "per": intervals.per(found.to_plan.billing_interval),
    }
    if found.charge.amount:
        text = gettext(
            "By switching you let {merchant} charge {card} {charge} now, and {price} {per} until "
            "you cancel."
        )
    else:
        text = gettext(
            "By switching you let {merchant} charge {card} nothing now, and {price} {per} until "
            "you cancel."
        )
    if found.unused_value:
        text += " " + gettext(
            "Credits you use before you press are no longer unused, so it may be more by what they "
            "are worth, never above {price}."
        )
    return text.format(**said)


def _later(found: changes.Preview, current: Subscription) -> Offer:
    zone, plan = current.merchant.time_zone, found.to_plan
    begins = summary.day(found.effective_at, zone, year=True)
    currency = plan.currency
    facts = [
        (gettext("Until then"), gettext("{plan}, as before").format(plan=current.plan.name)),
        (gettext("From then on"), reading.plan_price(plan)),
        (gettext("You get"), summary.of_credits(money.display(found.included_credit, currency))),
    ]
    rolls = (
        gettext("Roll over") if found.rest_is_kept else gettext("End on {date}").format(date=begins)
    )
    facts.append((gettext("Unused credits"), rolls))
    facts += _top_up(found)
    consent = (
        gettext("From {date} on {merchant} charges your card nothing more.")
        if plan.is_free
        else gettext("From {date} on {merchant} charges your card {price}, until you cancel.")
    )
    return Offer(
        heading=gettext("Switch to {plan} on {date}").format(plan=plan.name, date=begins),
        lead=gettext("Nothing is charged today, and you can take it back until then."),
        sum=[],
        facts=facts,
        consent=consent.format(
            date=begins, merchant=current.merchant.name, price=reading.plan_price(plan)
        ),
        action=gettext("Switch on {date}").format(date=summary.day(found.effective_at, zone)),
        busy=gettext("Switching..."),
        needs_card=False,
    )


def _top_up(found: changes.Preview) -> list[tuple[str, str]]:
    if found.keeps_top_up:
        return []
    off = gettext("Is switched off: {plan} has no such pack").format(plan=found.to_plan.name)
    return [(gettext("Auto top-up"), off)]
