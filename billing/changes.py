"""Changes of plan: what one would cost and give, and its doing.

An upgrade takes effect at once: a new cycle begins on a new anchor, and the new price is asked
less the value of the unused credits of the cycle it cuts short. Everything else waits for the end
of the cycle as `pending_change` (money.md, Changing plans). Writes `Subscription` and `Cycle` with
`billing.subscriptions`, under the connection's lock; the card is `billing.upgrades`'.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from django.db import transaction
from django.db.models import Sum
from moneyed import Money

from billing import (
    closing,
    courses,
    credits,
    errors,
    events,
    ledger,
    money,
    notices,
    periods,
    subscriptions,
)
from billing.models import Connection, CreditGrant, Cycle, Payment, Plan, Subscription

ZERO = Decimal(0)

# Cycles in a mean year of 365.2425 days, to compare prices of different intervals.
_A_YEAR = {
    Plan.Interval.DAY: Fraction(3652425, 10000),
    Plan.Interval.WEEK: Fraction(3652425, 70000),
    Plan.Interval.MONTH: Fraction(12),
    Plan.Interval.YEAR: Fraction(1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a change of plan would do if it were made now.

    An upgrade: `charge` = `price` - `unused_value` - `owed`, for `included_credit` now and a cycle
    from `effective_at` to `cycle_end`. Otherwise nothing is charged now; `price` is that of the
    cycle that begins at `effective_at`.
    """

    from_plan: Plan
    to_plan: Plan
    is_upgrade: bool
    effective_at: datetime
    cycle_end: datetime
    price: Money
    # Given in payment: credits of the running cycle, and what they take off the price.
    unused_credit: Decimal
    unused_value: Decimal
    # Too little for a card: paid first out of the new credits.
    owed: Decimal
    charge: Money
    included_credit: Decimal
    # What is left of the running cycle's credits besides, and whether it is carried on.
    rest: Decimal
    rest_is_kept: bool
    bundle_credit: Decimal
    # A change that was pending and that this one takes the place of.
    replaces: str | None
    # Automatic top-ups go on with a bundle of the same price and credit, or are switched off.
    keeps_top_up: bool


def yearly(plan: Plan) -> Fraction:
    """A plan's price for a mean year."""
    return Fraction(plan.price.amount) * _A_YEAR[Plan.Interval(plan.billing_interval)]


def is_upgrade(from_plan: Plan, to_plan: Plan) -> bool:
    """Whether a change is an upgrade: a higher price a year. At the same interval that is the
    higher price; a yearly plan at ten times the monthly price is none. An equal price is none
    either, so that nobody can restart a cycle for nothing."""
    return yearly(to_plan) > yearly(from_plan)


def preview(subscription: Subscription, *, plan: Plan, now: datetime) -> Preview:
    """Say what moving onto `plan` would cost and give now. Needs no lock, changes nothing.

    Raises:
        billing.errors.Conflict, NotFound: as `check`.
    """
    connection = subscription.connection
    subscription = subscriptions.locked(subscription)
    check(connection, subscription, plan=plan)
    upgrade = is_upgrade(subscription.plan, plan)
    balance = credits.balance(connection, now=now)
    offer = quote(subscription, plan=plan, now=now) if upgrade else None
    if upgrade:
        begins = now
        ends = courses.Course(plan, now, connection.merchant.time_zone).cycle(0).end
    else:
        course = courses.coming(subscription, onto=plan)
        index = max(subscription.cycle_index + 1, course.index_at(now))
        begins, ends = course.cycle(index).start, course.cycle(index).end
    taken = offer.unused_credit if offer else ZERO
    return Preview(
        from_plan=subscription.plan,
        to_plan=plan,
        is_upgrade=upgrade,
        effective_at=begins,
        cycle_end=ends,
        price=plan.price,
        unused_credit=taken,
        unused_value=offer.unused_value if offer else ZERO,
        owed=offer.owed if offer else ZERO,
        charge=Money(offer.charge if offer else ZERO, plan.currency),
        included_credit=plan.included_credit,
        rest=balance.cycle - taken,
        rest_is_kept=subscription.plan.rollover_type == Plan.Rollover.FULL,
        bundle_credit=balance.bundle,
        replaces=subscription.pending_change,
        keeps_top_up=subscription.auto_top_up_bundle is None
        or subscriptions.same_bundle(subscription.auto_top_up_bundle, plan) is not None,
    )


def check(connection: Connection, subscription: Subscription, *, plan: Plan) -> None:
    """Refuse a change that cannot be made.

    Raises:
        billing.errors.NotFound: the plan is another merchant's.
        billing.errors.Conflict: the subscription has ended, is on that plan, the plan is offered no
            more or in another currency, the connection is disabled or deleted.
    """
    if plan.merchant_id != subscription.merchant_id:
        raise errors.NotFound("No such plan.", param="plan")
    if subscription.status not in Subscription.CURRENT:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    if connection.status != Connection.Status.ACTIVE:
        raise errors.Conflict("This connection is not in use: nothing is charged.")
    if plan.currency != connection.currency:
        raise errors.Conflict(f"This customer is billed in {connection.currency}.")
    if plan.pk == subscription.plan_id:
        raise errors.Conflict(f"This customer is on {plan} already.", code="already_subscribed")
    if plan.archived_at is not None:
        raise errors.Conflict(f"{plan} is offered no more.", code="plan_archived")


@dataclass(frozen=True, slots=True)
class Quote:
    """The price of an upgrade: `charge` + `unused_value` + `owed` = the plan's price, exactly."""

    charge: Decimal
    unused_credit: Decimal
    unused_value: Decimal
    owed: Decimal


def quote(subscription: Subscription, *, plan: Plan, now: datetime) -> Quote:
    """What an upgrade asks now.

    The value of the unused credits is `unused / granted x price paid` of the running cycle, rounded
    down to what a card can pay, and at most the new price: then only so many credits are given in
    payment as that takes. What is left below the least a card is charged is owed instead.
    """
    price, currency = plan.price.amount, plan.currency
    cycle = _running_cycle(subscription)
    granted, unused = _own_credit(cycle, now=now)
    value = ZERO
    if unused and granted and cycle is not None:
        exact = Fraction(unused) / Fraction(granted) * Fraction(cycle.price_paid)
        if exact >= price:
            value = price
            share = Fraction(price) / Fraction(cycle.price_paid) * Fraction(granted)
            unused = min(money.round_fee(share), unused)
        else:
            value = money.floor_minor(money.round_fee(exact), currency)
    if not value:
        unused = ZERO
    charge = price - value
    owed = ZERO
    if charge < money.minimum_charge(currency):
        charge, owed = ZERO, charge
    return Quote(charge=charge, unused_credit=unused, unused_value=value, owed=owed)


@transaction.atomic
def schedule(
    subscription: Subscription,
    *,
    plan: Plan,
    now: datetime,
    change: str = Subscription.PendingChange.DOWNGRADE,
) -> Subscription:
    """Move onto a plan at the end of the cycle; until then `subscriptions.resume` takes it back.

    It takes the place of whatever was pending. Asked twice, it is the same change.

    Raises:
        billing.errors.Conflict, NotFound: as `check`; or it is an upgrade (`upgrade_at_once`), or
            the renewal is being paid right now (`payment_under_way`).
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = subscriptions.locked(subscription)
    check(connection, subscription, plan=plan)
    if change == Subscription.PendingChange.DOWNGRADE and is_upgrade(subscription.plan, plan):
        raise errors.Conflict("An upgrade takes effect at once.", code="upgrade_at_once")
    refuse_while_paying(subscription)
    if (subscription.pending_change, subscription.pending_plan_id) == (change, plan.pk):
        return subscription
    subscription.pending_change, subscription.pending_plan = change, plan
    subscription.cancelled_at = None
    subscription.save()
    events.record(
        subscription.merchant,
        "subscription.changed",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        pending_change=str(change),
        pending_plan=plan.public_id,
    )
    if change == Subscription.PendingChange.DOWNGRADE:
        notices.change_planned(subscription, now=now)
    return subscription


def refuse_while_paying(subscription: Subscription) -> None:
    """Refuse a change while a renewal or another change is at the card network.

    Raises:
        billing.errors.Conflict: `payment_under_way`.
    """
    if Payment.objects.filter(
        subscription=subscription,
        purpose__in=(Payment.Purpose.RENEWAL, Payment.Purpose.UPGRADE),
        off_session=True,
        status__in=Payment.OPEN,
    ).exists():
        raise errors.Conflict(
            "A payment of this subscription is under way. Try again in a minute.",
            code="payment_under_way",
        )


@transaction.atomic
def move_now(
    subscription: Subscription,
    *,
    plan: Plan,
    offer: Quote,
    leaves: int,
    now: datetime,
    payment: Payment | None = None,
) -> Subscription:
    """Begin a new cycle on another plan: what `offer` counts of the running cycle is given up, the
    rest ends or rolls as the plan it leaves promised, the new credits are granted. Bundles stay.
    The cycle that it cuts short is settled (`billing.closing`).

    Credits spent between the offer and now were counted at their value, so they are owed: whoever
    begins an upgrade, drains and then pays gains nothing.

    Raises:
        billing.errors.Conflict: the subscription has ended, or is not in cycle `leaves` any more.
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = subscriptions.locked(subscription)
    if subscription.status not in Subscription.CURRENT:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    if subscription.cycle_index != leaves:
        raise errors.Conflict("Another cycle has begun meanwhile.", code="terms_changed")
    left = subscription.plan
    credits.expire(connection, now=now)
    _give_in_payment(connection, subscription, plan, offer, now=now)
    closing.settle(subscription.pk, now=now, early=True)
    index = _cut_short(subscription, now=now)
    course = courses.Course(plan, now, connection.merchant.time_zone, first=index)
    subscription.pending_change = subscription.pending_plan = subscription.cancelled_at = None
    period = subscriptions.open_cycle(
        connection,
        subscription,
        course,
        index=index,
        payment=payment,
        now=now,
        bundles_stay=True,
        terms={
            "unused_credit": offer.unused_credit,
            "unused_value": offer.unused_value,
            "owed": offer.owed,
        },
    )
    # A plan without credits grants none; then other credits pay what was just entered as owed.
    credits.pay_debt(connection, now=now)
    events.record(
        subscription.merchant,
        "subscription.changed",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        plan=plan.name,
        plan_id=plan.public_id,
        previous_plan_id=left.public_id,
        pending_change=None,
        charged=money.wire(offer.charge),
        cycle_start_at=period.start.isoformat(),
        cycle_end_at=period.end.isoformat(),
        **credits.head(connection),
    )
    notices.changed(subscription, left=left, now=now)
    return subscription


def _running_cycle(subscription: Subscription) -> Cycle | None:
    found: Cycle | None = (
        Cycle.objects.filter(subscription=subscription, index=subscription.cycle_index)
        .select_related("payment")
        .first()
    )
    return found


def _own_credit(cycle: Cycle | None, *, now: datetime) -> tuple[Decimal, Decimal]:
    """What a cycle granted, and what of it is unspent and alive; rolled credit is not of it."""
    if cycle is None:
        return ZERO, ZERO
    lots = CreditGrant.objects.filter(cycle=cycle, source=CreditGrant.Source.CYCLE)
    lot = lots.first()
    if lot is None:
        return ZERO, ZERO
    alive = lots.filter(credits.live(now)).exists()
    return lot.amount, lot.remaining if alive else ZERO


def _give_in_payment(
    connection: Connection, subscription: Subscription, plan: Plan, offer: Quote, *, now: datetime
) -> None:
    """End the credits that were counted; what of them was spent meanwhile, or is too little for a
    card, is owed. What of them ended while the answer of the card was awaited was not spent."""
    counted = offer.unused_credit
    lot = CreditGrant.objects.filter(
        connection=connection,
        source=CreditGrant.Source.CYCLE,
        cycle__subscription=subscription,
        cycle__index=subscription.cycle_index,
    ).first()
    there = min(lot.remaining, counted) if lot is not None else ZERO
    if lot is not None and there < counted:
        ended = lot.entries.filter(kind="expire").aggregate(sum=Sum("amount", default=ZERO))["sum"]
        back = min(-ended, counted - there)
        ledger.append(
            connection,
            kind="expire",
            amount=back,
            grant_id=lot.pk,
            reason=f"Ended while {plan} was being paid",
            now=now,
        )
        there += back
    if lot is not None:
        ledger.append(
            connection,
            kind="expire",
            amount=-there,
            grant_id=lot.pk,
            reason=f"Given in payment for {plan}",
            now=now,
        )
    for amount, why in (
        (counted - there, f"Spent after its value was taken off the price of {plan}"),
        (offer.owed, f"Rest of the price of {plan}, too little for a card"),
    ):
        ledger.append(connection, kind="adjust", amount=-amount, reason=why, now=now)


def _cut_short(subscription: Subscription, *, now: datetime) -> int:
    """End the running cycle now; gives the number of the cycle to come. Cycles that were missed
    stand as skipped, the last of them up to now."""
    course = courses.running(subscription)
    if now < subscription.cycle_end:
        Cycle.objects.filter(subscription=subscription, index=subscription.cycle_index).update(
            end=now
        )
        return int(subscription.cycle_index) + 1
    last = course.index_at(now)
    missed: list[tuple[int, periods.Cycle]] = [
        (index, course.cycle(index)) for index in range(subscription.cycle_index + 1, last + 1)
    ]
    missed = [(index, period) for index, period in missed if period.start < now]
    for index, period in missed:
        subscriptions.keep_cycle(
            subscription,
            course,
            index,
            state=Cycle.State.SKIPPED,
            now=now,
            end=min(period.end, now),
        )
    return int(subscription.cycle_index) + 1 + len(missed)
