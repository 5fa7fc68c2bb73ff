"""Setup intents: saving a card without charging it. docs.stripe.com/api/setup_intents"""

from __future__ import annotations

from lava.demo.card_network import charging, events, lists
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.resources import customers, payment_methods
from lava.demo.card_network.resources.payment_intents import (
    check_return_url,
    methods,
    visible,
)
from lava.demo.card_network.store import Record, new_id

_OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")
_CONFIRMING = ("payment_method", "payment_method_data", "return_url", "use_stripe_sdk",
               "mandate_data", "payment_method_options",
               "allowed_payment_method_types")  # fmt: skip
_PAGE_ONLY = ("client_secret", "expected_payment_method_type", "client_context", "radar_options")


def create(call: Call, _: str) -> Json:
    """POST /v1/setup_intents, at once confirmed with `confirm=true`."""
    params = call.params
    params.only("customer", "confirm", "usage", "metadata", "description", "payment_method_types",
                "automatic_payment_methods", *_CONFIRMING)  # fmt: skip
    customer = params.text("customer")
    if customer is not None:
        customers.existing(call, customer, param="customer")
    id = new_id("seti")
    intent = call.new(
        "setup_intent",
        {
            "application": None,
            "cancellation_reason": None,
            "client_secret": new_id(f"{id}_secret"),
            "customer": customer,
            "description": params.text("description"),
            "excluded_payment_method_types": None,
            "flow_directions": None,
            "last_setup_error": None,
            "latest_attempt": None,
            "mandate": None,
            "metadata": params.metadata(),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None,
            "payment_method_configuration_details": None,
            "payment_method_options": {
                "card": {
                    "mandate_options": None,
                    "network": None,
                    "request_three_d_secure": "automatic",
                }
            },
            **methods(call),
            "single_use_mandate": None,
            "status": "requires_payment_method",
            "usage": params.choice("usage", ["off_session", "on_session"]) or "off_session",
        },
        id=id,
    )
    method = payment_methods.resolve(call, params)
    if method is not None:
        payment_methods.check_owner(call, method, customer)
        intent.body.update(status="requires_confirmation", payment_method=method.id)
        call.store.save(intent)
    events.emit(call, "setup_intent.created", intent)
    if params.boolean("confirm"):
        _confirm(call, intent, method)
    return intent.body


def retrieve(call: Call, id: str) -> Json:
    """GET /v1/setup_intents/{id}; a page brings the client secret."""
    call.params.only("client_secret")
    return visible(call, "setup_intent", id).body


def update(call: Call, id: str) -> Json:
    """POST /v1/setup_intents/{id}"""
    params = call.params
    params.only("customer", "payment_method", "metadata", "description")
    intent = visible(call, "setup_intent", id)
    body = intent.body
    if params.has("customer") or params.has("payment_method"):
        charging.refuse_unless(call, intent, verb="update", allowed=_OPEN)
    if params.has("customer"):
        body["customer"] = customers.existing(
            call, params.required_text("customer"), param="customer"
        ).id
    method = payment_methods.resolve(call, params)
    if method is not None:
        payment_methods.check_owner(call, method, body["customer"])
        body.update(payment_method=method.id, status="requires_confirmation", next_action=None)
    if params.has("description"):
        body["description"] = params.text("description")
    body["metadata"] = params.metadata(body["metadata"])
    call.store.save(intent)
    return body


def confirm(call: Call, id: str) -> Json:
    """POST /v1/setup_intents/{id}/confirm, by a server or by a page with the client secret."""
    call.params.only(*_CONFIRMING, *(_PAGE_ONLY if call.publishable else ()))
    intent = visible(call, "setup_intent", id)
    charging.refuse_unless(call, intent, verb="confirm", allowed=_OPEN)
    method = payment_methods.resolve(call, call.params)
    if method is None and intent.body["payment_method"] is not None:
        method = call.get("payment_method", intent.body["payment_method"])
    if method is not None:
        payment_methods.check_owner(call, method, intent.body["customer"])
    _confirm(call, intent, method)
    return intent.body


def cancel(call: Call, id: str) -> Json:
    """POST /v1/setup_intents/{id}/cancel"""
    params = call.params
    params.only("cancellation_reason")
    reason = params.choice(
        "cancellation_reason", ["abandoned", "requested_by_customer", "duplicate"]
    )
    intent = visible(call, "setup_intent", id)
    charging.refuse_unless(call, intent, verb="cancel", allowed=_OPEN)
    intent.body.update(status="canceled", cancellation_reason=reason, next_action=None)
    call.store.save(intent)
    events.emit(call, "setup_intent.canceled", intent)
    return intent.body


def list_all(call: Call, _: str) -> Json:
    """GET /v1/setup_intents"""
    return lists.page(
        call,
        "setup_intent",
        url="/v1/setup_intents",
        filters={"customer": "customer", "payment_method": "payment_method"},
    )


def authenticate(call: Call, intent: Record, *, approve: bool) -> Json:
    """The cardholder answered 3-D Secure. Raises ApiError 402 when the bank refuses after all."""
    charging.refuse_unless(call, intent, verb="authenticate", allowed=("requires_action",))
    method = call.get("payment_method", intent.body["payment_method"])
    if approve:
        _save_card(call, intent, method)
    else:
        intent.body.update(
            status="requires_payment_method",
            payment_method=None,
            next_action=None,
            last_setup_error=charging.authentication_failure("setup_intent", method),
        )
        call.store.save(intent)
        events.emit(call, "setup_intent.setup_failed", intent)
    return intent.body


def _confirm(call: Call, intent: Record, method: Record | None) -> None:
    if method is None:
        raise ApiError(
            400,
            "You cannot confirm this SetupIntent because it's missing a payment method. You can "
            "either update the SetupIntent with a payment method and then confirm it again, or "
            "confirm it again directly with a payment method or ConfirmationToken.",
            code="setup_intent_unexpected_state",
        )
    check_return_url(call, intent)
    intent.body.update(payment_method=method.id, last_setup_error=None, next_action=None)
    if payment_methods.behaviour(method).asks_on_session:
        intent.body.update(
            status="requires_action", next_action=charging.ask_the_cardholder(method)
        )
        call.store.save(intent)
        events.emit(call, "setup_intent.requires_action", intent)
        return
    _save_card(call, intent, method)


def _save_card(call: Call, intent: Record, method: Record) -> None:
    decline = payment_methods.saving_declined(call, method)
    if decline is not None:
        intent.body.update(
            status="requires_payment_method",
            payment_method=None,
            next_action=None,
            last_setup_error=payment_methods.last_error(decline, method),
        )
        call.store.save(intent)
        events.emit(call, "setup_intent.setup_failed", intent)
        raise payment_methods.card_error(
            decline, executed=True, setup_intent=intent.body, payment_method=method.body
        )
    if intent.body["usage"] == "off_session":
        method.hidden["set_up"] = True
        call.store.save(method)
    payment_methods.save_to(call, method, intent.body["customer"])
    intent.body.update(status="succeeded", payment_method=method.id, next_action=None)
    call.store.save(intent)
    events.emit(call, "setup_intent.succeeded", intent)
