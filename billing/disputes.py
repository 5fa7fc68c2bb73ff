"""Disputes: what the bank says, and what it does to the credits of the payment.

Opened, the credits are taken back as by a forced refund: what was spent becomes debt. Won, they are
given back; lost, they stay taken. `sync` asks the network how a dispute stands and is safe to call
in any order and any number of times. While a dispute is open or lost, its card is not charged
without its holder (`billing.cards.is_disputed`). Called by the webhooks and by `billing.reconcile`.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing import clawback, events, money, settlement, stripe
from billing.models import Connection, Dispute, Payment

ZERO = Decimal(0)

# Stripe's statuses; `warning_*` are questions of the bank, for which no money was withdrawn.
_STATUS = {
    "needs_response": Dispute.Status.OPEN,
    "under_review": Dispute.Status.OPEN,
    "won": Dispute.Status.WON,
    "prevented": Dispute.Status.WON,
    "lost": Dispute.Status.LOST,
    "warning_needs_response": Dispute.Status.INQUIRY,
    "warning_under_review": Dispute.Status.INQUIRY,
    "warning_closed": Dispute.Status.WON,
}


def sync(payment: Payment, dispute_id: str, *, now: datetime) -> Dispute | None:
    """Bring a dispute to what the network says now; None when it is of another payment."""
    found = stripe.retrieve_dispute(payment.merchant, dispute_id)
    if found.intent_id != payment.intent_id:
        return None
    return apply(payment, found=found, now=now)


@transaction.atomic
def apply(payment: Payment, *, found: stripe.Dispute, now: datetime) -> Dispute:
    """Enter what the network says of a dispute."""
    connection, payment = settlement.lock(payment.pk)
    status = status_of(found)
    row: Dispute | None = Dispute.objects.of(payment.merchant).filter(dispute_id=found.id).first()
    before = row.status if row is not None else ""
    if row is None:
        row = Dispute(
            merchant=payment.merchant,
            payment=payment,
            connection=connection,
            dispute_id=found.id,
            status=Dispute.Status.INQUIRY,
            amount=money.from_minor(found.amount_minor, found.currency),
            reason=found.reason[:64],
            created_at=now,
        )
        row.save()
    if before == status or before in (Dispute.Status.WON, Dispute.Status.LOST):
        # Nothing new; a bank's decision is final.
        return row
    holds_before = before in Dispute.TAKEN_BACK
    holds_now = status in Dispute.TAKEN_BACK
    if holds_now and not holds_before:
        clawback.take_disputed(connection, payment, row, now=now)
    elif holds_before and not holds_now:
        _give_back(connection, payment, row, now=now)
    row.status = status
    if status in (Dispute.Status.WON, Dispute.Status.LOST):
        row.closed_at = now
    row.save()
    if holds_before and not holds_now:
        clawback.take_rest_refunded(connection, payment, now=now)
    _flag(payment, row)
    _tell(connection, payment, row, now=now)
    return row


def status_of(found: stripe.Dispute) -> Dispute.Status:
    """What the network's status means to us."""
    return _STATUS.get(found.status, Dispute.Status.OPEN)


def _give_back(connection: Connection, payment: Payment, row: Dispute, *, now: datetime) -> None:
    clawback.give_back(
        connection, payment, row.taken, reason="Dispute won", actor=clawback.NETWORK, now=now
    )
    row.taken, row.credits_taken, row.debt_made = [], ZERO, ZERO


def _flag(payment: Payment, row: Dispute) -> None:
    """Mark the payment for a person; the mark goes when the dispute is won."""
    mark = "Disputed by the cardholder"
    words = {
        Dispute.Status.INQUIRY: f"{mark}: the bank asks.",
        Dispute.Status.OPEN: f"{mark}: the bank took the money back until it decides.",
        Dispute.Status.LOST: f"{mark}: lost.",
    }.get(Dispute.Status(row.status), "")
    if payment.dispute_flag != words:
        payment.dispute_flag = words
        payment.save(update_fields=["dispute_flag"])


def _tell(connection: Connection, payment: Payment, row: Dispute, *, now: datetime) -> None:
    closed = row.status in (Dispute.Status.WON, Dispute.Status.LOST)
    events.record(
        payment.merchant,
        "payment.dispute_closed" if closed else "payment.disputed",
        now=now,
        connection=connection,
        dispute_id=row.public_id,
        payment_id=payment.public_id,
        status=row.status,
        amount=money.wire(row.amount.amount),
        currency=str(row.amount.currency),
        reason=row.reason,
        credits_taken=money.wire(row.credits_taken),
        debt_made=money.wire(row.debt_made),
    )
