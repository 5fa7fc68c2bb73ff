"""Payment intents: create, confirm, cancel, read. docs.stripe.com/api/payment_intents

The attempt itself, with its declines and 3-D Secure, is in `charging`.
"""

from __future__ import annotations

import hmac

from lava.demo.card_network import cards, charging, errors, events, lists
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.resources import customers, payment_methods
from lava.demo.card_network.store import Record, new_id

_OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")
# docs.stripe.com/changelog/endive/2026-09-30: versions compare by their date.
_TYPES_REMOVED = "2026-09-30"
_USAGES = ("off_session", "on_session")
_STORED = ("description", "receipt_email", "statement_descriptor", "statement_descriptor_suffix")
_CONFIRMING = ("payment_method", "payment_method_data", "off_session", "setup_future_usage",
               "return_url", "use_stripe_sdk", "error_on_requires_action", "mandate_data",
               "payment_method_options", "payment_method_types", "receipt_email",
               "allowed_payment_method_types")  # fmt: skip
_PAGE_ONLY = ("client_secret", "expected_payment_method_type", "client_context", "radar_options")


def create(call: Call, _: str) -> Json:
    """POST /v1/payment_intents, at once confirmed with `confirm=true`."""
    params = call.params
    params.only("amount", "currency", "customer", "confirm", "metadata", "capture_method",
                "automatic_payment_methods", "confirmation_method",
                *_STORED, *_CONFIRMING)  # fmt: skip
    amount = params.integer("amount")
    if amount is None:
        raise errors.missing_parameter("amount")
    currency = params.required_text("currency").lower()
    cards.check_amount(amount, currency)
    customer = params.text("customer")
    if customer is not None:
        customers.existing(call, customer, param="customer")
    if params.choice("capture_method", ["automatic", "automatic_async", "manual"]) == "manual":
        raise ApiError(400, "capture_method=manual is not modelled here.", param="capture_method")
    params.choice("confirmation_method", ["automatic"])
    confirming = bool(params.boolean("confirm"))
    if params.has("off_session") and not confirming:
        raise ApiError(
            400,
            "You can only set `off_session` when `confirm` is set to `true`.",
            param="off_session",
        )
    intent = _keep(call, amount=amount, currency=currency, customer=customer)
    method = payment_methods.resolve(call, params)
    if method is not None:
        payment_methods.check_owner(call, method, customer)
        intent.body.update(status="requires_confirmation", payment_method=method.id)
        call.store.save(intent)
    events.emit(call, "payment_intent.created", intent)
    if confirming:
        _confirm(call, intent, method)
    return intent.body


def retrieve(call: Call, id: str) -> Json:
    """GET /v1/payment_intents/{id}; a page brings the client secret."""
    call.params.only("client_secret")
    return visible(call, "payment_intent", id).body


def update(call: Call, id: str) -> Json:
    """POST /v1/payment_intents/{id}: until it is paid, cancelled or under way."""
    params = call.params
    params.only("amount", "currency", "customer", "payment_method", "setup_future_usage",
                "metadata", "payment_method_types", "allowed_payment_method_types",
                *_STORED)  # fmt: skip
    intent = visible(call, "payment_intent", id)
    body = intent.body
    if set(params.values) - {"metadata", "description", "expand", "receipt_email"}:
        charging.refuse_unless(call, intent, verb="update", allowed=_OPEN)
    if params.has("amount") or params.has("currency"):
        amount = params.integer("amount") or body["amount"]
        currency = (params.text("currency") or body["currency"]).lower()
        cards.check_amount(amount, currency)
        body.update(amount=amount, currency=currency)
    if params.has("customer"):
        body["customer"] = customers.existing(
            call, params.required_text("customer"), param="customer"
        ).id
    if params.has("setup_future_usage"):
        body["setup_future_usage"] = params.choice("setup_future_usage", _USAGES)
    _card_types(call)
    method = payment_methods.resolve(call, params)
    if method is not None:
        payment_methods.check_owner(call, method, body["customer"])
        body.update(
            payment_method=method.id,
            status="requires_confirmation",
            next_action=None,
            last_payment_error=None,
        )
    for name in _STORED:
        if params.has(name):
            body[name] = params.text(name)
    body["metadata"] = params.metadata(body["metadata"])
    call.store.save(intent)
    return body


def confirm(call: Call, id: str) -> Json:
    """POST /v1/payment_intents/{id}/confirm, by a server or by a page with the client secret."""
    call.params.only(*_CONFIRMING, *(_PAGE_ONLY if call.publishable else ()))
    intent = visible(call, "payment_intent", id)
    charging.refuse_unless(call, intent, verb="confirm", allowed=_OPEN)
    method = payment_methods.resolve(call, call.params)
    if method is None and intent.body["payment_method"] is not None:
        method = call.get("payment_method", intent.body["payment_method"])
    if method is not None:
        payment_methods.check_owner(call, method, intent.body["customer"])
    _confirm(call, intent, method)
    return intent.body


def cancel(call: Call, id: str) -> Json:
    """POST /v1/payment_intents/{id}/cancel"""
    params = call.params
    params.only("cancellation_reason")
    reason = params.choice(
        "cancellation_reason", ["duplicate", "fraudulent", "requested_by_customer", "abandoned"]
    )
    intent = visible(call, "payment_intent", id)
    charging.refuse_unless(call, intent, verb="cancel", allowed=_OPEN)
    intent.body.update(
        status="canceled", canceled_at=call.now, cancellation_reason=reason, next_action=None
    )
    call.store.save(intent)
    events.emit(call, "payment_intent.canceled", intent)
    return intent.body


def list_all(call: Call, _: str) -> Json:
    """GET /v1/payment_intents"""
    return lists.page(
        call, "payment_intent", url="/v1/payment_intents", filters={"customer": "customer"}
    )


def authenticate(call: Call, intent: Record, *, approve: bool) -> Json:
    """The cardholder answered 3-D Secure. Raises ApiError 402 when the bank refuses after all."""
    charging.refuse_unless(call, intent, verb="authenticate", allowed=("requires_action",))
    method = call.get("payment_method", intent.body["payment_method"])
    if approve:
        charging.attempt(call, intent, method, off_session=False, approved=True)
    else:
        charging.not_approved(call, intent, method)
    return intent.body


# Shared with the setup intents


def visible(call: Call, kind: str, id: str) -> Record:
    """The intent; for a page only with its client secret (ApiError 404 otherwise)."""
    intent = call.get(kind, id)
    if call.publishable:
        given = call.params.required_text("client_secret")
        if not hmac.compare_digest(given.encode(), str(intent.body["client_secret"]).encode()):
            name = "PaymentIntent" if kind == "payment_intent" else "SetupIntent"
            raise ApiError(
                404,
                f"The client_secret provided does not match any associated {name} on this "
                "account. Ensure the publishable key used belongs to the same account that "
                f"created the {name}.",
                code="resource_missing",
                param="intent",
            )
    return intent


def methods(call: Call) -> Json:
    """Which kinds of payment method an intent takes; this network has cards only.

    Since API 2026-09-30.endive a call may no longer set `payment_method_types`: it narrows the
    account's own choice with `allowed_payment_method_types`. Without either the account decides
    (`automatic_payment_methods`), redirecting methods included. Raises ApiError 400.
    """
    params = call.params
    types = _card_types(call)
    group = params.group("automatic_payment_methods")
    automatic: Json | None = None
    if group is not None:
        if types is not None:
            raise ApiError(
                400,
                "You may only specify one of these parameters: allowed_payment_method_types, "
                "automatic_payment_methods.",
                param="automatic_payment_methods",
            )
        group.only("enabled", "allow_redirects")
        redirects = group.choice("allow_redirects", ["always", "never"]) or "always"
        if group.boolean("enabled"):
            automatic = {"allow_redirects": redirects, "enabled": True}
    elif types is None:
        automatic = {"allow_redirects": "always", "enabled": True}
    return {
        "allowed_payment_method_types": params.strings("allowed_payment_method_types"),
        "automatic_payment_methods": automatic,
        "payment_method_types": ["card"],
    }


def _card_types(call: Call) -> list[str] | None:
    params = call.params
    if params.has("payment_method_types") and call.api_version >= _TYPES_REMOVED:
        raise ApiError(
            400,
            "The payment_method_types parameter is no longer supported on this API version. Use "
            "allowed_payment_method_types to say which payment methods may be used.",
            code="payment_method_types_no_longer_supported",
            param="payment_method_types",
        )
    for name in ("allowed_payment_method_types", "payment_method_types"):
        types = params.strings(name)
        if types is not None and "card" not in types:
            raise ApiError(400, "The local card network has cards only.", param=name)
        if types is not None:
            return types
    return None


def check_return_url(call: Call, intent: Record) -> None:
    """A server that confirms with redirecting methods allowed must say where to return (ApiError
    400)."""
    automatic = intent.body["automatic_payment_methods"]
    if call.publishable or automatic is None or automatic["allow_redirects"] == "never":
        return
    if call.params.text("return_url") is None and not call.params.boolean("use_stripe_sdk"):
        name = "PaymentIntent" if intent.kind == "payment_intent" else "SetupIntent"
        raise ApiError(
            400,
            f"This {name} is configured to accept payment methods enabled in your Dashboard. "
            "Because some of these payment methods might redirect your customer off of your "
            "page, you must provide a `return_url`. If you don't want to accept redirect-based "
            "payment methods, set `automatic_payment_methods[enabled]` to `true` and "
            "`automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents "
            "and Payment Intents.",
        )


def _confirm(call: Call, intent: Record, method: Record | None) -> None:
    params = call.params
    if method is None:
        raise ApiError(
            400,
            "You cannot confirm this PaymentIntent because it's missing a payment method. You "
            "can either update the PaymentIntent with a payment method and then confirm it "
            "again, or confirm it again directly with a payment method or ConfirmationToken.",
            code="payment_intent_unexpected_state",
        )
    _card_types(call)
    check_return_url(call, intent)
    off_session = _off_session(call)
    if params.has("setup_future_usage"):
        intent.body["setup_future_usage"] = params.choice("setup_future_usage", _USAGES)
    if params.has("receipt_email"):
        intent.body["receipt_email"] = params.text("receipt_email")
    charging.attempt(
        call,
        intent,
        method,
        off_session=off_session,
        fail_on_action=bool(params.boolean("error_on_requires_action")),
    )


def _off_session(call: Call) -> bool:
    """Whether nobody is there to approve; the older values `one_off` and `recurring` mean yes."""
    value = call.params.choice("off_session", ["true", "false", "one_off", "recurring"])
    if value is None or value == "false":
        return False
    if call.publishable:
        raise ApiError(
            400, "off_session cannot be used with a publishable key.", param="off_session"
        )
    if call.params.text("setup_future_usage") is not None:
        raise ApiError(
            400,
            "You cannot set `setup_future_usage` on an off-session payment: the customer is not "
            "there to agree to it.",
            param="setup_future_usage",
        )
    return True


def _keep(call: Call, *, amount: int, currency: str, customer: str | None) -> Record:
    params = call.params
    id = new_id("pi")
    return call.new(
        "payment_intent",
        {
            "amount": amount,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": params.text("capture_method") or "automatic_async",
            "client_secret": new_id(f"{id}_secret"),
            "confirmation_method": "automatic",
            "currency": currency,
            "customer": customer,
            **{name: params.text(name) for name in _STORED},
            "excluded_payment_method_types": None,
            "last_payment_error": None,
            "latest_charge": None,
            "metadata": params.metadata(),
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None,
            "payment_method_configuration_details": None,
            "payment_method_options": {
                "card": {
                    "installments": None,
                    "mandate_options": None,
                    "network": None,
                    "request_three_d_secure": "automatic",
                }
            },
            **methods(call),
            "processing": None,
            "review": None,
            "setup_future_usage": params.choice("setup_future_usage", _USAGES),
            "shipping": None,
            "source": None,
            "status": "requires_payment_method",
            "transfer_data": None,
            "transfer_group": None,
        },
        id=id,
    )
