"""The table of endpoints: method and path pattern -> resource function. Read by `pipeline`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lava.demo.card_network.calls import Call, Handler, Json
from lava.demo.card_network.resources import (
    charges,
    customers,
    disputes,
    event_log,
    payment_intents,
    payment_methods,
    refunds,
    setup_intents,
)


@dataclass(frozen=True)
class Route:
    """`page`: a publishable key may call it."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    page: bool


def account(call: Call, _: str) -> Json:
    """GET /v1/account: enough to see that the key works."""
    call.params.only()
    return {
        "id": call.account,
        "object": "account",
        "business_profile": {"name": "Local card network"},
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": None,
        "payouts_enabled": True,
        "type": "standard",
    }


def _route(line: str, handler: Handler, *, page: bool = False) -> Route:
    method, path = line.split()
    return Route(method, re.compile(path.replace("{id}", r"([^/]+)") + "$"), handler, page)


ROUTES = (
    _route("GET /v1/account", account),
    _route("GET /v1/customers", customers.list_all),
    _route("POST /v1/customers", customers.create),
    _route("GET /v1/customers/{id}", customers.retrieve),
    _route("POST /v1/customers/{id}", customers.update),
    _route("DELETE /v1/customers/{id}", customers.delete),
    _route("GET /v1/customers/{id}/payment_methods", payment_methods.list_of_customer),
    _route("GET /v1/payment_methods", payment_methods.list_all),
    _route("POST /v1/payment_methods", payment_methods.create, page=True),
    _route("GET /v1/payment_methods/{id}", payment_methods.retrieve),
    _route("POST /v1/payment_methods/{id}", payment_methods.update),
    _route("POST /v1/payment_methods/{id}/attach", payment_methods.attach),
    _route("POST /v1/payment_methods/{id}/detach", payment_methods.detach),
    _route("GET /v1/payment_intents", payment_intents.list_all),
    _route("POST /v1/payment_intents", payment_intents.create),
    _route("GET /v1/payment_intents/{id}", payment_intents.retrieve, page=True),
    _route("POST /v1/payment_intents/{id}", payment_intents.update),
    _route("POST /v1/payment_intents/{id}/confirm", payment_intents.confirm, page=True),
    _route("POST /v1/payment_intents/{id}/cancel", payment_intents.cancel),
    _route("GET /v1/setup_intents", setup_intents.list_all),
    _route("POST /v1/setup_intents", setup_intents.create),
    _route("GET /v1/setup_intents/{id}", setup_intents.retrieve, page=True),
    _route("POST /v1/setup_intents/{id}", setup_intents.update),
    _route("POST /v1/setup_intents/{id}/confirm", setup_intents.confirm, page=True),
    _route("POST /v1/setup_intents/{id}/cancel", setup_intents.cancel),
    _route("GET /v1/charges", charges.list_all),
    _route("GET /v1/charges/{id}", charges.retrieve),
    _route("GET /v1/refunds", refunds.list_all),
    _route("POST /v1/refunds", refunds.create),
    _route("GET /v1/refunds/{id}", refunds.retrieve),
    _route("POST /v1/refunds/{id}", refunds.update),
    _route("GET /v1/disputes", disputes.list_all),
    _route("GET /v1/disputes/{id}", disputes.retrieve),
    _route("POST /v1/disputes/{id}/close", disputes.close),
    _route("GET /v1/events", event_log.list_all),
    _route("GET /v1/events/{id}", event_log.retrieve),
)


def find(method: str, path: str) -> tuple[Route, str] | None:
    """The route and the id in the path, or None."""
    for route in ROUTES:
        match = route.pattern.match(path) if route.method == method else None
        if match is not None:
            return route, match[1] if match.groups() else ""
    return None
