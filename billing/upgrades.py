"""Moving onto another plan: the price is charged, the change is made when it is paid.

`switch` is for a saved card (the portal, the API, the console); `begin` for a customer at the page,
who confirms the payment there. What a change costs and does is `billing.changes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from moneyed import Money

from billing import changes, closing, errors, ledger, overage, payments, subscriptions
from billing.models import Connection, Payment, Plan, Subscription

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Switched:
    """What became of a switch: the subscription as it is now, and the upgrade's payment, if one was
    made. A payment that failed or has no answer yet has changed nothing so far."""

    subscription: Subscription
    payment: Payment | None


def switch(subscription: Subscription, *, plan: Plan, now: datetime) -> Switched:
    """Move onto a plan: an upgrade at once, by the saved card; anything else at the cycle's end.

    Called twice at once it charges once: one open change a connection, and the one that comes
    second finds itself on the plan.

    Raises:
        billing.errors.Conflict, NotFound: as `changes.check`; `payment_under_way` while a renewal
            or another change is being paid; `no_card` when there is something to pay and no card.
    """
    if not changes.is_upgrade(subscription.plan, plan):
        return Switched(changes.schedule(subscription, plan=plan, now=now), None)
    # Before anything is charged; `_begin` looks again under the lock.
    changes.check(subscription.connection, subscriptions.locked(subscription), plan=plan)
    # As when a cycle ends: what is owed is the card's, not the new credits'; but for what comes
    # back with the change. That is given by the change itself: one that is declined ends no cycle.
    comes_back = closing.expected([subscription.pk]).get(subscription.pk, ZERO)
    overage.collect(subscription.connection_id, now=now, cycle_ends=True, less=comes_back)
    payment = _begin(subscription, plan=plan, now=now)
    if payment is not None:
        payment = payments.charge(payment, now=now)
    return Switched(subscriptions.locked(subscription), payment)


@transaction.atomic
def _begin(subscription: Subscription, *, plan: Plan, now: datetime) -> Payment | None:
    """Decide under the lock: change at once where nothing is to be charged, or intend a payment."""
    connection = ledger.lock(subscription.connection_id)
    subscription = subscriptions.locked(subscription)
    changes.check(connection, subscription, plan=plan)
    changes.refuse_while_paying(subscription)
    if not changes.is_upgrade(subscription.plan, plan):
        changes.schedule(subscription, plan=plan, now=now)
        return None
    offer = changes.quote(subscription, plan=plan, now=now)
    if not offer.charge:
        changes.move_now(
            subscription, plan=plan, offer=offer, leaves=subscription.cycle_index, now=now
        )
        return None
    if connection.card is None:
        raise errors.Conflict("There is no saved card: switch at checkout.", code="no_card")
    tries = Payment.objects.filter(
        subscription=subscription, purpose=Payment.Purpose.UPGRADE, off_session=True
    ).count()
    key = f"upgrade:{subscription.public_id}:{subscription.cycle_index}:{tries}"
    return _intend(connection, subscription, plan, offer, key=key, off_session=True, now=now)


@transaction.atomic
def begin(subscription: Subscription, *, plan: Plan, key: str, now: datetime) -> Payment | None:
    """Write the row of an upgrade that the customer pays at the page; `payments.present` shows it.

    The same key gives the same row, at the price first quoted. None: there was nothing to pay, and
    the change is made.

    Raises:
        billing.errors.Conflict, NotFound: as `changes.check`; it is no upgrade (`no_upgrade`); the
            row's cycle is over (`terms_changed`); a charge is under way (`payment_under_way`).
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = subscriptions.locked(subscription)
    made: Payment | None = Payment.objects.of(connection.merchant).filter(key=key).first()
    if made is not None:
        if (made.connection_id, made.plan_id) != (connection.pk, plan.pk):
            raise errors.Conflict("That payment was begun with other terms.")
        if made.is_open and made.cycle_index != subscription.cycle_index + 1:
            raise errors.Conflict(
                "Another cycle has begun meanwhile. Nothing was charged.", code="terms_changed"
            )
        return made
    changes.check(connection, subscription, plan=plan)
    changes.refuse_while_paying(subscription)
    if not changes.is_upgrade(subscription.plan, plan):
        raise errors.Conflict(
            "That plan does not cost more: it begins at the end of the cycle.", code="no_upgrade"
        )
    offer = changes.quote(subscription, plan=plan, now=now)
    if not offer.charge:
        changes.move_now(
            subscription, plan=plan, offer=offer, leaves=subscription.cycle_index, now=now
        )
        return None
    return _intend(connection, subscription, plan, offer, key=key, off_session=False, now=now)


def _intend(
    connection: Connection,
    subscription: Subscription,
    plan: Plan,
    offer: changes.Quote,
    *,
    key: str,
    off_session: bool,
    now: datetime,
) -> Payment:
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.UPGRADE,
        amount=Money(offer.charge, connection.currency),
        plan=plan,
        subscription=subscription,
        cycle_index=subscription.cycle_index + 1,
        off_session=off_session,
        key=key,
        now=now,
    )
    payment.unused_credit, payment.unused_value = offer.unused_credit, offer.unused_value
    payment.save(update_fields=["unused_credit", "unused_value"])
    return payment
