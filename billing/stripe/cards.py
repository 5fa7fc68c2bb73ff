"""Customers and their saved cards at the network, and what a page needs to ask for one."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings

from billing import errors
from billing.models import Merchant
from billing.stripe.client import call, credentials
from billing.stripe.shapes import Card, PageKeys, Setup, card_of, field, setup_of, text


def create_customer(merchant: Merchant, *, key: str, phone: str, name: str, email: str) -> str:
    """Make the customer at the network, once a key; gives its id."""
    params: dict[str, Any] = {"phone": phone}
    if name:
        params["name"] = name
    if email:
        params["email"] = email
    made = call(
        merchant,
        lambda client: client.v1.customers.create(
            params=params,  # type: ignore[arg-type]
            options={"idempotency_key": key},
        ),
    )
    return str(made.id)


def create_setup(merchant: Merchant, *, customer_id: str, key: str) -> Setup:
    """Start saving a card for later charges without the customer."""
    made = call(
        merchant,
        lambda client: client.v1.setup_intents.create(
            params={
                "customer": customer_id,
                "usage": "off_session",
                "allowed_payment_method_types": ["card"],
            },
            options={"idempotency_key": key},
        ),
    )
    return setup_of(made)


def retrieve_setup(merchant: Merchant, setup_id: str) -> Setup:
    """Ask what became of a setup intent."""
    return setup_of(call(merchant, lambda client: client.v1.setup_intents.retrieve(setup_id)))


def confirm_setup(merchant: Merchant, setup_id: str, *, card_id: str) -> Setup:
    """Confirm a setup intent from the server, with a card the caller names."""
    return setup_of(
        call(
            merchant,
            lambda client: client.v1.setup_intents.confirm(
                setup_id, params={"payment_method": card_id}
            ),
        )
    )


def retrieve_card(merchant: Merchant, card_id: str) -> Card:
    """Brand, last digits and expiry of a saved card."""
    return card_of(call(merchant, lambda client: client.v1.payment_methods.retrieve(card_id)))


def is_attached(merchant: Merchant, card_id: str) -> bool:
    """Whether a saved card is still its customer's at the network."""
    try:
        found = call(merchant, lambda client: client.v1.payment_methods.retrieve(card_id))
    except errors.Refused:
        return False
    return bool(text(field(found, "customer")))


def detach_card(merchant: Merchant, card_id: str) -> None:
    """Remove a saved card at the network; one that is gone already is no error."""
    try:
        call(merchant, lambda client: client.v1.payment_methods.detach(card_id))
    except errors.Refused:
        pass


def create_test_card(merchant: Merchant, number: str) -> Card:
    """Turn a test card's number into a card, as the page would; for the sandbox alone.

    Raises:
        billing.errors.Forbidden: the merchant is not a sandbox.
    """
    if not merchant.is_sandbox:
        raise errors.Forbidden("Test cards work with test keys only.")
    made = call(
        merchant,
        lambda client: client.v1.payment_methods.create(
            params={
                "type": "card",
                "card": {
                    "number": number,
                    "exp_month": 12,
                    "exp_year": time.gmtime().tm_year + 3,
                    "cvc": "123",
                },
            }
        ),
    )
    return card_of(made)


def page_keys(merchant: Merchant) -> PageKeys:
    """The publishable key and script of the merchant's account."""
    keys = credentials(merchant)
    return PageKeys(keys.publishable_key, settings.STRIPE_JS_URL, keys.account)
