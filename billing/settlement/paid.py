"""What a payment that was taken gives: the debt it pays, the cycle, change or credits it buys."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from billing import (
    changes,
    courses,
    credits,
    errors,
    ledger,
    money,
    receipts,
    subscriptions,
)
from billing.models import Connection, CreditGrant, Payment, Plan, Subscription
from billing.settlement import attempts, unpaid
from billing.settlement.saved import next_receipt, save_card
from billing.stripe import Card, Intent


def succeed(
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
    attempts.note(payment, now=now)
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
    attempts.tell(connection, payment, "payment.succeeded", now=now)
    receipts.send(payment, now=now)


def _pay_overage(
    connection: Connection, payment: Payment, *, was_open: bool, now: datetime
) -> None:
    """Enter what the card paid of the debt. Paid after it was given up, it pays what is owed still;
    when credits or another charge paid that meanwhile, a person must give it back."""
    amount = payment.amount.amount
    if was_open:
        unpaid.release(connection, payment)
    elif connection.debt - connection.collecting < amount:
        _flag(payment, "Paid after it was given up; the debt was paid otherwise.")
        return
    # Lines stand in the order of their instants: what has ended by now comes first.
    credits.expire(connection, now=now)
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


def _flag(payment: Payment, reason: str) -> None:
    payment.flag = reason[:255]
    payment.save(update_fields=["flag"])
