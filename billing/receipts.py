"""Receipts: what the receipt of a payment or a refund says, its address, and the mails about both.

`send`, `send_refund`, `send_action` and `send_declined` are called in the transaction that settles;
the page at `address` is rendered by checkout, its PDF by `billing.receipt_pdf`, both from
`document`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core import signing
from django.template import loader

from billing import errors, money, outbox
from billing.models import Connection, Cycle, Merchant, Payment, Refund

SALT = "billing.receipt"
PAY_SALT = "billing.pay"
CARD_SALT = "billing.card"

Paper = Payment | Refund


@dataclass(frozen=True, slots=True)
class Document:
    """A receipt in words, for page and PDF alike."""

    merchant: Merchant
    number: str
    # "Receipt" or "Refund receipt".
    title: str
    heading: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, str], ...]
    total: tuple[str, str]
    # After the total: credits added, what went back.
    notes: tuple[tuple[str, str], ...]
    issued_at: datetime


def address(paper: Paper) -> str:
    """The absolute address of the receipt's page; whoever has it may read the receipt."""
    return f"{settings.LAVA_BASE_URL}/receipts/{_sign(SALT, paper.pk)}"


def pay_address(payment: Payment) -> str:
    """The absolute address of the page where the customer confirms an off-session charge."""
    return f"{settings.LAVA_BASE_URL}/pay/{_sign(PAY_SALT, payment.pk)}"


def card_address(connection: Connection) -> str:
    """The absolute address where the customer replaces their saved card, after a phone code."""
    return f"{settings.LAVA_BASE_URL}/card/{_sign(CARD_SALT, connection.pk)}"


def find(token: str) -> Paper:
    """The payment or refund of a receipt's address.

    Raises:
        billing.errors.NotFound: the token is not ours, or no money moved.
    """
    key = unsign(SALT, token)
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
    if payment is not None:
        return payment
    refund: Refund | None = (
        Refund.objects.filter(pk=key, status=Refund.Status.SUCCEEDED)
        .select_related(
            "merchant__organization", "connection__customer", "payment__plan", "payment__bundle"
        )
        .first()
    )
    if refund is None:
        raise errors.NotFound("There is no such receipt.")
    return refund


def find_action(token: str) -> Payment:
    """The off-session charge of a link (`pay_address`).

    Raises:
        billing.errors.NotFound: the token is not ours.
    """
    row: Payment | None = (
        Payment.objects.filter(pk=unsign(PAY_SALT, token), off_session=True)
        .select_related("merchant__organization", "connection__customer", "plan", "bundle")
        .first()
    )
    if row is None:
        raise errors.NotFound("There is no such payment.")
    return row


def find_connection(token: str) -> Connection:
    """The connection of a link to its card (`card_address`).

    Raises:
        billing.errors.NotFound: the token is not ours, or the connection is deleted.
    """
    row: Connection | None = (
        Connection.objects.visible()
        .filter(pk=unsign(CARD_SALT, token))
        .select_related("merchant__organization", "customer")
        .first()
    )
    if row is None:
        raise errors.NotFound("There is no such customer.")
    return row


def unsign(salt: str, token: str) -> UUID:
    """The key in one of our addresses.

    Raises:
        billing.errors.NotFound: it was not made by us.
    """
    try:
        return UUID(signing.Signer(salt=salt).unsign(token))
    except (signing.BadSignature, ValueError) as error:
        raise errors.NotFound("There is nothing here.") from error


def _sign(salt: str, key: UUID) -> str:
    return signing.Signer(salt=salt).sign(key.hex)


def document(paper: Paper) -> Document:
    """The receipt of a settled payment or refund, in words."""
    return _of_refund(paper) if isinstance(paper, Refund) else _of_payment(paper)


def _of_payment(payment: Payment) -> Document:
    merchant, currency = payment.merchant, str(payment.amount.currency)
    settled = payment.settled_at
    assert settled is not None
    paid = amount(payment)
    bought = what(payment)
    facts = _billed_to(payment.connection)
    facts += [
        ("Receipt", payment.receipt_number),
        ("Paid", local_date(settled, merchant.time_zone)),
    ]
    if payment.card is not None:
        facts.append(("Card", str(payment.card)))
    lead = bought
    cycle = Cycle.objects.filter(payment=payment).first()
    if cycle is not None:
        start, end = (local_date(t, merchant.time_zone) for t in (cycle.start, cycle.end))
        lead = f"{bought}, {start} to {end}"
    notes: list[tuple[str, str]] = []
    granted = sum((grant.amount for grant in payment.grants.all()), start=Decimal(0))
    if granted:
        notes.append(("Credits added", money.display(granted, currency)))
    for refund in payment.refunds.filter(status=Refund.Status.SUCCEEDED).order_by("settled_at"):
        assert refund.settled_at is not None
        day = local_date(refund.settled_at, merchant.time_zone)
        notes.append((f"Refunded {day}", amount(refund)))
    return Document(
        merchant=merchant,
        number=payment.receipt_number,
        title="Receipt",
        heading=f"{paid} paid",
        lead=lead,
        facts=tuple(facts),
        lines=((bought, paid),),
        total=("Total paid", paid),
        notes=tuple(notes),
        issued_at=settled,
    )


def _of_refund(refund: Refund) -> Document:
    merchant, payment = refund.merchant, refund.payment
    settled = refund.settled_at
    assert settled is not None
    given = amount(refund)
    facts = _billed_to(refund.connection)
    facts += [
        ("Receipt", refund.receipt_number),
        ("Refunded", local_date(settled, merchant.time_zone)),
        ("Of receipt", payment.receipt_number),
    ]
    if payment.card is not None:
        facts.append(("To", str(payment.card)))
    notes: list[tuple[str, str]] = []
    taken = refund.credits_taken + refund.debt_made
    if taken:
        notes.append(("Credits taken back", money.display(taken, str(refund.amount.currency))))
    return Document(
        merchant=merchant,
        number=refund.receipt_number,
        title="Refund receipt",
        heading=f"{given} refunded",
        lead=f"{what(payment)}. It reaches the card within 5 to 10 days.",
        facts=tuple(facts),
        lines=((f"{what(payment)}, paid {amount(payment)}", f"{money.MINUS}{given}"),),
        total=("Total refunded", given),
        notes=tuple(notes),
        issued_at=settled,
    )


def _billed_to(connection: Connection) -> list[tuple[str, str]]:
    customer = connection.customer
    return [("Billed to", customer.name or customer.masked_phone)]


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


def local_moment(moment: datetime, zone: str) -> str:
    """An instant in the merchant's zone, e.g. October 14, 2026, 09:30 CEST."""
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local_date(moment, zone)}, {local:%H:%M} {local.tzname()}"


def amount(paper: Paper) -> str:
    return money.display(paper.amount.amount, str(paper.amount.currency))


def send(payment: Payment, *, now: datetime) -> None:
    """Owe the customer the mail with the receipt; without an address nothing is owed."""
    card = f"Paid with {payment.card}.\n" if payment.card is not None else ""
    _mail(
        payment.merchant,
        payment.connection,
        subject=f"Receipt {payment.receipt_number} from {payment.merchant.name}: {amount(payment)}",
        body=(
            f"{payment.merchant.name} charged {amount(payment)} on "
            f"{local_date(now, payment.merchant.time_zone)} for {what(payment)}.\n"
            f"{card}\n"
            f"Your receipt: {address(payment)}\n"
            f"As PDF: {address(payment)}.pdf\n"
        ),
        page=_receipt_page(payment),
        now=now,
    )


def send_refund(refund: Refund, *, now: datetime) -> None:
    """Owe the customer the mail with the receipt of a refund."""
    payment, merchant = refund.payment, refund.payment.merchant
    card = str(payment.card) if payment.card is not None else "your card"
    taken = refund.credits_taken + refund.debt_made
    credits = money.display(taken, str(refund.amount.currency))
    _mail(
        merchant,
        payment.connection,
        subject=f"Refund {refund.receipt_number} from {merchant.name}: {amount(refund)}",
        body=(
            f"{merchant.name} refunded {amount(refund)} of the {amount(payment)} you paid for "
            f"{what(payment)}. It goes to {card}; banks take 5 to 10 days.\n"
            + (f"{credits} of credits were taken back with it.\n" if taken else "")
            + f"\nYour receipt: {address(refund)}\nAs PDF: {address(refund)}.pdf\n"
        ),
        page=_receipt_page(refund),
        now=now,
    )


def send_action(payment: Payment, *, now: datetime) -> None:
    """Owe the customer the mail whose link confirms a charge their bank asks about."""
    merchant = payment.merchant
    card = str(payment.connection.card or "your card")
    assert payment.action_until is not None
    until = local_moment(payment.action_until, merchant.time_zone)
    asks = (
        f"Your bank wants you to confirm {amount(payment)} for {what(payment)} on {card}. "
        "Nothing was charged yet."
    )
    _mail(
        merchant,
        payment.connection,
        subject=f"Confirm your payment of {amount(payment)} to {merchant.name}",
        body=(
            f"{asks}\n\n"
            f"Confirm it by {until}: {pay_address(payment)}\n\n"
            "You can pay with another card there too.\n"
        ),
        page={
            "heading": f"Confirm {amount(payment)}",
            "lead": asks,
            "text": f"Confirm it by {until}. You can pay with another card there too.",
            "url": pay_address(payment),
            "action": f"Confirm {amount(payment)}",
        },
        now=now,
    )


def send_declined(payment: Payment, *, now: datetime) -> None:
    """Owe the customer the one mail that says a charge did not go through."""
    if not payment.off_session:
        return
    merchant = payment.merchant
    card = str(payment.connection.card or "your card")
    day = local_date(now, merchant.time_zone)
    said = f"{amount(payment)} for {what(payment)} was declined on {day}. Nothing was charged."
    mend = (
        "We will try again in the next days. Check that the card is valid and has enough funds, or "
        "use another one"
    )
    _mail(
        merchant,
        payment.connection,
        subject=f"{merchant.name} could not charge {card}",
        body=f"{said}\n\n{mend}: {card_address(payment.connection)}\n",
        page={
            "heading": f"{card[:1].upper()}{card[1:]} was declined",
            "lead": said,
            "text": f"{mend}.",
            "url": card_address(payment.connection),
            "action": "Use another card",
        },
        now=now,
    )


def _receipt_page(paper: Paper) -> dict[str, Any]:
    """What the mail of a receipt shows."""
    receipt = document(paper)
    return {
        "receipt": receipt,
        "heading": receipt.heading,
        "lead": receipt.lead,
        "url": address(paper),
        "action": "View receipt",
        "second_url": f"{address(paper)}.pdf",
        "second": "Save as PDF",
    }


def _mail(
    merchant: Merchant,
    connection: Connection,
    *,
    subject: str,
    body: str,
    page: dict[str, Any],
    now: datetime,
) -> None:
    """Owe a mail as text and as the page that mail readers show."""
    customer = connection.customer
    if not customer.email:
        return
    organization = merchant.organization
    shown = page | {
        "subject": subject,
        "merchant": merchant.name,
        "sandbox": merchant.is_sandbox,
        "brand_color": organization.brand_color,
        "support": organization.support_email,
    }
    template = "mail/receipt.html" if "receipt" in page else "mail/notice.html"
    outbox.mail(
        merchant,
        to=customer.email,
        subject=subject[:200],
        body=f"Hello {customer.first_name or 'there'},\n\n{body}",
        html=loader.render_to_string(template, shown),
        now=now,
    )
