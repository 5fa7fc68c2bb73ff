"""Payment intents: made with our key, confirmed, asked about, looked for, listed, cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billing import lost, money
from billing.models import Merchant, Payment
from billing.stripe.client import call, pages
from billing.stripe.shapes import Intent, field, intent_of, text


def create_intent(
    payment: Payment, *, customer_id: str, card_id: str = "", confirm: bool = False
) -> Intent:
    """Make the payment intent of a payment, with the key `payment:<id>`.

    Off-session payments are confirmed at once with the saved card; a customer's own is confirmed
    by the page. Made twice, it is the same intent.
    """
    params: dict[str, Any] = {
        "amount": money.to_minor(payment.amount),
        "currency": str(payment.amount.currency).lower(),
        "customer": customer_id,
        "description": f"{payment.merchant.name}: {payment.get_purpose_display()}",
        "metadata": lost.terms(payment),
        "allowed_payment_method_types": ["card"],
        "expand": ["latest_charge"],
    }
    if payment.off_session:
        params |= {"payment_method": card_id, "confirm": True, "off_session": True}
    else:
        params["setup_future_usage"] = "off_session"
        if confirm:
            params |= {"payment_method": card_id, "confirm": True}
    made = call(
        payment.merchant,
        lambda client: client.v1.payment_intents.create(
            params=params,  # type: ignore[arg-type]
            options={"idempotency_key": f"payment:{payment.public_id}"},
        ),
    )
    return intent_of(made)


def confirm_intent(payment: Payment, *, card_id: str) -> Intent:
    """Confirm a payment's intent from the server, with a card the caller names."""
    made = call(
        payment.merchant,
        lambda client: client.v1.payment_intents.confirm(
            payment.intent_id,
            params={"payment_method": card_id, "expand": ["latest_charge"]},
            options={"idempotency_key": f"confirm:{payment.public_id}:{card_id}"},
        ),
    )
    return intent_of(made)


def retrieve_intent(merchant: Merchant, intent_id: str) -> Intent:
    """Ask what became of a payment intent."""
    found = call(
        merchant,
        lambda client: client.v1.payment_intents.retrieve(
            intent_id, params={"expand": ["latest_charge"]}
        ),
    )
    return intent_of(found)


def find_intent(payment: Payment, *, customer_id: str) -> Intent | None:
    """Look for the intent of a payment whose answer never came, by our id in its metadata."""
    found = call(
        payment.merchant,
        lambda client: client.v1.payment_intents.list(
            params={"customer": customer_id, "limit": 100}
        ),
    )
    for row in found.auto_paging_iter():
        if text(field(row.metadata, "lava_payment")) == payment.public_id:
            return retrieve_intent(payment.merchant, str(row.id))
    return None


def list_intents(merchant: Merchant, *, since: int = 0, page: int = 100) -> Iterator[Intent]:
    """Every payment intent of the merchant's account made since a Unix time, page by page."""
    params: dict[str, Any] = {"limit": page}
    if since:
        params["created"] = {"gte": since}
    found = call(merchant, lambda client: client.v1.payment_intents.list(params=params))  # type: ignore[arg-type]
    for row in pages(merchant, found):
        yield intent_of(row)


def open_to_customer(payment: Payment) -> Intent:
    """Let the customer pay an off-session intent at the page, with the saved card or another one
    that is saved for the next charges."""
    return intent_of(
        call(
            payment.merchant,
            lambda client: client.v1.payment_intents.update(
                payment.intent_id, params={"setup_future_usage": "off_session"}
            ),
        )
    )


def cancel_intent(merchant: Merchant, intent_id: str) -> Intent:
    """Cancel an intent that nobody will pay any more."""
    return intent_of(call(merchant, lambda client: client.v1.payment_intents.cancel(intent_id)))
