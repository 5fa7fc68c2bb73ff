"""What an answer shows: `expand` for servers, a reduced object for pages. Applied by `pipeline`."""

from __future__ import annotations

import json

from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.errors import ApiError

_EXPANDABLE = {
    "payment_intent": {
        "customer": "customer",
        "latest_charge": "charge",
        "payment_method": "payment_method",
    },
    "setup_intent": {
        "customer": "customer",
        "payment_method": "payment_method",
        "latest_attempt": "",
    },
    "charge": {
        "customer": "customer",
        "payment_intent": "payment_intent",
        "refunds": "",
        "balance_transaction": "",
    },
    "refund": {"charge": "charge", "payment_intent": "payment_intent", "balance_transaction": ""},
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
    "payment_method": {"customer": "customer"},
    "invoice_settings": {"default_payment_method": "payment_method"},
}

# docs.stripe.com/api/payment_intents/object and setup_intents/object: the attributes that can be
# read with a publishable key and the client secret.
_OF_A_PAYMENT = """
id object amount automatic_payment_methods canceled_at cancellation_reason capture_method
client_secret confirmation_method created currency description last_payment_error livemode
next_action payment_method payment_method_types processing receipt_email setup_future_usage shipping
source status
"""
_OF_A_SETUP = """
id object automatic_payment_methods cancellation_reason client_secret created description
last_setup_error livemode next_action payment_method payment_method_types status usage
"""
_ON_A_PAGE = {
    "payment_intent": frozenset(_OF_A_PAYMENT.split()),
    "setup_intent": frozenset(_OF_A_SETUP.split()),
}


def shown(call: Call, body: Json) -> Json:
    """A copy of `body` as this caller may see it.

    Raises ApiError 400 for an `expand` of something that cannot be expanded.
    """
    copy: Json = json.loads(json.dumps(body))
    if call.publishable:
        return _for_page(copy)
    for path in call.params.strings("expand") or []:
        steps = path.split(".")
        if len(steps) > 4 + (steps[0] == "data"):
            raise ApiError(
                400, "You cannot expand more than 4 levels of a property.", param="expand"
            )
        _expand(call, copy, steps, path)
    return copy


def _for_page(body: Json) -> Json:
    allowed = _ON_A_PAGE.get(str(body.get("object")))
    if allowed is not None:
        return {name: value for name, value in body.items() if name in allowed}
    return {
        name: _for_page(value) if isinstance(value, dict) else value for name, value in body.items()
    }


def _expand(call: Call, body: Json, steps: list[str], path: str) -> None:
    head, rest = steps[0], steps[1:]
    kind = str(body.get("object"))
    if kind == "list" and head == "data":
        for item in body["data"]:
            _expand(call, item, rest, path)
        return
    if kind == "customer" and head == "invoice_settings" and rest:
        body[head]["object"] = head
        _expand(call, body[head], rest, path)
        del body[head]["object"]
        return
    targets = _EXPANDABLE.get(kind, {})
    if head not in targets:
        raise ApiError(400, f"This property cannot be expanded ({path}).", param="expand")
    if kind == "charge" and head == "refunds":
        body[head] = _refunds(call, str(body["id"]))
    value = body.get(head)
    if isinstance(value, str):
        body[head] = json.loads(json.dumps(call.get(targets[head], value).body))
    if rest and isinstance(body.get(head), dict):
        _expand(call, body[head], rest, path)


def _refunds(call: Call, charge: str) -> Json:
    rows = call.store.select(
        call.mode,
        "refund",
        "AND json_extract(body, '$.charge') = ?",
        (charge,),
        limit=11,
        newest=True,
    )
    return {
        "object": "list",
        "data": [row.body for row in rows[:10]],
        "has_more": len(rows) > 10,
        "url": f"/v1/charges/{charge}/refunds",
    }
