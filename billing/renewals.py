"""Renewals: bring a subscription whose cycle has ended into its current one.

`renew` is safe to call twice, by any number of workers: the cycle's unique key and the open
payment's decide. Called by `billing.tasks` and by `billing.clock`.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing import ledger, overage, payments, periods, subscriptions
from billing.models import Connection, Payment, Subscription


def renew(subscription_id: UUID, *, now: datetime) -> Payment | None:
    """Renew one subscription that is due: its overage is collected, its card charged, its cycle
    opened. Gives the renewal's payment, or None where none was needed or it was not due.

    A server that slept through cycles renews once, for the current one (money.md, Cycles).
    """
    subscription = Subscription.objects.current().filter(pk=subscription_id).first()
    if subscription is None or not _is_due(subscription, now=now):
        return None
    overage.collect(subscription.connection_id, now=now, cycle_ends=True)
    payment = _begin(subscription_id, now=now)
    if payment is None:
        return None
    return payments.charge(payment, now=now)


@transaction.atomic
def _begin(subscription_id: UUID, *, now: datetime) -> Payment | None:
    """Decide under the lock: end it, move on at once (price 0), or intend a payment."""
    owner = Subscription.objects.values_list("connection_id", flat=True).get(pk=subscription_id)
    connection = ledger.lock(owner)
    subscription = Subscription.objects.select_related("plan", "merchant").get(pk=subscription_id)
    if not _is_due(subscription, now=now):
        return None
    if subscription.pending_change == Subscription.PendingChange.CANCELLATION:
        subscriptions.end(subscription, now=now)
        return None
    if connection.status != Connection.Status.ACTIVE:
        # Disabled: nothing is charged; it renews when it is enabled again.
        return None
    plan = subscription.plan
    index = periods.index_at(
        subscription.anchor, plan.billing_interval, subscription.time_zone, now
    )
    if plan.is_free:
        subscriptions.advance(subscription, index=index, now=now)
        return None
    open_renewals = Payment.objects.filter(
        subscription=subscription, purpose=Payment.Purpose.RENEWAL, status__in=Payment.OPEN
    )
    if open_renewals.exists():
        return None
    tries = Payment.objects.filter(
        subscription=subscription, purpose=Payment.Purpose.RENEWAL, cycle_index=index
    )
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.RENEWAL,
        amount=plan.price,
        plan=plan,
        subscription=subscription,
        cycle_index=index,
        off_session=True,
        # One key a try, also for those that a new card makes between the days of the schedule.
        key=f"renewal:{subscription.public_id}:{index}:{tries.count()}",
        now=now,
    )
    return payment if payment.is_open else None


def _is_due(subscription: Subscription, *, now: datetime) -> bool:
    """Whether its cycle is over and, after a decline, the day of the next try has come."""
    next_try = subscription.next_attempt_at
    if subscription.pending_change == Subscription.PendingChange.CANCELLATION:
        next_try = None
    return (
        subscription.status in Subscription.CURRENT
        and subscription.cycle_end <= now
        and (next_try is None or next_try <= now)
    )
