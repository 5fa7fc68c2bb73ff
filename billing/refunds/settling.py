"""What the network's answer to a refund does to the books, exactly once.

Called with what the network says, by the answer to our own call, the webhook and the reconciliation
alike. Locks: connection, then payment, then the merchant's receipt counter; no network in between.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import F

from billing import (
    clawback,
    credits,
    errors,
    events,
    failpoints,
    ids,
    ledger,
    money,
    receipts,
    settlement,
    stripe,
)
from billing.models import Connection, Payment, Refund

ZERO = Decimal(0)


@transaction.atomic
def settle(refund_id: UUID, *, found: stripe.Refund, now: datetime) -> Refund:
    """Bring a refund to what the network says of it."""
    connection, row = _lock(refund_id)
    row.refund_id = row.refund_id or found.id
    said = money.from_minor(found.amount_minor, found.currency)
    if said != row.amount:
        # Money moved, but not what was asked: a person has to look.
        row.flag = f"The card network gave back {money.show(said)}, not {money.show(row.amount)}."
    if found.status in ("failed", "canceled"):
        if row.status != Refund.Status.FAILED:
            _fail(connection, row, code=found.failure or found.status, message="", now=now)
    elif found.status == "succeeded":
        if row.status == Refund.Status.FAILED:
            _revive(connection, row, now=now)
        if row.status != Refund.Status.SUCCEEDED:
            _succeed(connection, row, now=now)
    elif row.status != Refund.Status.SUCCEEDED:
        if row.status == Refund.Status.FAILED:
            _revive(connection, row, now=now)
        row.status = Refund.Status.SENT
    row.save()
    failpoints.at("refund.settling")
    return row


@transaction.atomic
def fail(refund_id: UUID, *, code: str, message: str, now: datetime) -> Refund:
    """Record that a refund was refused and no money went back: its credits are given back."""
    connection, row = _lock(refund_id)
    if row.is_open:
        _fail(connection, row, code=code, message=message, now=now)
        row.save()
    return row


@transaction.atomic
def take_in(payment: Payment, *, found: stripe.Refund, now: datetime) -> Refund:
    """Enter a refund that somebody made in the network's dashboard. Its money is gone: what was
    spent of its credits becomes debt, and it is flagged."""
    connection, payment = settlement.lock(payment.pk)
    known: Refund | None = Refund.objects.of(payment.merchant).filter(refund_id=found.id).first()
    if known is None and found.our_id:
        known = (
            Refund.objects.of(payment.merchant)
            .filter(payment=payment, pk=ids.parse(Refund.ID_PREFIX, found.our_id))
            .first()
        )
    if known is not None:
        return settle(known.pk, found=found, now=now)
    said = money.from_minor(found.amount_minor, found.currency)
    most = payment.amount.amount - payment.refunded
    row = Refund(
        merchant=payment.merchant,
        payment=payment,
        connection=connection,
        amount=said,
        key=f"network:{found.id}",
        reason="Made in the card network's dashboard",
        actor=clawback.NETWORK,
        forced=True,
        refund_id=found.id,
        created_at=now,
    )
    if found.status in ("failed", "canceled") or said.currency != payment.amount.currency:
        row.status = Refund.Status.FAILED
        row.failure_code = found.failure or found.status
        row.save()
        return row
    if said.amount > most:
        # One of our own is under way and the network took this one first: ours will be refused.
        raise errors.Conflict(
            "Another refund of this payment is under way.", code="refund_under_way"
        )
    row.save()
    take(connection, row, credits=clawback.due(payment, said.amount), now=now)
    return settle(row.pk, found=found, now=now)


@transaction.atomic
def flag(refund_id: UUID, reason: str) -> bool:
    """Mark a refund for a person, once; whether it was not marked so before."""
    _, row = _lock(refund_id)
    if row.flag == reason[:255]:
        return False
    row.flag = reason[:255]
    row.save(update_fields=["flag"])
    return True


def take(connection: Connection, row: Refund, *, credits: Decimal, now: datetime) -> None:
    """Set the money aside in the payment, and take the credits."""
    Payment.objects.filter(pk=row.payment_id).update(refunded=F("refunded") + row.amount.amount)
    row.payment.refunded += row.amount.amount
    if credits > 0:
        clawback.take_refunded(connection, row, amount=credits, now=now)


def _succeed(connection: Connection, row: Refund, *, now: datetime) -> None:
    row.status = Refund.Status.SUCCEEDED
    row.settled_at = now
    row.failure_code = row.failure_message = ""
    row.receipt_number = row.receipt_number or settlement.next_receipt(row.payment.merchant)
    if row.payment.purpose == Payment.Purpose.OVERAGE and not row.payment.flag:
        _forgive(connection, row, sign=1, now=now)
    events.record(
        row.payment.merchant,
        "payment.refunded",
        now=now,
        connection=connection,
        refund_id=row.public_id,
        payment_id=row.payment.public_id,
        amount=money.wire(row.amount.amount),
        currency=str(row.amount.currency),
        credits_taken=money.wire(row.credits_taken),
        debt_made=money.wire(row.debt_made),
        reason=row.reason,
    )
    receipts.send_refund(row, now=now)


def _forgive(connection: Connection, row: Refund, *, sign: int, now: datetime) -> None:
    """A refund of overage: what the card had paid is owed again, and forgiven in the same breath,
    so that both are seen and nothing is charged anew."""
    credits.expire(connection, now=now)
    for kind, amount in (("clawback", -sign), ("adjust", sign)):
        ledger.append(
            connection,
            kind=kind,
            amount=amount * row.amount.amount,
            payment_id=row.payment_id,
            reason=f"Refund of {money.show(row.amount)}: {row.reason}"[:255],
            actor=row.actor,
            now=now,
        )


def _fail(connection: Connection, row: Refund, *, code: str, message: str, now: datetime) -> None:
    if row.status == Refund.Status.SUCCEEDED:
        row.flag = "The bank sent this refund back: the customer did not get the money."
    row.status = Refund.Status.FAILED
    row.failure_code, row.failure_message = code[:64], message[:255]
    Payment.objects.filter(pk=row.payment_id).update(refunded=F("refunded") - row.amount.amount)
    row.payment.refunded -= row.amount.amount
    clawback.give_back(
        connection,
        row.payment,
        row.taken,
        reason="The refund failed",
        actor=row.actor,
        now=now,
    )
    row.taken, row.credits_taken, row.debt_made = [], ZERO, ZERO
    events.record(
        row.payment.merchant,
        "payment.refund_failed",
        now=now,
        connection=connection,
        refund_id=row.public_id,
        payment_id=row.payment.public_id,
        amount=money.wire(row.amount.amount),
        currency=str(row.amount.currency),
        code=row.failure_code,
    )
    row.save()
    clawback.take_rest(connection, row.payment, now=now)


def _revive(connection: Connection, row: Refund, *, now: datetime) -> None:
    """One that was given up turns out to be made: its credits are taken after all."""
    if row.payment.refunded + row.amount.amount > row.payment.amount.amount:
        raise errors.Conflict(
            "Another refund of this payment is under way.", code="refund_under_way"
        )
    row.status = Refund.Status.UNKNOWN
    take(connection, row, credits=clawback.due(row.payment, row.amount.amount), now=now)


def _lock(refund_id: UUID) -> tuple[Connection, Refund]:
    payment_id = Refund.objects.values_list("payment_id", flat=True).get(pk=refund_id)
    connection, payment = settlement.lock(payment_id)
    row: Refund = Refund.objects.get(pk=refund_id)
    row.payment = payment
    return connection, row
