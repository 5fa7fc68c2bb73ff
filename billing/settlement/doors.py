"""The ways in: what the network says of an intent, a refusal, a withdrawal, a person's flag."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing import failpoints, ledger
from billing.models import Connection, Payment
from billing.settlement import attempts, paid, unpaid
from billing.stripe import Card, Intent


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
        paid.succeed(connection, payment, intent=intent, card=card, now=now)
    elif intent.status == "canceled" and not payment.off_session:
        unpaid.close(connection, payment, Payment.Status.CANCELLED, now=now)
    elif intent.status == "processing":
        payment.status = payment.status if waits else Payment.Status.UNKNOWN
        payment.save()
    elif waits and intent.status == "canceled":
        # Its link is over (`payments.give_up`); the next try was set when the bank asked.
        unpaid.end_unconfirmed(connection, payment, now=now)
    elif payment.off_session and not waits and not intent.wants_customer:
        # One that was cancelled at the network by hand counts as a try, or it were asked for ever.
        code = intent.decline_code or intent.status
        unpaid.fail(connection, payment, code=code, message=intent.message, now=now)
    else:
        attempts.note(payment, code=intent.decline_code, message=intent.message, now=now)
        payment.failure_code = intent.decline_code
        payment.failure_message = intent.message[:255]
        if payment.off_session:
            unpaid.ask_customer(connection, payment, now=now)
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
        unpaid.fail(connection, payment, code=code, message=message, now=now)
    failpoints.at(f"{payment.purpose}.settling")
    return payment


@transaction.atomic
def cancel(payment_id: UUID, *, now: datetime) -> Payment:
    """Withdraw a payment that the network was never asked for, or never took money for."""
    connection, payment = lock(payment_id)
    asked = payment.intent_id or (payment.off_session and payment.asked_at)
    if payment.is_open and not asked:
        unpaid.close(connection, payment, Payment.Status.CANCELLED, now=now)
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
