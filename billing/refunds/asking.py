"""Asking for a refund: the intent that takes its credits, the call, and what became of it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from moneyed import Money

from billing import credits, errors, failpoints, ids, settlement, stripe
from billing.models import Payment, Refund
from billing.payments import KEY_MEMORY
from billing.refunds import previews, settling


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
    # Credits that are over are spent: without force, no debt is made of them.
    credits.expire(connection, now=now)
    plan = previews.preview(
        payment, amount=amount.amount if amount is not None else None, force=force
    )
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
    settling.take(connection, row, credits=plan.credits_taken + plan.debt_made, now=now)
    return row


def send(row: Refund, *, now: datetime) -> Refund:
    """Ask the network for a refund that was intended. Made twice it is one: its key is the row."""
    row = _fresh(row.pk)
    if row.status not in (Refund.Status.PENDING, Refund.Status.UNKNOWN) or row.refund_id:
        return row
    failpoints.at("refund.intended")
    Refund.objects.filter(pk=row.pk).update(asked_at=timezone.now())
    try:
        found = stripe.create_refund(row)
    except (errors.Refused, errors.CardDeclined) as refusal:
        return settling.fail(row.pk, code=refusal.code, message=refusal.message, now=now)
    except (errors.CardUnknown, errors.Unavailable):
        return _mark_unknown(row)
    failpoints.at("refund.sent")
    settled = settling.settle(row.pk, found=found, now=now)
    failpoints.at("refund.settled")
    return settled


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
            return settling.settle(row.pk, found=found, now=now)
        if row.asked_at is not None:
            for there in stripe.list_refunds(row.merchant, intent_id=row.payment.intent_id):
                if there.our_id == row.public_id:
                    return settling.settle(row.pk, found=there, now=now)
    except errors.CardUnknown:
        return _mark_unknown(row)
    if row.asked_at is None or timezone.now() - ids.made_at(row.pk) < KEY_MEMORY:
        return send(row, now=now)
    return settling.fail(
        row.pk, code="never_reached", message="The card network has no such refund.", now=now
    )


def sync(payment: Payment, *, now: datetime) -> None:
    """Bring all refunds of a payment to what the network says now; for its webhooks."""
    open_rows = Refund.objects.filter(payment=payment, status__in=Refund.OPEN)
    late: list[stripe.Refund] = []
    for found in stripe.list_refunds(payment.merchant, intent_id=payment.intent_id):
        try:
            settling.take_in(payment, found=found, now=now)
        except errors.Conflict:
            late.append(found)
    if late:
        for row in open_rows:
            refresh(row, now=now)
        for found in late:
            settling.take_in(payment, found=found, now=now)


def _mark_unknown(row: Refund) -> Refund:
    Refund.objects.filter(pk=row.pk, status=Refund.Status.PENDING).update(
        status=Refund.Status.UNKNOWN
    )
    Refund.objects.filter(pk=row.pk, status__in=Refund.OPEN).update(asked_at=timezone.now())
    return _fresh(row.pk)


def _fresh(refund_id: UUID) -> Refund:
    row: Refund = Refund.objects.select_related("merchant", "payment__merchant__organization").get(
        pk=refund_id
    )
    return row
