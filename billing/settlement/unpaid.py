"""What a charge that was not taken leaves: its debt, the day of its next try, who is told of it."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import F
from django.utils import timezone

from billing import credits, events, notices, receipts, subscriptions
from billing.models import Connection, Payment, Subscription
from billing.settlement import attempts

# After a declined renewal or overage charge: tries 1, 3, 5 and 7 days after the first.
RETRY_DAYS = (1, 3, 5, 7)
# How long the link of a charge without a schedule (a top-up) pays it.
ACTION_LIFE = timedelta(days=1)


def fail(
    connection: Connection, payment: Payment, *, code: str, message: str, now: datetime
) -> None:
    payment.failure_code = code[:64]
    payment.failure_message = message[:255]
    attempts.note(payment, code=code, message=message, now=now)
    close(connection, payment, Payment.Status.FAILED, now=now)
    is_first = _wait(connection, payment, now=now)
    attempts.tell(connection, payment, "payment.failed", now=now, code=payment.failure_code)
    if is_first:
        receipts.send_declined(payment, now=now)


def _wait(connection: Connection, payment: Payment, *, now: datetime) -> bool:
    """Set the day of the next try of a declined charge; gives whether its customer is told of a
    first decline (one mail a stage: then the last warning, then the end)."""
    subscription = payment.subscription
    if payment.purpose == Payment.Purpose.RENEWAL and subscription is not None:
        # One that ended meanwhile stays ended: a late decline must not bring it back.
        if subscription.status not in Subscription.CURRENT:
            return False
        _postpone_renewal(subscription, payment, now=now)
        return subscription.attempts == 1
    if payment.purpose == Payment.Purpose.OVERAGE:
        tries = connection.overage_attempts + 1
        connection.overage_attempts = tries
        connection.overage_next_attempt_at = now + _pause(tries)
        connection.save(update_fields=["overage_attempts", "overage_next_attempt_at"])
        return tries == 1
    if payment.purpose == Payment.Purpose.TOP_UP and subscription is not None:
        tries = subscription.top_up_attempts + 1
        subscription.top_up_attempts = tries
        subscription.top_up_next_attempt_at = now + _pause(tries)
        subscription.save(update_fields=["top_up_attempts", "top_up_next_attempt_at"])
        return tries == 1
    # Whoever asked for it is there and is answered.
    return False


def _pause(tries: int) -> timedelta:
    return timedelta(days=RETRY_DAYS[min(tries, len(RETRY_DAYS)) - 1])


def close(connection: Connection, payment: Payment, status: str, *, now: datetime) -> None:
    """End an open payment without money: what it was collecting is owed again."""
    was_open = payment.is_open
    payment.status = status
    payment.save()
    if was_open and payment.purpose == Payment.Purpose.OVERAGE:
        release(connection, payment)
        credits.pay_debt(connection, now=now)


def release(connection: Connection, payment: Payment) -> None:
    Connection.objects.filter(pk=connection.pk).update(
        collecting=F("collecting") - payment.amount.amount
    )


def _postpone_renewal(subscription: Subscription, payment: Payment, *, now: datetime) -> None:
    """Past due: try again on the next day of the schedule, never twice in a day though a worker
    slept through some of them; warn before the last try; after it, end the subscription unpaid.

    A try between the days (a new card) does not use one up: the day it was made before stands.
    """
    since = subscription.past_due_since or now
    if not _is_on_schedule(subscription, now=now):
        subscription.next_attempt_at = since + timedelta(days=RETRY_DAYS[subscription.attempts - 1])
        subscription.save(update_fields=["next_attempt_at"])
        return
    if subscription.attempts >= len(RETRY_DAYS):
        subscriptions.end(subscription, now=now, unpaid=True)
        notices.ended_unpaid(subscription, payment, now=now)
        return
    planned = since + timedelta(days=RETRY_DAYS[subscription.attempts])
    subscription.next_attempt_at = max(planned, now + timedelta(days=1))
    subscription.attempts += 1
    if subscription.attempts == len(RETRY_DAYS):
        notices.last_warning(subscription, payment, now=now)
    if subscription.past_due_since is None:
        subscription.past_due_since = now
        subscription.status = Subscription.Status.PAST_DUE
        events.record(
            subscription.merchant,
            "subscription.past_due",
            now=now,
            connection=subscription.connection,
            subscription_id=subscription.public_id,
            grace_ends_at=(
                subscription.past_due_since + timedelta(days=subscription.plan.grace_days)
            ).isoformat(),
        )
    subscription.save()


def _is_on_schedule(subscription: Subscription, *, now: datetime) -> bool:
    """Whether the day has come that the try after `attempts` declines was set for."""
    since, attempts = subscription.past_due_since, subscription.attempts
    return since is None or attempts == 0 or now >= since + timedelta(days=RETRY_DAYS[attempts - 1])


def ask_customer(connection: Connection, payment: Payment, *, now: datetime) -> None:
    """The bank wants its cardholder, who is not here: they get a link that pays it until the next
    try is due. Nothing is granted before. On the last day of the schedule it counts as declined:
    they had a link for each of the days before."""
    if payment.status == Payment.Status.REQUIRES_ACTION:
        # Asked before: the link stands, and says what went wrong.
        payment.save()
        return
    subscription = payment.subscription
    if payment.purpose == Payment.Purpose.RENEWAL and subscription is not None:
        last = subscription.attempts >= len(RETRY_DAYS)
        if subscription.status not in Subscription.CURRENT or (
            last and _is_on_schedule(subscription, now=now)
        ):
            fail(
                connection,
                payment,
                code=payment.failure_code or "authentication_required",
                message=payment.failure_message,
                now=now,
            )
            return
    payment.status = Payment.Status.REQUIRES_ACTION
    payment.asked_at = timezone.now()
    payment.save()
    _wait(connection, payment, now=now)
    until = now + ACTION_LIFE
    if payment.purpose == Payment.Purpose.RENEWAL and subscription is not None:
        until = subscription.next_attempt_at or until
    elif payment.purpose == Payment.Purpose.OVERAGE:
        until = connection.overage_next_attempt_at or until
    elif payment.purpose == Payment.Purpose.TOP_UP and subscription is not None:
        until = subscription.top_up_next_attempt_at or until
    payment.action_until = until
    payment.save(update_fields=["action_until"])
    attempts.tell(
        connection, payment, "payment.action_required", now=now, url=receipts.pay_address(payment)
    )
    receipts.send_action(payment, now=now)


def end_unconfirmed(connection: Connection, payment: Payment, *, now: datetime) -> None:
    """The link was not used in time. No mail of its own: the next try sends one."""
    payment.failure_code = payment.failure_code or "authentication_required"
    payment.action_until = None
    close(connection, payment, Payment.Status.FAILED, now=now)
    attempts.tell(connection, payment, "payment.failed", now=now, code=payment.failure_code)
