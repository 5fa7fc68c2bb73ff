"""Charges, read only: they are made by `charging`. docs.stripe.com/api/charges"""

from __future__ import annotations

from lava.demo.card_network import lists
from lava.demo.card_network.calls import Call, Json


def retrieve(call: Call, id: str) -> Json:
    """GET /v1/charges/{id}"""
    call.params.only()
    return call.get("charge", id).body


def list_all(call: Call, _: str) -> Json:
    """GET /v1/charges, the failed ones too."""
    return lists.page(
        call,
        "charge",
        url="/v1/charges",
        filters={"customer": "customer", "payment_intent": "payment_intent"},
    )
