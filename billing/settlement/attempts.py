"""The log of a payment's tries, and the events that tell of them."""

from __future__ import annotations

from datetime import datetime

from billing import events, money
from billing.models import Connection, Payment, PaymentAttempt


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


def tell(
    connection: Connection, payment: Payment, name: str, *, now: datetime, **more: str
) -> None:
    """Record an event of a payment: which it is, what for, how much, and what `more` says."""
    events.record(
        payment.merchant,
        name,
        now=now,
        connection=connection,
        payment_id=payment.public_id,
        purpose=payment.purpose,
        amount=money.wire(payment.amount.amount),
        currency=str(payment.amount.currency),
        **more,
    )
