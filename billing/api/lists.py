"""Lists on the wire: newest first, `limit` and `cursor`, `has_more` and `next_cursor` (api.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors
from billing.api import fields

_DIGITS = re.compile(r"[0-9]{1,3}\Z")
DEFAULT_LIMIT = 10
LARGEST_LIMIT = 100


def limit_of(request: Request) -> int:
    """The page size asked for.

    Raises:
        billing.errors.Invalid: not a whole number from 1 to 100.
    """
    text = request.query_params.get("limit") or str(DEFAULT_LIMIT)
    if not (_DIGITS.match(text) and 1 <= int(text) <= LARGEST_LIMIT):
        raise errors.Invalid(f"Use a limit from 1 to {LARGEST_LIMIT}.", param="limit")
    return int(text)


def page(
    request: Request,
    rows: Any,
    *,
    cursor_key: Callable[[str], UUID],
    present: Callable[[Any], dict[str, Any]],
    cursor_of: Callable[[Any], str] = lambda row: str(row.public_id),
    look: Callable[[list[Any]], None] = lambda rows: None,
) -> Response:
    """One page of `rows`, newest first by their time-ordered key.

    `cursor_key` turns the cursor (the id of the last item) into its key and raises
    `billing.errors.NotFound` for one that is not the merchant's. `look` sees the page's rows before
    they are presented, to read what belongs to them in one query.
    """
    limit = limit_of(request)
    cursor = request.query_params.get("cursor")
    if cursor:
        try:
            rows = rows.filter(pk__lt=cursor_key(cursor))
        except errors.NotFound as error:
            raise errors.Invalid("The cursor is not the id of an item.", param="cursor") from error
    found = list(rows.order_by("-pk")[: limit + 1])
    look(found[:limit])
    answer: dict[str, Any] = {
        "data": [present(row) for row in found[:limit]],
        "has_more": len(found) > limit,
    }
    if answer["has_more"]:
        answer["next_cursor"] = cursor_of(found[limit - 1])
    return Response(answer)


def named(rows: Any, body: dict[str, Any], name: str) -> Any:
    """The row that a field of a body names by its id; none, or another merchant's, is a wrong
    field.

    Raises:
        billing.errors.Invalid: the field is missing or no text.
        billing.errors.NotFound: naming the field.
    """
    text = fields.required_text(body, name)
    try:
        return rows.by_public_id(text)
    except errors.NotFound as error:
        raise errors.NotFound(error.message, param=name) from error
