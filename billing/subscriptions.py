"""Subscriptions: open one, move it to its next cycle, cancel, resume, end it.

Writes `Subscription` and `Cycle`. Every verb runs in a transaction under the connection's lock and
is safe to call twice. Nothing here talks to the card network: `billing.settlement` calls `open`
and `advance` when a payment is settled, `billing.renewals` at once for a price of 0.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from billing import credits, errors, events, ledger, periods
from billing.models import (
    Connection,
    CreditBundle,
    CreditGrant,
    Cycle,
    Payment,
    Plan,
    Subscription,
)


@transaction.atomic
def open(
    connection: Connection, *, plan: Plan, now: datetime, payment: Payment | None = None
) -> Subscription:
    """Start a plan on a connection: its first cycle begins at `now`, its credits are granted.

    Raises:
        billing.errors.Conflict: the connection has a current subscription already, is deleted, or
            is billed in another currency.
    """
    connection = ledger.lock(connection.pk, merchant_id=plan.merchant_id)
    if connection.status == Connection.Status.DELETED:
        raise errors.Conflict("This connection is deleted: nothing more is charged.")
    if plan.currency != connection.currency:
        raise errors.Conflict(f"This customer is billed in {connection.currency}.")
    if connection.subscription is not None:
        raise errors.Conflict(
            f"This customer is on {connection.subscription.plan} already.",
            code="already_subscribed",
        )
    zone = connection.merchant.time_zone
    first = periods.cycle(now, plan.billing_interval, 0, zone)
    subscription = Subscription(
        merchant=connection.merchant,
        connection=connection,
        plan=plan,
        anchor=now,
        time_zone=zone,
        cycle_start=first.start,
        cycle_end=first.end,
        started_at=now,
        auto_top_up_bundle_id=plan.default_auto_top_up_bundle_id,
    )
    subscription.save()
    fresh = connection.status == Connection.Status.PENDING
    activate(connection, now=now)
    Connection.objects.filter(pk=connection.pk).update(cycle_overage=0)
    _grant_cycle(connection, subscription, first, payment=payment, now=now)
    if fresh:
        events.record(connection.merchant, "connection.created", now=now, connection=connection)
    events.record(
        connection.merchant,
        "subscription.created",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        plan=plan.name,
    )
    return subscription


def activate(connection: Connection, *, now: datetime) -> None:
    """Make a connection visible and billable; its checkout is complete."""
    if connection.status == Connection.Status.PENDING:
        connection.status = Connection.Status.ACTIVE
        connection.activated_at = now
        connection.save(update_fields=["status", "activated_at"])


@transaction.atomic
def advance(
    subscription: Subscription, *, index: int, now: datetime, payment: Payment | None = None
) -> bool:
    """Open cycle `index`: end or roll what is left, pay debt, grant, move on. Exactly once.

    Cycles slept through are recorded as skipped and never charged. Gives False when that cycle
    was opened before.

    Raises:
        billing.errors.Conflict: the subscription has ended meanwhile.
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = Subscription.objects.select_related("plan", "merchant").get(pk=subscription.pk)
    if index <= subscription.cycle_index:
        return False
    if subscription.status not in Subscription.CURRENT:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    plan = subscription.plan

    def cycle(number: int) -> periods.Cycle:
        return periods.cycle(
            subscription.anchor, plan.billing_interval, number, subscription.time_zone
        )

    for number in range(subscription.cycle_index + 1, index):
        missed = cycle(number)
        Cycle(
            merchant=subscription.merchant,
            subscription=subscription,
            index=number,
            start=missed.start,
            end=missed.end,
            state=Cycle.State.SKIPPED,
            created_at=now,
        ).save()
    opened = cycle(index)
    subscription.status = Subscription.Status.ACTIVE
    subscription.cycle_index = index
    subscription.cycle_start, subscription.cycle_end = opened.start, opened.end
    subscription.past_due_since = subscription.next_attempt_at = None
    subscription.attempts = 0
    subscription.save()
    Connection.objects.filter(pk=connection.pk).update(cycle_overage=0)
    _grant_cycle(connection, subscription, opened, payment=payment, now=now)
    events.record(
        subscription.merchant,
        "subscription.renewed",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        plan=plan.name,
        cycle_start_at=opened.start.isoformat(),
        cycle_end_at=opened.end.isoformat(),
    )
    return True


def _grant_cycle(
    connection: Connection,
    subscription: Subscription,
    period: periods.Cycle,
    *,
    payment: Payment | None,
    now: datetime,
) -> None:
    """The credits of a new cycle, after what is left of the old one was ended or rolled."""
    plan = subscription.plan
    cycle = Cycle(
        merchant=connection.merchant,
        subscription=subscription,
        index=period.index,
        start=period.start,
        end=period.end,
        state=Cycle.State.GRANTED,
        payment=payment,
        created_at=now,
    )
    cycle.save()
    credits.expire(connection, now=now)
    keeps = plan.rollover_type == Plan.Rollover.FULL
    if keeps:
        credits.roll_over(connection, cycle=cycle, cap=plan.rollover_cap, now=now)
    else:
        credits.end(connection, pool=CreditGrant.Pool.CYCLE, now=now)
    if plan.bundle_rollover_type == Plan.Rollover.NONE and period.index > 0:
        # What was bought in this cycle, while its renewal was late, is of this cycle.
        credits.end(connection, pool=CreditGrant.Pool.BUNDLE, now=now, granted_before=period.start)
    credits.grant(
        connection,
        source=CreditGrant.Source.CYCLE,
        amount=plan.included_credit,
        now=now,
        # Credits that roll over end with the subscription; others with the cycle, to the instant.
        expires_at=None if keeps else max(period.end, now),
        cycle=cycle,
        payment=payment,
    )


@transaction.atomic
def cancel(subscription: Subscription, *, now: datetime) -> Subscription:
    """Cancel at the end of the cycle; until then everything stays, and it can be resumed.

    Raises:
        billing.errors.Conflict: it has ended already.
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = Subscription.objects.select_related("plan", "merchant").get(pk=subscription.pk)
    if subscription.status not in Subscription.CURRENT:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    if subscription.pending_change != Subscription.PendingChange.CANCELLATION:
        subscription.pending_change = Subscription.PendingChange.CANCELLATION
        subscription.cancelled_at = now
        subscription.save()
        events.record(
            subscription.merchant,
            "subscription.changed",
            now=now,
            connection=connection,
            subscription_id=subscription.public_id,
            pending_change="cancellation",
        )
    if subscription.cycle_end <= now:
        end(subscription, now=now)
        subscription.refresh_from_db()
    return subscription


@transaction.atomic
def set_auto_top_up(subscription: Subscription, *, bundle: CreditBundle | None) -> None:
    """Buy a bundle of the plan by itself when credits run out; None: no more.

    Raises:
        billing.errors.NotFound: the bundle is another plan's, or removed.
        billing.errors.Conflict: the subscription has ended.
    """
    ledger.lock(subscription.connection_id)
    subscription = Subscription.objects.get(pk=subscription.pk)
    if subscription.status not in Subscription.CURRENT:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    if bundle is not None and (
        bundle.plan_id != subscription.plan_id or bundle.deleted_at is not None
    ):
        raise errors.NotFound("This plan has no such bundle.", param="auto_top_up_bundle_id")
    subscription.auto_top_up_bundle = bundle
    subscription.save(update_fields=["auto_top_up_bundle"])


@transaction.atomic
def resume(subscription: Subscription, *, now: datetime) -> Subscription:
    """Take back a cancellation before it takes effect.

    Raises:
        billing.errors.Conflict: nothing is pending, or the cycle is over.
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = Subscription.objects.select_related("plan", "merchant").get(pk=subscription.pk)
    if subscription.pending_change is None or subscription.cycle_end <= now:
        raise errors.Conflict("There is no change to take back.", code="nothing_pending")
    subscription.pending_change = None
    subscription.cancelled_at = None
    subscription.save()
    events.record(
        subscription.merchant,
        "subscription.changed",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        pending_change=None,
    )
    return subscription


@transaction.atomic
def end(subscription: Subscription, *, now: datetime, unpaid: bool = False) -> None:
    """End a subscription now: its cycle credits end; bundle credits as the plan says."""
    connection = ledger.lock(subscription.connection_id)
    subscription = Subscription.objects.select_related("plan", "merchant").get(pk=subscription.pk)
    if subscription.status not in Subscription.CURRENT:
        return
    subscription.status = Subscription.Status.CANCELLED
    subscription.ended_at = now
    subscription.cancelled_at = subscription.cancelled_at or now
    subscription.pending_change = None
    subscription.next_attempt_at = None
    subscription.save()
    credits.expire(connection, now=now)
    credits.end(connection, pool=CreditGrant.Pool.CYCLE, now=now)
    if subscription.plan.bundle_rollover_type == Plan.Rollover.NONE:
        credits.end(connection, pool=CreditGrant.Pool.BUNDLE, now=now)
    events.record(
        subscription.merchant,
        "subscription.cancelled",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        plan=subscription.plan.name,
        unpaid=unpaid,
    )
