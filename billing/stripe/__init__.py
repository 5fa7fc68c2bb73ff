"""The card network, and the only package that imports `stripe`.

Every call goes through `StripeClient` over HTTP with our own stored idempotency key; against
Stripe with its keys, or against the local card network with the same code. Stripe's objects and
errors end here: callers see the dataclasses of `shapes` and `billing.errors`. Never called while a
lock is held.
"""

from billing.stripe.cards import (
    confirm_setup,
    create_customer,
    create_setup,
    create_test_card,
    detach_card,
    is_attached,
    page_keys,
    retrieve_card,
    retrieve_setup,
)
from billing.stripe.charges import (
    cancel_intent,
    confirm_intent,
    create_intent,
    find_intent,
    list_intents,
    open_to_customer,
    retrieve_intent,
)
from billing.stripe.client import (
    Credentials,
    account_id,
    credentials,
    installation_credentials,
)
from billing.stripe.returns import (
    create_refund,
    list_disputes,
    list_refunds,
    retrieve_dispute,
    retrieve_refund,
)
from billing.stripe.shapes import (
    Card,
    ClientIntent,
    Dispute,
    Event,
    Intent,
    PageKeys,
    Refund,
    Setup,
)
from billing.stripe.webhooks import verify_event

__all__ = [
    "Card", "ClientIntent", "Credentials", "Dispute", "Event", "Intent", "PageKeys", "Refund",
    "Setup", "account_id", "cancel_intent", "confirm_intent", "confirm_setup",
    "create_customer", "create_intent", "create_refund", "create_setup", "create_test_card",
    "credentials", "detach_card", "find_intent", "installation_credentials", "is_attached",
    "list_disputes", "list_intents", "list_refunds", "open_to_customer", "page_keys",
    "retrieve_card",
    "retrieve_dispute", "retrieve_intent", "retrieve_refund", "retrieve_setup", "verify_event",
]  # fmt: skip
