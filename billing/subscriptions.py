"""Subscriptions: open one, move it to its next cycle, cancel, resume, end it.

Writes `Subscription` and `Cycle`, with `billing.changes`. Every verb runs in a transaction under
the connection's lock and is safe to call twice. Nothing here talks to the card network:
`billing.settlement` calls `open` and `advance` when a payment is settled, `billing.renewals` at
once for a price of 0 (`billing/sql/renewals.sql` does the same for sets of them).
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing import courses, credits, errors, events, ledger, notices, periods
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
    course = courses.Course(plan=plan, anchor=now, zone=zone)
    first = course.cycle(0)
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
    open_cycle(
        connection, subscription, course, index=0, payment=payment, now=now, bundles_stay=True
    )
    if fresh:
        events.record(connection.merchant, "connection.created", now=now, connection=connection)
    events.record(
        connection.merchant,
        "subscription.created",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        plan=plan.name,
        **credits.head(connection),
    )
    notices.welcome(subscription, now=now)
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

    A pending downgrade or move takes effect; what was paid for is what is given, should the two
    differ. Cycles slept through are recorded as skipped and never charged. Gives False when that
    cycle was opened before.

    Raises:
        billing.errors.Conflict: the subscription has ended meanwhile.
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = locked(subscription)
    if index <= subscription.cycle_index:
        return False
    if subscription.status not in Subscription.CURRENT:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    paid_for = payment.plan if payment is not None else None
    course = courses.coming(subscription, onto=paid_for)
    left, change = subscription.plan, subscription.pending_change
    for number in range(subscription.cycle_index + 1, index):
        keep_cycle(subscription, course, number, state=Cycle.State.SKIPPED, now=now)
    opened = open_cycle(connection, subscription, course, index=index, payment=payment, now=now)
    events.record(
        subscription.merchant,
        "subscription.renewed",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        plan=course.plan.name,
        cycle_start_at=opened.start.isoformat(),
        cycle_end_at=opened.end.isoformat(),
        **credits.head(connection),
    )
    if change == Subscription.PendingChange.DOWNGRADE and course.plan.pk != left.pk:
        notices.changed(subscription, left=left, now=now)
    return True


def locked(subscription: Subscription) -> Subscription:
    """Read a subscription again, under the lock of its connection."""
    found: Subscription = Subscription.objects.select_related(
        "plan", "pending_plan", "merchant", "auto_top_up_bundle"
    ).get(pk=subscription.pk)
    return found


def open_cycle(
    connection: Connection,
    subscription: Subscription,
    course: courses.Course,
    *,
    index: int,
    payment: Payment | None,
    now: datetime,
    bundles_stay: bool = False,
    terms: dict[str, Decimal] | None = None,
) -> periods.Cycle:
    """Put a subscription into cycle `index` of a course and grant its credits, after what is left
    of the old cycle was ended or rolled, as the plan it leaves promised. Under the lock.

    `bundles_stay`: no cycle of theirs is over, in the first cycle and after an upgrade. `terms`: of
    an upgrade, what of the old cycle was given in payment (`Cycle.unused_credit` and so on).
    """
    leaving, plan = subscription.plan, course.plan
    period = course.cycle(index)
    _move(subscription, course, period)
    cycle = keep_cycle(
        subscription,
        course,
        index,
        state=Cycle.State.GRANTED,
        payment=payment,
        now=now,
        terms=terms,
    )
    Connection.objects.filter(pk=connection.pk).update(
        cycle_overage=0, low_mark=plan.low_credit_threshold
    )
    credits.expire(connection, now=now)
    if leaving.rollover_type == Plan.Rollover.FULL:
        credits.roll_over(connection, cycle=cycle, cap=leaving.rollover_cap, now=now)
    else:
        credits.end(connection, pool=CreditGrant.Pool.CYCLE, now=now)
    if leaving.bundle_rollover_type == Plan.Rollover.NONE and not bundles_stay:
        # What was bought in this cycle, while its renewal was late, is of this cycle.
        credits.end(connection, pool=CreditGrant.Pool.BUNDLE, now=now, granted_before=period.start)
    keeps = plan.rollover_type == Plan.Rollover.FULL
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
    return period


def _move(subscription: Subscription, course: courses.Course, period: periods.Cycle) -> None:
    """Set the row to a cycle: nothing is overdue any more, a change that waited for it is done."""
    if course.plan.pk != subscription.plan_id:
        subscription.auto_top_up_bundle = same_bundle(subscription.auto_top_up_bundle, course.plan)
        subscription.plan = course.plan
    if subscription.pending_plan_id == course.plan.pk:
        subscription.pending_change = subscription.pending_plan = None
    subscription.anchor, subscription.anchor_index = course.anchor, course.first
    subscription.time_zone = course.zone
    subscription.cycle_index = period.index
    subscription.cycle_start, subscription.cycle_end = period.start, period.end
    subscription.status = Subscription.Status.ACTIVE
    subscription.past_due_since = subscription.next_attempt_at = None
    subscription.attempts = 0
    subscription.save()


def same_bundle(bundle: CreditBundle | None, plan: Plan) -> CreditBundle | None:
    """What an automatic top-up buys on another plan: the bundle that gives and costs the same;
    None where the plan sells none, which switches the top-up off."""
    if bundle is None:
        return None
    found: CreditBundle | None = plan.live_bundles.filter(
        cost=bundle.cost, credit_amount=bundle.credit_amount
    ).first()
    return found


def keep_cycle(
    subscription: Subscription,
    course: courses.Course,
    index: int,
    *,
    state: str,
    now: datetime,
    payment: Payment | None = None,
    end: datetime | None = None,
    terms: dict[str, Decimal] | None = None,
) -> Cycle:
    """Write the row of a cycle; `end`: it is cut short there."""
    period = course.cycle(index)
    cycle = Cycle(
        merchant=subscription.merchant,
        subscription=subscription,
        plan=course.plan,
        anchor=course.anchor,
        place=index - course.first,
        time_zone=course.zone,
        index=index,
        start=period.start,
        end=end or period.end,
        state=state,
        payment=payment,
        created_at=now,
        **(terms or {}),
    )
    cycle.save()
    return cycle


@transaction.atomic
def cancel(subscription: Subscription, *, now: datetime) -> Subscription:
    """Cancel at the end of the cycle; until then everything stays, and it can be resumed.

    Raises:
        billing.errors.Conflict: it has ended already.
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = locked(subscription)
    if subscription.status not in Subscription.CURRENT:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    if subscription.pending_change != Subscription.PendingChange.CANCELLATION:
        subscription.pending_change = Subscription.PendingChange.CANCELLATION
        subscription.pending_plan = None
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
        if subscription.cycle_end > now:
            notices.cancelled(subscription, now=now)
    if subscription.cycle_end <= now:
        end(subscription, now=now)
        subscription.refresh_from_db()
    return subscription


@transaction.atomic
def resume(subscription: Subscription, *, now: datetime) -> Subscription:
    """Take back a cancellation, downgrade or move before it takes effect.

    Raises:
        billing.errors.Conflict: nothing is pending, or the cycle is over.
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = locked(subscription)
    if subscription.pending_change is None or subscription.cycle_end <= now:
        raise errors.Conflict("There is no change to take back.", code="nothing_pending")
    subscription.pending_change = subscription.pending_plan = None
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
    subscription = locked(subscription)
    if subscription.status not in Subscription.CURRENT:
        return
    subscription.status = Subscription.Status.CANCELLED
    subscription.ended_at = now
    subscription.cancelled_at = subscription.cancelled_at or now
    subscription.pending_change = subscription.pending_plan = None
    subscription.auto_top_up_bundle = None
    subscription.next_attempt_at = subscription.top_up_next_attempt_at = None
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
