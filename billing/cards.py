"""Saved cards: the customer at the card network, saving a card without a charge, test cards.

Called by checkout and by `billing.payments`. The number of a card never reaches us.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from billing import errors, events, ledger, settlement, stripe
from billing.models import Connection, Customer, Dispute, Merchant, PaymentMethod
from billing.stripe import Card, ClientIntent


def customer_id(connection: Connection) -> str:
    """The customer's id at the card network; made there once, with the customer as its key."""
    customer = Customer.objects.get(pk=connection.customer_id)
    if customer.card_customer_id:
        return customer.card_customer_id
    made = stripe.create_customer(
        connection.merchant,
        key=f"customer:{customer.public_id}",
        phone=customer.phone,
        # Only what never changes: the same key with other words would be refused.
        name="",
        email="",
    )
    Customer.objects.filter(pk=customer.pk, card_customer_id="").update(card_customer_id=made)
    return made


def begin_setup(connection: Connection, *, key: str) -> ClientIntent:
    """Start saving a card; the page confirms it. The same key gives the same attempt."""
    setup = stripe.create_setup(
        connection.merchant, customer_id=customer_id(connection), key=f"setup:{key}"
    )
    return ClientIntent("setup", setup.id, setup.client_secret)


def finish_setup(connection: Connection, *, setup_intent_id: str, now: datetime) -> PaymentMethod:
    """Keep the card of a confirmed setup intent; it becomes the one in use.

    Raises:
        billing.errors.CardDeclined: the card was not confirmed.
    """
    setup = stripe.retrieve_setup(connection.merchant, setup_intent_id)
    if setup.status != "succeeded":
        raise errors.CardDeclined("The card was not saved. Nothing was charged.")
    card = stripe.retrieve_card(connection.merchant, setup.card_id)
    with transaction.atomic():
        return settlement.save_card(ledger.lock(connection.pk), card, now=now)


def remove(connection: Connection, *, now: datetime) -> None:
    """Remove the saved card, here and at the network. What falls due then fails for want of one."""
    card = connection.card
    if card is not None:
        forget(connection.merchant, card.card_id, now=now)
        stripe.detach_card(connection.merchant, card.card_id)


def forget(merchant: Merchant, card_id: str, *, now: datetime) -> None:
    """A card is gone at the network: it is not charged any more. Called by its webhook too."""
    owners = PaymentMethod.objects.of(merchant).filter(card_id=card_id, detached_at=None)
    for owner in list(owners.values_list("connection_id", flat=True)):
        with transaction.atomic():
            connection = ledger.lock(owner)
            row = PaymentMethod.objects.filter(connection=connection, card_id=card_id)
            if row.filter(detached_at=None).update(detached_at=now, is_default=False):
                events.record(
                    connection.merchant, "connection.card_removed", now=now, connection=connection
                )


def is_disputed(card: PaymentMethod) -> bool:
    """Whether its holder disputes what this card paid, or did with success: it is not charged
    without them until another card takes its place. By its id at the network: another connection
    may have saved it too."""
    rows = Dispute.objects.of(card.merchant).filter(
        payment__card__card_id=card.card_id, status__in=Dispute.TAKEN_BACK
    )
    return bool(rows.exists())


def confirm_setup(connection: Connection, *, setup_intent_id: str, card_id: str) -> None:
    """Confirm a setup intent from the server with a card the caller names."""
    stripe.confirm_setup(connection.merchant, setup_intent_id, card_id=card_id)


def from_test_card(merchant: Merchant, number: str) -> str:
    """Turn a test card's number into a card at the network; its id. Sandbox only."""
    return stripe.create_test_card(merchant, number).id


def describe(merchant: Merchant, card_id: str, *, saved: PaymentMethod | None) -> Card:
    """Brand, digits and expiry of a card, from our own row where we have one."""
    if saved is not None:
        return Card(
            id=saved.card_id,
            brand=saved.brand,
            last4=saved.last4,
            exp_month=saved.exp_month,
            exp_year=saved.exp_year,
        )
    return stripe.retrieve_card(merchant, card_id)
