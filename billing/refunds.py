"""Refunds: an intent row that takes the credits, then the network, then the settlement.

`preview` says what a refund would do; `refund` does it. The credits are taken with the intent,
before the network is asked, so that nobody spends them meanwhile; a refund that fails gives them
back. `settle` is shared by the answer to our own call, by the webhook and by `billing.reconcile`,
in any order and any number of times; a refund made in the network's own dashboard is taken in by
it. Locks: connection, then payment; no network in between. Called by the console and the API.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from moneyed import Money

from billing import clawback, errors, events, ids, ledger, money, receipts, settlement, stripe
from billing.models import Connection, Dispute, Payment, Refund
from billing.payments import KEY_MEMORY

NETWORK = "Card network"
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a refund would do, and how far one can go. All in the connection's currency."""

    # Money that goes back to the card.
    amount: Decimal
    # Credits taken out of what is left, and what becomes debt because it was spent.
    credits_taken: Decimal
    debt_made: Decimal
    # The most that goes back as things stand: the unspent share of the price; and with force.
    refundable: Decimal
    most: Decimal
    # What the payment bought, and what of it is unspent.
    granted: Decimal
    left: Decimal
    currency: str


def preview(payment: Payment, *, amount: Decimal | None = None, force: bool = False) -> Preview:
    """What a refund of `amount` would do now; without one, of all that can go back.

    Raises:
        billing.errors.Refused, Invalid: as `refund`.
    """
    payment = Payment.objects.get(pk=payment.pk)
    currency = str(payment.amount.currency)
    granted, left = clawback.granted(payment), clawback.left(payment)
    most = payment.amount.amount - payment.refunded
    refundable = most
    if granted:
        share = Fraction(payment.amount.amount) * Fraction(left) / Fraction(granted)
        refundable = min(most, money.floor_minor(money.round_fee(share), currency))
    if amount is None:
        amount = most if force else refundable
    _check(payment, amount, most=most, refundable=refundable, force=force)
    due = clawback.due(payment, amount)
    if not force and amount == refundable:
        # All that can go back takes all that is left: no dust stays behind.
        due = min(max(due, left), granted)
    taken = min(due, left)
    return Preview(
        amount=amount,
        credits_taken=taken,
        debt_made=due - taken,
        refundable=refundable,
        most=most,
        granted=granted,
        left=left,
        currency=currency,
    )


def refund(
    payment: Payment,
    *,
    amount: Money | None = None,
    reason: str,
    actor: str,
    key: str,
    now: datetime,
    force: bool = False,
) -> Refund:
    """Give money back to the card, and take back the credits it bought.

    Without `amount`: the unspent share of the price. More than that only with `force`: what was
    spent becomes debt, and the refund is flagged. Overage bought no credits; a refund of it
    forgives that usage. The same key again is the same refund.

    Raises:
        billing.errors.Invalid: no positive amount the card can get, another currency, no reason.
        billing.errors.Refused: nothing was paid, it is disputed (`payment_disputed`), more than
            was paid (`more_than_paid`), or the credits are spent (`credits_spent`).
        billing.errors.Conflict: the key was used with other terms.
    """
    row = intend(payment, amount=amount, reason=reason, actor=actor, key=key, now=now, force=force)
    return send(row, now=now)


@transaction.atomic
def intend(
    payment: Payment,
    *,
    amount: Money | None,
    reason: str,
    actor: str,
    key: str,
    now: datetime,
    force: bool = False,
) -> Refund:
    """Write the row of a refund about to be made, and take its credits. Raises as `refund`."""
    connection, payment = settlement.lock(payment.pk)
    made: Refund | None = Refund.objects.of(payment.merchant).filter(key=key).first()
    if made is not None:
        if made.payment_id != payment.pk or (amount is not None and made.amount != amount):
            raise errors.Conflict("That refund was begun with other terms.")
        return made
    if not reason.strip():
        raise errors.Invalid("Say why the money goes back.", param="reason")
    if not actor.strip():
        raise errors.Invalid("Say who gives the money back.", param="actor")
    if amount is not None and amount.currency != payment.amount.currency:
        raise errors.Invalid(f"This was paid in {payment.amount.currency}.", param="currency")
    plan = preview(payment, amount=amount.amount if amount is not None else None, force=force)
    row = Refund(
        merchant=payment.merchant,
        payment=payment,
        connection=connection,
        amount=Money(plan.amount, plan.currency),
        key=key,
        reason=reason.strip()[:255],
        actor=actor.strip()[:255],
        forced=force,
        created_at=now,
    )
    row.save()
    _take(connection, row, credits=plan.credits_taken + plan.debt_made, now=now)
    return row


def send(row: Refund, *, now: datetime) -> Refund:
    """Ask the network for a refund that was intended. Made twice it is one: its key is the row."""
    row = _fresh(row.pk)
    if row.status not in (Refund.Status.PENDING, Refund.Status.UNKNOWN) or row.refund_id:
        return row
    Refund.objects.filter(pk=row.pk).update(asked_at=timezone.now())
    try:
        found = stripe.create_refund(row)
    except (errors.Refused, errors.CardDeclined) as refusal:
        return fail(row.pk, code=refusal.code, message=refusal.message, now=now)
    except (errors.CardUnknown, errors.Unavailable):
        return _mark_unknown(row)
    return settle(row.pk, found=found, now=now)


def refresh(row: Refund, *, now: datetime) -> Refund:
    """Ask the network what became of a refund, and settle it. Never refunds anew.

    One whose answer was lost is looked for by our id in the network's list; not there, it is asked
    for again with its own key while the network remembers keys, and failed after that.
    """
    row = _fresh(row.pk)
    if not row.is_open:
        return row
    try:
        if row.refund_id:
            found = stripe.retrieve_refund(row.merchant, row.refund_id)
            return settle(row.pk, found=found, now=now)
        if row.asked_at is not None:
            for there in stripe.list_refunds(row.merchant, intent_id=row.payment.intent_id):
                if there.our_id == row.public_id:
                    return settle(row.pk, found=there, now=now)
    except errors.CardUnknown:
        return _mark_unknown(row)
    if row.asked_at is None or timezone.now() - ids.made_at(row.pk) < KEY_MEMORY:
        return send(row, now=now)
    return fail(
        row.pk, code="never_reached", message="The card network has no such refund.", now=now
    )


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
        actor=NETWORK,
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
    _take(connection, row, credits=clawback.due(payment, said.amount), now=now)
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


def sync(payment: Payment, *, now: datetime) -> None:
    """Bring all refunds of a payment to what the network says now; for its webhooks."""
    open_rows = Refund.objects.filter(payment=payment, status__in=Refund.OPEN)
    late: list[stripe.Refund] = []
    for found in stripe.list_refunds(payment.merchant, intent_id=payment.intent_id):
        try:
            take_in(payment, found=found, now=now)
        except errors.Conflict:
            late.append(found)
    if late:
        for row in open_rows:
            refresh(row, now=now)
        for found in late:
            take_in(payment, found=found, now=now)


def _check(
    payment: Payment, amount: Decimal, *, most: Decimal, refundable: Decimal, force: bool
) -> None:
    currency = str(payment.amount.currency)
    if not amount.is_finite() or amount < 0:
        raise errors.Invalid("Give an amount above 0.", param="amount")
    if payment.status != Payment.Status.SUCCEEDED:
        raise errors.Refused("Nothing was paid here: there is nothing to give back.")
    if payment.disputes.filter(status__in=(Dispute.Status.OPEN, Dispute.Status.LOST)).exists():
        raise errors.Refused(
            "The customer disputed this payment: the bank decides where its money goes.",
            code="payment_disputed",
        )
    if most <= 0:
        raise errors.Refused("All of it went back already.", code="already_refunded")
    if amount > most:
        raise errors.Refused(
            f"At most {money.display(most, currency)} of this payment can go back.",
            code="more_than_paid",
            param="amount",
        )
    if not force and amount > refundable:
        raise errors.Refused(
            f"Its credits are spent but for {money.display(refundable, currency)}. More can go "
            "back by force: what was spent becomes debt.",
            code="credits_spent",
            param="amount",
        )
    if amount <= 0 or not money.is_whole_minor(amount, currency):
        if amount == refundable:
            raise errors.Refused(
                "All of its credits are spent. Money can go back by force: what was spent becomes "
                "debt.",
                code="credits_spent",
            )
        raise errors.Invalid(
            f"Give an amount above 0 that a card can get in {currency}.", param="amount"
        )


def _take(connection: Connection, row: Refund, *, credits: Decimal, now: datetime) -> None:
    """Set the money aside in the payment, and take the credits."""
    Payment.objects.filter(pk=row.payment_id).update(refunded=F("refunded") + row.amount.amount)
    row.payment.refunded += row.amount.amount
    if credits > 0:
        taken = clawback.take(
            connection,
            row.payment,
            amount=credits,
            reason=f"Refund of {money.show(row.amount)}: {row.reason}",
            actor=row.actor,
            now=now,
        )
        row.taken, row.credits_taken, row.debt_made = taken.stored(), taken.credits, taken.debt
    if row.debt_made > 0:
        owed = money.display(row.debt_made, connection.currency)
        row.flag = f"{owed} of its credits was spent already and became debt."
    row.save()


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


def _revive(connection: Connection, row: Refund, *, now: datetime) -> None:
    """One that was given up turns out to be made: its credits are taken after all."""
    if row.payment.refunded + row.amount.amount > row.payment.amount.amount:
        raise errors.Conflict(
            "Another refund of this payment is under way.", code="refund_under_way"
        )
    row.status = Refund.Status.UNKNOWN
    _take(connection, row, credits=clawback.due(row.payment, row.amount.amount), now=now)


def _mark_unknown(row: Refund) -> Refund:
    Refund.objects.filter(pk=row.pk, status=Refund.Status.PENDING).update(
        status=Refund.Status.UNKNOWN
    )
    Refund.objects.filter(pk=row.pk, status__in=Refund.OPEN).update(asked_at=timezone.now())
    return _fresh(row.pk)


def _lock(refund_id: UUID) -> tuple[Connection, Refund]:
    payment_id = Refund.objects.values_list("payment_id", flat=True).get(pk=refund_id)
    connection, payment = settlement.lock(payment_id)
    row: Refund = Refund.objects.get(pk=refund_id)
    row.payment = payment
    return connection, row


def _fresh(refund_id: UUID) -> Refund:
    row: Refund = Refund.objects.select_related("merchant", "payment__merchant__organization").get(
        pk=refund_id
    )
    return row
