"""What the card network's objects are to the rest of the product, and how they are read.

Stripe's objects are no dicts and end here: callers see these dataclasses alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from billing import lost


@dataclass(frozen=True, slots=True)
class ClientIntent:
    """What the page needs to confirm a payment (`kind` payment) or save a card (`kind` setup)."""

    kind: str
    id: str
    client_secret: str
    # Of a payment, in the currency's minor unit; a card that is only saved has none.
    amount_minor: int = 0
    currency: str = ""


@dataclass(frozen=True, slots=True)
class PageKeys:
    """What a page needs to talk to the network for a merchant."""

    publishable_key: str
    script_url: str
    # The account under Stripe Connect that the page acts for; empty: the key's own.
    account: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """A payment intent as the network knows it. `amount_minor` in the currency's minor unit."""

    id: str
    status: str
    client_secret: str
    amount_minor: int
    currency: str
    charge_id: str
    card_id: str
    decline_code: str
    message: str
    # What we had the network keep of the payment (`billing.lost`); empty: not made by us.
    terms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # When the card was charged, in Unix time; 0: not said (lists do not).
    charged_at: int = 0

    @property
    def payment_id(self) -> str:
        """Our own id of the payment; empty: not made by us."""
        return self.terms.get("lava_payment", "")

    @property
    def wants_customer(self) -> bool:
        """The bank wants its cardholder to confirm it (3-D Secure); nothing was charged."""
        return self.status == "requires_action" or (
            self.status == "requires_payment_method"
            and self.decline_code == "authentication_required"
        )


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund as the network knows it: `pending`, `requires_action`, `succeeded`, `failed` or
    `canceled`."""

    id: str
    status: str
    amount_minor: int
    currency: str
    intent_id: str
    failure: str
    # Our own id of the refund; empty: it was made in the network's dashboard.
    our_id: str
    # When it was made, in Unix time.
    made_at: int = 0


@dataclass(frozen=True, slots=True)
class Dispute:
    """A dispute as the network knows it."""

    id: str
    status: str
    amount_minor: int
    currency: str
    intent_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Setup:
    """A setup intent: a card being saved without a charge."""

    id: str
    status: str
    client_secret: str
    card_id: str


@dataclass(frozen=True, slots=True)
class Card:
    """A payment method of type card."""

    id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True)
class Event:
    """A verified event; `object_id` is the id of what it is about."""

    id: str
    type: str
    livemode: bool
    object_id: str
    payload: dict[str, Any]
    # The connected account it came from; empty: the account of the secret.
    account: str = ""


def field(row: Any, name: str) -> Any:
    """A field of one of Stripe's objects, which are no dicts; None when absent."""
    return getattr(row, name, None) if row is not None else None


def text(value: Any) -> str:
    """An id, whether the network expanded the object or not."""
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else str(field(value, "id") or "")


def intent_of(row: Any) -> Intent:
    error = field(row, "last_payment_error")
    return Intent(
        id=str(row.id),
        status=str(row.status),
        client_secret=str(field(row, "client_secret") or ""),
        amount_minor=int(row.amount),
        currency=str(row.currency).upper(),
        charge_id=text(field(row, "latest_charge")),
        card_id=text(field(row, "payment_method")),
        decline_code=str(field(error, "decline_code") or field(error, "code") or ""),
        message=str(field(error, "message") or ""),
        terms=_terms(field(row, "metadata")),
        charged_at=int(field(field(row, "latest_charge"), "created") or 0),
    )


def _terms(metadata: Any) -> dict[str, str]:
    found = {name: text(field(metadata, name)) for name in lost.NAMES}
    return {name: said for name, said in found.items() if said}


def refund_of(row: Any) -> Refund:
    return Refund(
        id=str(row.id),
        status=str(row.status),
        amount_minor=int(row.amount),
        currency=str(row.currency).upper(),
        intent_id=text(field(row, "payment_intent")),
        failure=str(field(row, "failure_reason") or ""),
        our_id=text(field(field(row, "metadata"), "lava_refund")),
        made_at=int(field(row, "created") or 0),
    )


def dispute_of(row: Any) -> Dispute:
    return Dispute(
        id=str(row.id),
        status=str(row.status),
        amount_minor=int(row.amount),
        currency=str(row.currency).upper(),
        intent_id=text(field(row, "payment_intent")),
        reason=str(field(row, "reason") or ""),
    )


def setup_of(row: Any) -> Setup:
    return Setup(
        id=str(row.id),
        status=str(row.status),
        client_secret=str(field(row, "client_secret") or ""),
        card_id=text(field(row, "payment_method")),
    )


def card_of(row: Any) -> Card:
    card = row.card
    return Card(
        id=str(row.id),
        brand=str(field(card, "brand") or "card"),
        last4=str(card.last4),
        exp_month=int(card.exp_month),
        exp_year=int(card.exp_year),
    )
