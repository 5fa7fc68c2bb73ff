"""Payment methods: cards made by a page, saved to a customer, taken off again.
docs.stripe.com/api/payment_methods

Also used by the intents: `resolve` finds or makes the card they are to use.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lava.demo.card_network import cards, errors, events, lists
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.cards import Card, Decline
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.params import Params
from lava.demo.card_network.resources import customers
from lava.demo.card_network.store import Record

_USED_UP = (
    "The provided PaymentMethod was previously used with a PaymentIntent without Customer "
    "attachment, shared with a connected account without Customer attachment, or was detached "
    "from a Customer. It may not be used again. To use a PaymentMethod multiple times, you must "
    "attach it to a Customer first."
)


def create(call: Call, _: str) -> Json:
    """POST /v1/payment_methods, by a page with its publishable key (or a server in test mode)."""
    return make(call, call.params).body


def make(call: Call, params: Params) -> Record:
    """A new card from `type`, `card` and `billing_details`; nothing is asked of the bank yet.

    Raises ApiError 402 for details that cannot be a card's.
    """
    params.only("type", "card", "billing_details", "metadata", "allow_redisplay", "client_secret",
                "guid", "muid", "sid", "pasted_fields", "payment_user_agent", "referrer",
                "time_on_page")  # fmt: skip
    if not params.has("type"):
        raise errors.missing_parameter(params.name("type"))
    params.choice("type", ["card"])
    card = params.group("card")
    if card is None:
        raise errors.missing_parameter(params.name("card"))
    card.only("number", "exp_month", "exp_year", "cvc", "token")
    if card.has("token"):
        raise errors.unknown_parameter(card.name("token"))
    number = card.required_text("number")
    if call.livemode and not call.publishable:
        raise ApiError(
            402,
            "Sending credit card numbers directly to the Stripe API is generally unsafe. We "
            "suggest you use test tokens that map to the test card you are using, see "
            "https://stripe.com/docs/testing.",
        )
    behaviour = cards.check_number(number, call.mode)
    month, year = card.integer("exp_month"), card.integer("exp_year")
    if month is None or year is None:
        raise errors.missing_parameter(card.name("exp_month" if month is None else "exp_year"))
    month, year = cards.check_expiry(month, year, now=call.now)
    cvc = card.text("cvc")
    if cvc is not None:
        cards.check_cvc(cvc, cards.brand_of(behaviour.number))
    return _keep(
        call,
        behaviour.number,
        month=month,
        year=year,
        billing=_billing(params),
        metadata=params.metadata(),
        cvc_given=cvc is not None,
    )


def retrieve(call: Call, id: str) -> Json:
    """GET /v1/payment_methods/{id}"""
    call.params.only()
    return by_id(call, id).body


def update(call: Call, id: str) -> Json:
    """POST /v1/payment_methods/{id}: billing details, metadata, expiry of a saved card."""
    params = call.params
    params.only("billing_details", "metadata", "card", "allow_redisplay")
    method = call.get("payment_method", id)
    if method.body["customer"] is None:
        raise ApiError(
            400, "You must save this PaymentMethod to a customer before you can update it."
        )
    if params.has("billing_details"):
        method.body["billing_details"] = _billing(params)
    card = params.group("card")
    if card is not None:
        card.only("exp_month", "exp_year")
        shown = method.body["card"]
        month, year = cards.check_expiry(
            card.integer("exp_month") or shown["exp_month"],
            card.integer("exp_year") or shown["exp_year"],
            now=call.now,
        )
        shown["exp_month"], shown["exp_year"] = month, year
    method.body["metadata"] = params.metadata(method.body["metadata"])
    call.store.save(method)
    events.emit(call, "payment_method.updated", method)
    return method.body


def attach(call: Call, id: str) -> Json:
    """POST /v1/payment_methods/{id}/attach: the bank is asked whether the card may be saved (402 if
    not)."""
    call.params.only("customer")
    customer = customers.existing(call, call.params.required_text("customer"), param="customer")
    method = by_id(call, id)
    owner = method.body["customer"]
    if owner is not None and owner != customer.id:
        raise ApiError(
            400, "The payment method you provided has already been attached to a customer."
        )
    refuse_if_used_up(method)
    if owner is None:
        decline = saving_declined(call, method)
        if decline is not None:
            raise card_error(decline, executed=True, payment_method=method.body)
        save_to(call, method, customer.id)
    return method.body


def detach(call: Call, id: str) -> Json:
    """POST /v1/payment_methods/{id}/detach: for ever, as at Stripe."""
    call.params.only()
    method = call.get("payment_method", id)
    owner = method.body["customer"]
    if owner is None:
        raise ApiError(
            400,
            "The payment method you provided is not attached to a customer so detachment is "
            "impossible.",
        )
    method.body["customer"] = None
    method.hidden["used_up"] = True
    call.store.save(method)
    customer = call.get("customer", owner)
    settings = customer.body["invoice_settings"]
    if settings["default_payment_method"] == id:
        settings["default_payment_method"] = None
        call.store.save(customer)
    events.emit(call, "payment_method.detached", method, previous={"customer": owner})
    return method.body


def list_all(call: Call, _: str) -> Json:
    """GET /v1/payment_methods: the saved cards, of one customer if asked."""
    id = call.params.text("customer")
    if id is not None:
        customers.existing(call, id, param="customer")
    return lists.page(
        call,
        "payment_method",
        url="/v1/payment_methods",
        filters={"customer": "customer", "type": "type"},
        where=" AND json_extract(body, '$.customer') IS NOT NULL",
    )


def list_of_customer(call: Call, id: str) -> Json:
    """GET /v1/customers/{id}/payment_methods"""
    customers.existing(call, id)
    return lists.page(
        call,
        "payment_method",
        url=f"/v1/customers/{id}/payment_methods",
        filters={"type": "type"},
        where=" AND json_extract(body, '$.customer') = ?",
        values=(id,),
    )


# What the intents need


def resolve(call: Call, params: Params) -> Record | None:
    """The card an intent's call names (`payment_method`) or brings along
    (`payment_method_data`)."""
    data = params.group("payment_method_data")
    if data is not None:
        return make(call, data)
    id = params.text("payment_method")
    if id is None:
        return None
    return by_id(call, id, param="payment_method")


def by_id(call: Call, id: str, *, param: str | None = None) -> Record:
    """The card of this id; a token such as `pm_card_visa` makes a new one each time it is used."""
    number = cards.TOKENS.get(id)
    if number is None:
        return call.get("payment_method", id, param=param)
    year = datetime.fromtimestamp(call.now, UTC).year + 3
    return _keep(
        call, number, month=12, year=year, billing=_billing(None), metadata={}, cvc_given=True
    )


def check_owner(call: Call, method: Record, customer: str | None) -> None:
    """A saved card pays only for the customer it is saved to (ApiError 400)."""
    refuse_if_used_up(method)
    owner = method.body["customer"]
    if owner is None or owner == customer:
        return
    if customer is None:
        raise ApiError(
            400,
            f"The PaymentMethod {method.id} belongs to the Customer {owner}. Please include the "
            "Customer in the `customer` parameter on the PaymentIntent.",
            param="payment_method",
        )
    raise ApiError(
        400,
        f"The customer does not have a payment method with the ID {method.id}. The payment method "
        "must be attached to the customer.",
        code="resource_missing",
        param="payment_method",
    )


def refuse_if_used_up(method: Record) -> None:
    """A card that was charged without being saved, or taken off, is of no more use (ApiError
    400)."""
    if method.hidden.get("used_up"):
        raise ApiError(
            400, _USED_UP, code="payment_method_unexpected_state", param="payment_method"
        )


def behaviour(method: Record) -> Card:
    """What this card does: its number's, or what `/_control/cards` has set since."""
    return cards.CARDS[method.hidden.get("behave_as") or method.hidden["number"]]


def charge_declined(call: Call, method: Record) -> Decline | None:
    """Why the bank refuses to pay from this card now; None when it pays."""
    shown = method.body["card"]
    if cards.expired(shown["exp_month"], shown["exp_year"], now=call.now):
        return cards.EXPIRED
    return behaviour(method).declines


def saving_declined(call: Call, method: Record) -> Decline | None:
    """Why the bank refuses this card to be kept for later; None when it may."""
    decline = charge_declined(call, method)
    if decline is cards.EXPIRED or behaviour(method).declines_to_save:
        return decline
    return None


def save_to(call: Call, method: Record, customer: str | None) -> None:
    """Attach a card, unless there is no customer or it is attached already."""
    if customer is None or method.body["customer"] == customer:
        return
    method.body["customer"] = customer
    call.store.save(method)
    events.emit(call, "payment_method.attached", method)


def card_error(decline: Decline, *, executed: bool, **extra: Any) -> ApiError:
    """The 402 of a decline; `extra` are the objects that the answer carries."""
    return ApiError(402, decline.message, executed=executed, **_error_fields(decline), **extra)


def last_error(decline: Decline, method: Record, *, charge: str | None = None) -> Json:
    """A decline as an intent remembers it (`last_payment_error`, `last_setup_error`)."""
    return card_error(decline, executed=True, charge=charge, payment_method=method.body).error


def _error_fields(decline: Decline) -> dict[str, Any]:
    return {
        "type": "card_error",
        "code": decline.code,
        "param": decline.param,
        "decline_code": decline.decline_code,
        "advice_code": decline.advice,
    }


def _billing(params: Params | None) -> Json:
    group = params.group("billing_details") if params is not None else None
    names = ("email", "name", "phone", "tax_id")
    empty = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
    if group is None:
        return {"address": empty, **dict.fromkeys(names)}
    group.only("address", *names)
    return {
        "address": customers.address(group) or empty,
        **{name: group.text(name) for name in names},
    }


def _keep(
    call: Call,
    number: str,
    *,
    month: int,
    year: int,
    billing: Json,
    metadata: Json,
    cvc_given: bool,
) -> Record:
    brand = cards.brand_of(number)
    postal_code = billing["address"]["postal_code"]
    return call.new(
        "payment_method",
        {
            "allow_redisplay": "unspecified",
            "billing_details": billing,
            "card": {
                "brand": brand,
                "checks": {
                    "address_line1_check": "pass" if billing["address"]["line1"] else None,
                    "address_postal_code_check": "pass" if postal_code else None,
                    "cvc_check": "pass" if cvc_given else None,
                },
                "country": "US",
                "display_brand": brand,
                "exp_month": month,
                "exp_year": year,
                "fingerprint": cards.fingerprint(number, call.mode),
                "funding": cards.CARDS[number].funding,
                "generated_from": None,
                "last4": number[-4:],
                "networks": {"available": [brand], "preferred": None},
                "regulated_status": "unregulated",
                "three_d_secure_usage": {"supported": True},
                "wallet": None,
            },
            "customer": None,
            "metadata": metadata,
            "type": "card",
        },
        number=number,
    )
