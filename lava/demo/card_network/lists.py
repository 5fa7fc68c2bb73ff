"""List answers: filters, pages, newest first (docs.stripe.com/api/pagination). Used by the
resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lava.demo.card_network import calls
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.errors import ApiError

_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def page(
    call: Call,
    kind: str,
    *,
    url: str,
    filters: Mapping[str, str],
    where: str = "",
    values: Sequence[Any] = (),
) -> Json:
    """One page of a mode's objects of a kind.

    `filters` maps a parameter to the field that must equal it. `where` is a condition of ours.
    """
    params = call.params
    params.only("limit", "starting_after", "ending_before", "created", *filters)
    limit = params.integer("limit")
    limit = 10 if limit is None else limit
    if not 1 <= limit <= 100:
        raise ApiError(
            400,
            "This value must be between 1 and 100.",
            code="parameter_invalid_integer",
            param="limit",
        )
    arguments = list(values)
    where += " AND coalesce(json_extract(hidden, '$.account'), ?) = ?"
    arguments += [calls.HOME, call.account]
    for name, field in filters.items():
        value = params.text(name)
        if value is not None:
            where += f" AND json_extract(body, '$.{field}') = ?"
            arguments.append(value)
    where += _created(call, arguments)
    backwards = params.text("ending_before")
    forwards = params.text("starting_after")
    if backwards and forwards:
        raise ApiError(
            400, "You may only specify one of these parameters: ending_before, starting_after."
        )
    if forwards:
        where += " AND seq < ?"
        arguments.append(call.get(kind, forwards, param="starting_after").seq)
    if backwards:
        where += " AND seq > ?"
        arguments.append(call.get(kind, backwards, param="ending_before").seq)
    found = call.store.select(
        call.mode, kind, where, arguments, limit=limit + 1, newest=not backwards
    )
    rows = found[:limit]
    if backwards:
        rows.reverse()
    return {
        "object": "list",
        "data": [row.body for row in rows],
        "has_more": len(found) > limit,
        "url": url,
    }


def _created(call: Call, arguments: list[Any]) -> str:
    """The condition of `created`: an instant, or a group of comparisons."""
    params = call.params
    if isinstance(params.values.get("created"), str):
        arguments.append(params.integer("created"))
        return " AND json_extract(body, '$.created') = ?"
    group = params.group("created")
    if group is None:
        return ""
    group.only(*_COMPARISONS)
    where = ""
    for name, comparison in _COMPARISONS.items():
        instant = group.integer(name)
        if instant is not None:
            where += f" AND json_extract(body, '$.created') {comparison} ?"
            arguments.append(instant)
    return where
