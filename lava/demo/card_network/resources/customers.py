"""Customers: create, retrieve, update, delete, list. docs.stripe.com/api/customers"""

from __future__ import annotations

from lava.demo.card_network import errors, events, lists
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.params import Params
from lava.demo.card_network.store import Record

_TEXTS = ("name", "email", "phone", "description")
_ADDRESS = ("city", "country", "line1", "line2", "postal_code", "state")


def create(call: Call, _: str) -> Json:
    """POST /v1/customers"""
    params = call.params
    params.only(*_TEXTS, "metadata", "address")
    customer = call.new(
        "customer",
        {
            **{name: params.text(name) for name in _TEXTS},
            "address": address(params),
            "balance": 0,
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "discount": None,
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "metadata": params.metadata(),
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": None,
        },
    )
    events.emit(call, "customer.created", customer)
    return customer.body


def retrieve(call: Call, id: str) -> Json:
    """GET /v1/customers/{id}: a deleted one answers `deleted: true`."""
    call.params.only()
    customer = call.get("customer", id)
    if customer.hidden.get("deleted"):
        return {"id": id, "object": "customer", "deleted": True}
    return customer.body


def update(call: Call, id: str) -> Json:
    """POST /v1/customers/{id}"""
    params = call.params
    params.only(*_TEXTS, "metadata", "address", "invoice_settings")
    customer = existing(call, id)
    for name in _TEXTS:
        if params.has(name):
            customer.body[name] = params.text(name)
    if params.has("address"):
        customer.body["address"] = address(params)
    customer.body["metadata"] = params.metadata(customer.body["metadata"])
    _default_method(call, customer)
    call.store.save(customer)
    events.emit(call, "customer.updated", customer)
    return customer.body


def delete(call: Call, id: str) -> Json:
    """DELETE /v1/customers/{id}: its cards are detached for ever."""
    customer = existing(call, id)
    customer.hidden["deleted"] = True
    call.store.save(customer)
    for method in call.store.select(
        call.mode,
        "payment_method",
        "AND json_extract(body, '$.customer') = ?",
        (id,),
        limit=1000,
        newest=False,
    ):
        method.body["customer"] = None
        method.hidden["used_up"] = True
        call.store.save(method)
    events.emit(call, "customer.deleted", customer)
    return {"id": id, "object": "customer", "deleted": True}


def list_all(call: Call, _: str) -> Json:
    """GET /v1/customers"""
    return lists.page(
        call,
        "customer",
        url="/v1/customers",
        filters={"email": "email"},
        where=" AND json_extract(hidden, '$.deleted') IS NULL",
    )


def existing(call: Call, id: str, *, param: str | None = None) -> Record:
    """The customer, unless it is missing or deleted (ApiError `resource_missing`)."""
    customer = call.get("customer", id, param=param)
    if customer.hidden.get("deleted"):
        raise errors.no_such("customer", id, param=param or "id", status=400 if param else 404)
    return customer


def address(params: Params) -> Json | None:
    """A postal address as Stripe shows it."""
    group = params.group("address")
    if group is None:
        return None
    group.only(*_ADDRESS)
    return {name: group.text(name) for name in _ADDRESS}


def _default_method(call: Call, customer: Record) -> None:
    group = call.params.group("invoice_settings")
    if group is None:
        return
    group.only("default_payment_method")
    id = group.text("default_payment_method")
    if id is not None:
        method = call.get("payment_method", id, param=group.name("default_payment_method"))
        if method.body["customer"] != customer.id:
            raise ApiError(
                400,
                f"The customer does not have a payment method with the ID {id}. The payment method "
                "must be attached to the customer.",
                code="resource_missing",
                param=group.name("default_payment_method"),
            )
    customer.body["invoice_settings"]["default_payment_method"] = id
