"""What stays of a payment: the card it was made with, and the number of its receipt."""

from __future__ import annotations

from datetime import datetime

from django.db.models import F

from billing.models import Connection, Merchant, Payment, PaymentMethod, Subscription
from billing.stripe import Card


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
    Subscription.objects.current().filter(
        connection=connection, top_up_attempts__gt=0, top_up_next_attempt_at__gt=now
    ).update(top_up_next_attempt_at=now)
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
