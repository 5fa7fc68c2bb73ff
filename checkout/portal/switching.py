"""Other plans in words: which there are, and what a switch costs and gives now or later.

Called by `checkout.portal.pages` and `checkout.pages`; what a switch is, `billing.changes` and
`billing.upgrades` say.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing import changes, money
from billing.models import Plan, Subscription
from checkout import summary
from checkout.portal import reading
from checkout.summary import Line

# How what is wrong with a switch is said, by the code of its refusal.
REFUSALS = {
    "payment_under_way": "A payment of yours is under way. Try again in a minute.",
    "already_subscribed": "You are on this plan already.",
    "plan_archived": "This plan is offered no more.",
    "subscription_ended": "Your plan has ended.",
    "no_card": "Save a card first.",
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
            gives=f"{money.display(plan.included_credit, plan.currency)} of credits "
            f"every {plan.billing_interval}"
            if plan.included_credit
            else "No credits included",
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


def offer(current: Subscription, plan: Plan, *, now: datetime, card: str = "") -> Offer:
    """A switch in words. `card`: what the consent calls the card; empty: the saved one's name.

    Raises:
        billing.errors.Conflict, NotFound: as `billing.changes.check`.
    """
    found = changes.preview(current, plan=plan, now=now)
    return _upgrade(found, current, card) if found.is_upgrade else _later(found, current)


def as_summary(current: Subscription, plan: Plan, *, now: datetime) -> summary.Summary:
    """A switch as the head of the checkout's payment page: you are on one, switch to the other?"""
    told = offer(current, plan, now=now)
    return summary.Summary(
        name=f"You are on {current.plan.name}. Switch to {plan.name}?",
        price="Free" if plan.is_free else summary.show(plan.price),
        per="" if plan.is_free else summary.PER[plan.billing_interval],
        rows=[summary.Row(label, text) for label, text in told.facts],
        sum=told.sum,
        note=told.lead,
    )


def _upgrade(found: changes.Preview, current: Subscription, card: str) -> Offer:
    merchant, zone, currency = current.merchant, current.merchant.time_zone, found.to_plan.currency
    plan = found.to_plan
    charge = summary.show(found.charge)
    lines = [(f"{plan.name}, the first {plan.billing_interval}", Decimal(found.price.amount))]
    if found.unused_value:
        unused = money.display(found.unused_credit, currency)
        lines.append((f"{unused} of unused {current.plan.name} credits", -found.unused_value))
    if found.owed:
        lines.append(("Too little for a card: paid out of the new credits", -found.owed))
    lines.append(("Due today", Decimal(found.charge.amount)))
    amounts = summary.column([(amount, currency) for _, amount in lines])
    end = summary.day(found.cycle_end, zone, year=True)
    price = summary.show(found.price)
    facts = [
        ("You get today", f"{money.display(found.included_credit, currency)} of credits"),
        ("Renews", f"{end}, then {reading.plan_price(plan)}"),
    ]
    kept = found.bundle_credit + (found.rest if found.rest_is_kept else 0)
    if kept:
        facts.append(("You keep", f"{money.display(kept, currency)} of credits you have"))
    if found.rest and not found.rest_is_kept:
        facts.append(("Ends today", f"{money.display(found.rest, currency)} of older credits"))
    facts += _top_up(found)
    saved = current.connection.card
    needs = found.charge.amount > 0 and saved is None
    later = f"and {price} {summary.PER[plan.billing_interval]} until you cancel"
    now_ = f"{charge} now" if found.charge.amount else "nothing now"
    worth = (
        " Credits you use before you press are no longer unused, so it may be more by what they "
        f"are worth, never above {price}."
        if found.unused_value
        else ""
    )
    which = card or saved or "your card"
    return Offer(
        heading=f"Switch to {plan.name}",
        lead=f"It starts at once and takes the place of {current.plan.name}.",
        sum=[
            Line(label, amount, total=index == len(lines) - 1)
            for index, ((label, _), amount) in enumerate(zip(lines, amounts, strict=True))
        ],
        facts=facts,
        consent=f"By switching you let {merchant.name} charge {which} {now_}, {later}.{worth}",
        action=f"Pay {charge} and switch" if found.charge.amount else f"Switch to {plan.name}",
        busy="Paying..." if found.charge.amount else "Switching...",
        needs_card=needs,
    )


def _later(found: changes.Preview, current: Subscription) -> Offer:
    zone, plan = current.merchant.time_zone, found.to_plan
    begins = summary.day(found.effective_at, zone, year=True)
    currency = plan.currency
    facts = [
        ("Until then", f"{current.plan.name}, as before"),
        ("From then on", reading.plan_price(plan)),
        ("You get", f"{money.display(found.included_credit, currency)} of credits"),
    ]
    rolls = "Roll over" if found.rest_is_kept else f"End on {begins}"
    facts.append(("Unused credits", rolls))
    facts += _top_up(found)
    merchant = current.merchant.name
    free = "nothing more" if plan.is_free else reading.plan_price(plan)
    return Offer(
        heading=f"Switch to {plan.name} on {begins}",
        lead="Nothing is charged today, and you can take it back until then.",
        sum=[],
        facts=facts,
        consent=f"From {begins} on {merchant} charges your card {free}"
        + ("." if plan.is_free else ", until you cancel."),
        action=f"Switch on {summary.day(found.effective_at, zone)}",
        busy="Switching...",
        needs_card=False,
    )


def _top_up(found: changes.Preview) -> list[tuple[str, str]]:
    if found.keeps_top_up:
        return []
    return [("Auto top-up", f"Is switched off: {found.to_plan.name} has no such pack")]
