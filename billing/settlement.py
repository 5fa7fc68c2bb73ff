"""Settlement: what a payment's answer does to the books, exactly once.

`apply` is called with what the card network says, by the answer to our own call and by the webhook
alike, in any order and any number of times. Locks: connection, then payment, then the merchant's
receipt counter; no network in between.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from billing import (
    changes,
    courses,
    credits,
    errors,
    events,
    failpoints,
    ledger,
    money,
    notices,
    receipts,
    subscriptions,
)
from billing.models import (
    Connection,
    CreditGrant,
    Merchant,
    Payment,
    PaymentAttempt,
    PaymentMethod,
    Plan,
    Subscription,
)
from billing.stripe import Card, Intent

# After a declined renewal or overage charge: tries 1, 3, 5 and 7 days after the first.
RETRY_DAYS = (1, 3, 5, 7)
# How long the link of a charge without a schedule (a top-up) pays it.
ACTION_LIFE = timedelta(days=1)


@transaction.atomic
def apply(payment_id: UUID, *, intent: Intent, card: Card | None, now: datetime) -> Payment:
    """Bring a payment to what the network says of its intent; a succeeded one is settled.

    `card`: the card the intent names, fetched before (no network under a lock).
    """
    connection, payment = lock(payment_id)
    if payment.status == Payment.Status.SUCCEEDED:
        return payment
    if not payment.is_open and intent.status != "succeeded":
        # Given up before, and not paid: it stays as it was closed.
        return payment
    payment.intent_id = payment.intent_id or intent.id
    payment.charge_id = intent.charge_id or payment.charge_id
    waits = payment.off_session and payment.status == Payment.Status.REQUIRES_ACTION
    if intent.status == "succeeded":
        _succeed(connection, payment, intent=intent, card=card, now=now)
    elif intent.status == "canceled" and not payment.off_session:
        _close(connection, payment, Payment.Status.CANCELLED, now=now)
    elif intent.status == "processing":
        payment.status = payment.status if waits else Payment.Status.UNKNOWN
        payment.save()
    elif waits and intent.status == "canceled":
        # Its link is over (`payments.give_up`); the next try was set when the bank asked.
        _end_unconfirmed(connection, payment, now=now)
    elif payment.off_session and not waits and not intent.wants_customer:
        # One that was cancelled at the network by hand counts as a try, or it were asked for ever.
        code = intent.decline_code or intent.status
        _fail(connection, payment, code=code, message=intent.message, now=now)
    else:
        _note(payment, code=intent.decline_code, message=intent.message, now=now)
        payment.failure_code = intent.decline_code
        payment.failure_message = intent.message[:255]
        if payment.off_session:
            _ask_customer(connection, payment, now=now)
        else:
            # They are at the page: a decline is shown there, and the same intent tried again.
            asks = intent.status == "requires_action"
            payment.status = Payment.Status.REQUIRES_ACTION if asks else Payment.Status.PENDING
            payment.save()
    failpoints.at(f"{payment.purpose}.settling")
    return payment


@transaction.atomic
def fail(
    payment_id: UUID,
    *,
    code: str,
    message: str,
    now: datetime,
    intent_id: str = "",
    charge_id: str = "",
) -> Payment:
    """Record that a charge was refused and nothing was taken; with what the network says of it."""
    connection, payment = lock(payment_id)
    if payment.is_open:
        payment.intent_id = payment.intent_id or intent_id
        payment.charge_id = charge_id or payment.charge_id
        _fail(connection, payment, code=code, message=message, now=now)
    return payment


@transaction.atomic
def cancel(payment_id: UUID, *, now: datetime) -> Payment:
    """Withdraw a payment that the network was never asked for, or never took money for."""
    connection, payment = lock(payment_id)
    asked = payment.intent_id or (payment.off_session and payment.asked_at)
    if payment.is_open and not asked:
        _close(connection, payment, Payment.Status.CANCELLED, now=now)
    return payment


@transaction.atomic
def flag(payment_id: UUID, reason: str) -> bool:
    """Mark a payment for a person, once; whether it was not marked so before. What it gave stays:
    a person decides."""
    _, payment = lock(payment_id)
    if payment.alarm == reason:
        return False
    payment.alarm = reason[:255]
    payment.save(update_fields=["alarm"])
    return True


def lock(payment_id: UUID) -> tuple[Connection, Payment]:
    """Lock a payment the way every money verb does: its connection first."""
    owner = Payment.objects.values_list("connection_id", flat=True).get(pk=payment_id)
    connection = ledger.lock(owner)
    payment: Payment = (
        Payment.objects.select_for_update(of=("self",), no_key=True)
        .select_related("merchant__organization", "plan", "bundle", "subscription")
        .get(pk=payment_id)
    )
    return connection, payment


def _succeed(
    connection: Connection, payment: Payment, *, intent: Intent, card: Card | None, now: datetime
) -> None:
    taken = money.from_minor(intent.amount_minor, intent.currency)
    was_open = payment.is_open
    payment.status = Payment.Status.SUCCEEDED
    payment.settled_at = now
    payment.failure_code = payment.failure_message = ""
    payment.receipt_number = next_receipt(payment.merchant)
    payment.action_until = None
    if card is not None:
        payment.card = save_card(connection, card, now=now)
    payment.save()
    _note(payment, now=now)
    if taken != payment.amount:
        # Money moved, but not what was asked: nothing is granted until a person has looked.
        asked = money.show(payment.amount)
        _flag(payment, f"The card network took {money.show(taken)}, not {asked}.")
        return
    if payment.purpose == Payment.Purpose.OVERAGE:
        _pay_overage(connection, payment, was_open=was_open, now=now)
    else:
        try:
            with transaction.atomic():
                _deliver(connection, payment, now=now)
        except errors.Conflict as conflict:
            # Paid for something that is no longer to be had: kept visible, to be refunded.
            _flag(payment, str(conflict))
    events.record(
        payment.merchant,
        "payment.succeeded",
        now=now,
        connection=connection,
        payment_id=payment.public_id,
        purpose=payment.purpose,
        amount=money.wire(payment.amount.amount),
        currency=str(payment.amount.currency),
    )
    receipts.send(payment, now=now)


def _pay_overage(
    connection: Connection, payment: Payment, *, was_open: bool, now: datetime
) -> None:
    """Enter what the card paid of the debt. Paid after it was given up, it pays what is owed still;
    when credits or another charge paid that meanwhile, a person must give it back."""
    amount = payment.amount.amount
    if was_open:
        _release(connection, payment)
    elif connection.debt - connection.collecting < amount:
        _flag(payment, "Paid after it was given up; the debt was paid otherwise.")
        return
    ledger.append(connection, kind="overage_charged", amount=amount, payment_id=payment.pk, now=now)
    Connection.objects.filter(pk=connection.pk).update(
        overage_attempts=0, overage_next_attempt_at=None
    )


def _deliver(connection: Connection, payment: Payment, *, now: datetime) -> None:
    """Give what was paid for."""
    if payment.purpose == Payment.Purpose.SUBSCRIPTION:
        assert payment.plan is not None
        payment.subscription = subscriptions.open(
            connection, plan=payment.plan, now=now, payment=payment
        )
        payment.cycle_index = 0
        payment.save(update_fields=["subscription", "cycle_index"])
    elif payment.purpose == Payment.Purpose.RENEWAL:
        assert payment.subscription is not None and payment.cycle_index is not None
        moved = subscriptions.advance(
            payment.subscription, index=payment.cycle_index, now=now, payment=payment
        )
        if not moved:
            raise errors.Conflict("That cycle was opened before.")
    elif payment.purpose == Payment.Purpose.UPGRADE:
        _upgrade(payment, now=now)
    else:
        if connection.status == Connection.Status.DELETED:
            raise errors.Conflict("This connection was deleted before its payment arrived.")
        subscriptions.activate(connection, now=now)
        current = connection.subscription
        credits.grant(
            connection,
            source=CreditGrant.Source.BUNDLE,
            amount=payment.credit_amount,
            now=now,
            expires_at=_end_of_bundle(current, now=now),
            payment=payment,
            bundle=payment.bundle,
        )
        if payment.purpose == Payment.Purpose.TOP_UP and current is not None:
            Subscription.objects.filter(pk=current.pk).update(
                top_up_attempts=0, top_up_next_attempt_at=None
            )


def _upgrade(payment: Payment, *, now: datetime) -> None:
    """Make the change of plan that was paid for, on the terms its intent fixed."""
    assert payment.subscription is not None and payment.cycle_index is not None
    assert payment.plan is not None
    moved = changes.move_now(
        payment.subscription,
        plan=payment.plan,
        offer=changes.Quote(
            charge=payment.amount.amount,
            unused_credit=payment.unused_credit,
            unused_value=payment.unused_value,
            owed=credits.ZERO,
        ),
        leaves=payment.cycle_index - 1,
        payment=payment,
        now=now,
    )
    payment.cycle_index = moved.cycle_index
    payment.save(update_fields=["cycle_index"])


def _end_of_bundle(subscription: Subscription | None, *, now: datetime) -> datetime | None:
    """When credits bought now end: with the cycle that holds `now`, on a plan whose bundles do not
    roll over. While a renewal is late that is the cycle to come, not the one that is over."""
    if subscription is None or subscription.plan.bundle_rollover_type != Plan.Rollover.NONE:
        return None
    course = courses.running(subscription)
    return max(course.cycle(course.index_at(now)).end, subscription.cycle_end)


def _fail(
    connection: Connection, payment: Payment, *, code: str, message: str, now: datetime
) -> None:
    payment.failure_code = code[:64]
    payment.failure_message = message[:255]
    _note(payment, code=code, message=message, now=now)
    _close(connection, payment, Payment.Status.FAILED, now=now)
    is_first = _wait(connection, payment, now=now)
    events.record(
        payment.merchant,
        "payment.failed",
        now=now,
        connection=connection,
        payment_id=payment.public_id,
        purpose=payment.purpose,
        amount=money.wire(payment.amount.amount),
        currency=str(payment.amount.currency),
        code=payment.failure_code,
    )
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


def _close(connection: Connection, payment: Payment, status: str, *, now: datetime) -> None:
    """End an open payment without money: what it was collecting is owed again."""
    was_open = payment.is_open
    payment.status = status
    payment.save()
    if was_open and payment.purpose == Payment.Purpose.OVERAGE:
        _release(connection, payment)
        credits.pay_debt(connection, now=now)


def _release(connection: Connection, payment: Payment) -> None:
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


def _ask_customer(connection: Connection, payment: Payment, *, now: datetime) -> None:
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
            _fail(
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
    events.record(
        payment.merchant,
        "payment.action_required",
        now=now,
        connection=connection,
        payment_id=payment.public_id,
        purpose=payment.purpose,
        amount=money.wire(payment.amount.amount),
        currency=str(payment.amount.currency),
        url=receipts.pay_address(payment),
    )
    receipts.send_action(payment, now=now)


def _end_unconfirmed(connection: Connection, payment: Payment, *, now: datetime) -> None:
    """The link was not used in time. No mail of its own: the next try sends one."""
    payment.failure_code = payment.failure_code or "authentication_required"
    payment.action_until = None
    _close(connection, payment, Payment.Status.FAILED, now=now)
    events.record(
        payment.merchant,
        "payment.failed",
        now=now,
        connection=connection,
        payment_id=payment.public_id,
        purpose=payment.purpose,
        amount=money.wire(payment.amount.amount),
        currency=str(payment.amount.currency),
        code=payment.failure_code,
    )


def _note(payment: Payment, *, code: str = "", message: str = "", now: datetime) -> None:
    """Log one answer of the network; the same answer heard again is not noted again."""
    paid = payment.status == Payment.Status.SUCCEEDED
    if not paid and not code:
        return
    # At a page the customer may have typed another card than the one in use.
    unseen = payment.off_session and payment.status != Payment.Status.REQUIRES_ACTION
    card = payment.connection.card if unseen and not paid else payment.card
    PaymentAttempt.objects.get_or_create(
        payment=payment,
        charge_id=payment.charge_id,
        code="" if paid else code[:64],
        defaults={
            "merchant": payment.merchant,
            "at": now,
            "succeeded": paid,
            "message": message[:255],
            "card": str(card or "")[:64],
        },
    )


def save_card(connection: Connection, card: Card, *, now: datetime) -> PaymentMethod:
    """Keep a card for later charges; it becomes the one in use. Under the connection's lock.

    Another card than before: what could not be charged is tried again with it.
    """
    rows = PaymentMethod.objects.filter(connection=connection)
    is_other = not rows.filter(card_id=card.id, is_default=True, detached_at=None).exists()
    rows.exclude(card_id=card.id).filter(is_default=True).update(is_default=False)
    saved: PaymentMethod | None = rows.filter(card_id=card.id).first()
    if saved is None:
        saved = PaymentMethod(
            merchant=connection.merchant,
            connection=connection,
            card_id=card.id,
            brand=card.brand,
            last4=card.last4,
            exp_month=card.exp_month,
            exp_year=card.exp_year,
            created_at=now,
        )
    saved.is_default = True
    saved.detached_at = None
    saved.save()
    if is_other:
        _try_again(connection, now=now)
    return saved


def _try_again(connection: Connection, *, now: datetime) -> None:
    """What waits for its next day is due at once; the sweep takes it up."""
    Subscription.objects.current().filter(connection=connection, next_attempt_at__gt=now).update(
        next_attempt_at=now
    )
    Payment.objects.filter(
        connection=connection,
        off_session=True,
        status=Payment.Status.REQUIRES_ACTION,
        action_until__gt=now,
    ).update(action_until=now)
    if connection.overage_next_attempt_at is not None:
        connection.overage_next_attempt_at = now
        connection.save(update_fields=["overage_next_attempt_at"])


def next_receipt(merchant: Merchant) -> str:
    """The next number without a gap, for a payment or a refund; locks the merchant's counter."""
    Merchant.objects.filter(pk=merchant.pk).update(receipt_count=F("receipt_count") + 1)
    number = Merchant.objects.values_list("receipt_count", flat=True).get(pk=merchant.pk)
    return f"{merchant.organization.receipt_prefix}-{number}"


def _flag(payment: Payment, reason: str) -> None:
    payment.flag = reason[:255]
    payment.save(update_fields=["flag"])
