"""The log of a payment's tries."""

from __future__ import annotations

from datetime import datetime

from billing.models import Payment, PaymentAttempt


def note(payment: Payment, *, code: str = "", message: str = "", now: datetime) -> None:
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
