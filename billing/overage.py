"""Overage: collect from the card what credits did not cover.

`collect` is called by a worker when a charge reports that the threshold is reached, by the sweep,
and by `billing.renewals` when the cycle ends. Only whole minor units are charged; the rest stays
owed, so that fees owed = charged + paid from credits + still owed, to the last digit.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import F
from moneyed import Money

from billing import ledger, money, payments
from billing.models import Connection, Payment, Plan, Subscription

ZERO = Decimal(0)


def collect(
    connection_id: UUID, *, now: datetime, cycle_ends: bool = False, less: Decimal = ZERO
) -> Payment | None:
    """Charge what is owed, if it is due: at the plan's threshold, or when the cycle ends. `less`:
    what of it credits that are about to be given will pay.

    Gives the payment, or None where nothing was due. Called twice at once it charges once: one
    open overage charge a connection. After a decline it waits for the day of the next try, also
    when the cycle ends in between; what is owed stays owed.
    """
    payment = _begin(connection_id, now=now, cycle_ends=cycle_ends, less=less)
    return payments.charge(payment, now=now) if payment is not None else None


def tops_up(subscription: Subscription, *, now: datetime) -> bool:
    """Whether an automatic top-up pays for what credits do not cover; not while it waits, after a
    decline or at its cap."""
    waits = subscription.top_up_next_attempt_at
    return (
        subscription.auto_top_up_bundle_id is not None
        and subscription.status == Subscription.Status.ACTIVE
        and (waits is None or waits <= now)
    )


@transaction.atomic
def _begin(
    connection_id: UUID, *, now: datetime, cycle_ends: bool, less: Decimal = ZERO
) -> Payment | None:
    connection = ledger.lock(connection_id)
    current = connection.subscription
    if current is None or current.plan.when_depleted != Plan.WhenDepleted.OVERAGE:
        return None
    if connection.status != Connection.Status.ACTIVE:
        return None
    amount = money.floor_minor(connection.debt - connection.collecting - less, connection.currency)
    if amount < money.minimum_charge(connection.currency):
        return None
    next_try = connection.overage_next_attempt_at
    if next_try is not None and next_try > now:
        return None
    if not cycle_ends and connection.debt < current.plan.overage_threshold:
        return None
    # The credits of a top-up that is being paid will pay the debt.
    if Payment.objects.filter(
        connection=connection,
        purpose__in=(Payment.Purpose.OVERAGE, Payment.Purpose.TOP_UP),
        off_session=True,
        status__in=Payment.OPEN,
    ).exists():
        return None
    if not cycle_ends and tops_up(current, now=now):
        return None
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.OVERAGE,
        amount=Money(amount, connection.currency),
        subscription=current,
        cycle_index=current.cycle_index,
        off_session=True,
        # The ledger's length names the moment: the same debt is never intended twice.
        key=f"overage:{connection.public_id}:{connection.entry_count}:{connection.overage_attempts}",
        now=now,
    )
    if payment.is_open:
        Connection.objects.filter(pk=connection.pk).update(collecting=F("collecting") + amount)
        return payment
    return None
