"""Receipts: what a payment's receipt says, its address, and the mails about payments.

`send` and `send_declined` are called by `billing.settlement` in the settling transaction; the page
at `address` is rendered by checkout.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core import signing

from billing import errors, money, outbox
from billing.models import Payment

SALT = "billing.receipt"


def address(payment: Payment) -> str:
    """The absolute address of the receipt's page; whoever has it may read the receipt."""
    token = signing.Signer(salt=SALT).sign(payment.pk.hex)
    return f"{settings.LAVA_BASE_URL}/receipts/{token}"


def find(token: str) -> Payment:
    """The payment of a receipt's address.

    Raises:
        billing.errors.NotFound: the token is not ours, or nothing was paid.
    """
    try:
        key = UUID(signing.Signer(salt=SALT).unsign(token))
    except (signing.BadSignature, ValueError) as error:
        raise errors.NotFound("There is no such receipt.") from error
    payment: Payment | None = (
        Payment.objects.filter(pk=key, status=Payment.Status.SUCCEEDED)
        .select_related(
            "merchant__organization",
            "connection__customer",
            "plan",
            "bundle",
            "card",
            "subscription__plan",
        )
        .first()
    )
    if payment is None:
        raise errors.NotFound("There is no such receipt.")
    return payment


def what(payment: Payment) -> str:
    """What was paid for, in the words of a receipt."""
    if payment.plan is not None and payment.purpose != Payment.Purpose.OVERAGE:
        return f"{payment.plan.name} plan"
    if payment.purpose == Payment.Purpose.OVERAGE:
        return "Usage past this month's credits"
    name = payment.bundle.name if payment.bundle is not None else "Credits"
    return name if payment.quantity == 1 else f"{payment.quantity} \u00d7 {name}"


def local_date(moment: datetime, zone: str) -> str:
    """A date in full in the merchant's zone, e.g. October 14, 2026."""
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local:%B} {local.day}, {local.year}"


def amount(payment: Payment) -> str:
    return money.display(payment.amount.amount, str(payment.amount.currency))


def send(payment: Payment, *, now: datetime) -> None:
    """Owe the customer the mail with the receipt; without an address nothing is owed."""
    customer = payment.connection.customer
    if not customer.email:
        return
    merchant = payment.merchant
    card = f"Paid with {payment.card}.\n" if payment.card is not None else ""
    outbox.mail(
        merchant,
        to=customer.email,
        subject=f"Receipt {payment.receipt_number} from {merchant.name}: {amount(payment)}",
        body=(
            f"Hello {customer.first_name or 'there'},\n\n"
            f"{merchant.name} charged {amount(payment)} on "
            f"{local_date(now, merchant.time_zone)} for {what(payment)}.\n"
            f"{card}\n"
            f"Your receipt: {address(payment)}\n"
        ),
        now=now,
    )


def send_declined(payment: Payment, *, now: datetime) -> None:
    """Owe the customer the one mail that says a charge did not go through."""
    customer = payment.connection.customer
    if not customer.email or not payment.off_session:
        return
    merchant = payment.merchant
    card = str(payment.connection.card or "your card")
    outbox.mail(
        merchant,
        to=customer.email,
        subject=f"{merchant.name} could not charge {card}",
        body=(
            f"Hello {customer.first_name or 'there'},\n\n"
            f"{amount(payment)} for {what(payment)} was declined on "
            f"{local_date(now, merchant.time_zone)}. Nothing was charged.\n\n"
            "We will try again in the next days. Check that the card is valid and has enough "
            f"funds, or write to {merchant.name} to use another one.\n"
        ),
        now=now,
    )
