"""Events as the API lists them, for a receiver that missed some. docs.stripe.com/api/events"""

from __future__ import annotations

from lava.demo.card_network import lists
from lava.demo.card_network.calls import Call, Json


def retrieve(call: Call, id: str) -> Json:
    """GET /v1/events/{id}"""
    call.params.only()
    return call.get("event", id).body


def list_all(call: Call, _: str) -> Json:
    """GET /v1/events, by `type` or `types`."""
    types = call.params.values.pop("types", None)
    where, values = "", []
    if isinstance(types, list) and types:
        marks = ", ".join("?" for _ in types)
        where = f" AND json_extract(body, '$.type') IN ({marks})"
        values = [str(name) for name in types]
    return lists.page(
        call, "event", url="/v1/events", filters={"type": "type"}, where=where, values=values
    )
