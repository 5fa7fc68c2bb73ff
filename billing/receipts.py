"""Receipts: what the receipt of a payment or a refund says, its address, and the mails about both.

`send`, `send_refund`, `send_action` and `send_declined` are called in the transaction that settles;
the page at `address` is rendered by checkout, its PDF by `billing.receipt_pdf`, both from
`document`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.utils.translation import gettext

from billing import errors, letters, locales, mails, money
from billing.models import Connection, Cycle, Dispute, Merchant, Payment, PaymentMethod, Refund

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
        (gettext("Receipt"), payment.receipt_number),
        (gettext("Paid"), local_date(settled, merchant.time_zone)),
    ]
    if payment.card is not None:
        facts.append((gettext("Card"), str(payment.card)))
    lead = bought
    cycle = Cycle.objects.filter(payment=payment).first()
    if cycle is not None:
        start, end = (local_date(t, merchant.time_zone) for t in (cycle.start, cycle.end))
        lead = gettext("{what}, {start} to {end}").format(what=bought, start=start, end=end)
    notes: list[tuple[str, str]] = []
    granted = sum((grant.amount for grant in payment.grants.all()), start=Decimal(0))
    if granted:
        notes.append((gettext("Credits added"), money.display(granted, currency)))
    for refund in payment.refunds.filter(status=Refund.Status.SUCCEEDED).order_by("settled_at"):
        assert refund.settled_at is not None
        day = local_date(refund.settled_at, merchant.time_zone)
        notes.append((gettext("Refunded {date}").format(date=day), amount(refund)))
    return Document(
        merchant=merchant,
        number=payment.receipt_number,
        title=gettext("Receipt"),
        heading=gettext("{amount} paid").format(amount=paid),
        lead=lead,
        facts=tuple(facts),
        lines=((bought, paid),),
        total=(gettext("Total paid"), paid),
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
        (gettext("Receipt"), refund.receipt_number),
        (gettext("Refunded"), local_date(settled, merchant.time_zone)),
        (gettext("Of receipt"), payment.receipt_number),
    ]
    if payment.card is not None:
        facts.append((gettext("To"), str(payment.card)))
    notes: list[tuple[str, str]] = []
    taken = refund.credits_taken + refund.debt_made
    if taken:
        back = money.display(taken, str(refund.amount.currency))
        notes.append((gettext("Credits taken back"), back))
    return Document(
        merchant=merchant,
        number=refund.receipt_number,
        title=gettext("Refund receipt"),
        heading=gettext("{amount} refunded").format(amount=given),
        lead=gettext("{what}. It reaches the card within 5 to 10 days.").format(what=what(payment)),
        facts=tuple(facts),
        lines=(
            (
                gettext("{what}, paid {amount}").format(what=what(payment), amount=amount(payment)),
                f"{money.MINUS}{given}",
            ),
        ),
        total=(gettext("Total refunded"), given),
        notes=tuple(notes),
        issued_at=settled,
    )


def _billed_to(connection: Connection) -> list[tuple[str, str]]:
    customer = connection.customer
    return [(gettext("Billed to"), customer.name or customer.masked_phone)]


def what(payment: Payment) -> str:
    """What was paid for, in the words of a receipt."""
    if payment.plan is not None and payment.purpose != Payment.Purpose.OVERAGE:
        return gettext("{plan} plan").format(plan=payment.plan.name)
    if payment.purpose == Payment.Purpose.OVERAGE:
        return gettext("Usage past your credits")
    name = payment.bundle.name if payment.bundle is not None else gettext("Credits")
    return name if payment.quantity == 1 else f"{payment.quantity} \u00d7 {name}"


def local_date(moment: datetime, zone: str) -> str:
    """A date in full in the merchant's zone, e.g. October 14, 2026."""
    return locales.day(moment, zone, year=True)


def amount(paper: Paper) -> str:
    return money.display(paper.amount.amount, str(paper.amount.currency))


def send(payment: Payment, *, now: datetime) -> None:
    """Owe the customer the mail with the receipt; without an address nothing is owed."""
    mails.owe(payment.connection, lambda: _letter(payment), now=now)


def send_refund(refund: Refund, *, now: datetime) -> None:
    """Owe the customer the mail with the receipt of a refund."""
    mails.owe(refund.payment.connection, lambda: _letter(refund), now=now)


def send_action(payment: Payment, *, now: datetime) -> None:
    """Owe the customer the mail whose link confirms a charge their bank asks about."""
    merchant, until = payment.merchant, payment.action_until
    assert until is not None
    mails.owe(
        payment.connection,
        lambda: letters.card_asks(
            merchant=merchant.name,
            amount=amount(payment),
            what=what(payment),
            card=_card(payment.connection.card),
            until=locales.instant(until, merchant.time_zone),
            url=pay_address(payment),
        ),
        now=now,
    )


def send_declined(payment: Payment, *, now: datetime) -> None:
    """Owe the customer the one mail that says a charge did not go through."""
    if not payment.off_session:
        return
    mails.owe(payment.connection, lambda: _refusal(payment, now=now), now=now)


def _refusal(payment: Payment, *, now: datetime) -> letters.Letter:
    merchant = payment.merchant
    facts = {
        "merchant": merchant.name,
        "amount": amount(payment),
        "what": what(payment),
        "card": _card(payment.connection.card),
        "url": card_address(payment.connection),
    }
    if payment.failure_code == Dispute.FAILURE_CODE:
        return letters.card_disputed(**facts)
    return letters.declined(**facts, day=locales.day(now, merchant.time_zone, year=True))


def _letter(paper: Paper) -> letters.Letter:
    """The receipt as a mail."""
    shown = document(paper)
    return letters.receipt(
        merchant=shown.merchant.name,
        number=shown.number,
        amount=amount(paper),
        heading=shown.heading,
        lead=shown.lead,
        facts=shown.facts,
        lines=shown.lines,
        total=shown.total,
        notes=shown.notes,
        url=address(paper),
        pdf_url=f"{address(paper)}.pdf",
        is_refund=isinstance(paper, Refund),
    )


def _card(card: PaymentMethod | None) -> str:
    return str(card) if card is not None else gettext("your card")
