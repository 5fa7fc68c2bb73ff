"""Strict JSON in, fast JSON out.

Refused before any view sees it (api.md, Strict in): duplicate keys, nesting over 32, NUL and lone
surrogates anywhere, NaN and Infinity, bodies over the limit, other encodings than UTF-8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from billing import errors

LARGEST_BODY = 1024 * 1024
DEEPEST = 32
LONGEST_NUMBER = 64
# A string of JSON, or what begins as one and has no end. Possessive, and it always ends: however
# odd the body, it is read once.
_TEXT = re.compile(r'"(?:[^"\\]|\\(?:.|\Z))*+(?:"|\Z)', re.DOTALL)
_BRACKET = re.compile(r"[{}\[\]]")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise errors.Invalid("The JSON names a field twice.", code="duplicate_field")
    return found


def _constant(text: str) -> Any:
    raise errors.Invalid(f"{text} is not a number that can be billed.", code="malformed_json")


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise errors.Invalid("A number has too many digits.", code="malformed_json")
    return int(text)


def _decimal(text: str) -> Decimal:
    if "e" in text or "E" in text or len(text) > LONGEST_NUMBER:
        raise errors.Invalid("Write numbers without an exponent.", code="malformed_json")
    return Decimal(text)


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_int=_whole, parse_float=_decimal
)


def parse(raw: bytes, *, most: int = LARGEST_BODY) -> Any:
    """Decode a JSON body strictly; numbers with a point become `Decimal`.

    Raises:
        billing.errors.TooLarge, billing.errors.Invalid
    """
    if len(raw) > most:
        raise errors.TooLarge(f"The body is larger than {most} bytes.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.Invalid("The body is not UTF-8.", code="malformed_json") from error
    if raw.count(b"{") + raw.count(b"[") > DEEPEST and _depth(text) > DEEPEST:
        raise errors.Invalid(f"The JSON nests deeper than {DEEPEST}.", code="malformed_json")
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise errors.Invalid(
            f"The body is not JSON: {error.msg} at character {error.pos}.", code="malformed_json"
        ) from error
    if "\\u" in text or "\x00" in text:
        _refuse_bad_characters(value)
    return value


def _depth(text: str) -> int:
    """How deep brackets nest, those in strings left out; past `DEEPEST` it reads no further."""
    depth = deepest = 0
    for found in _BRACKET.finditer(_TEXT.sub("", text)):
        if found[0] in "{[":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > DEEPEST:
                break
        else:
            depth -= 1
    return deepest


def _refuse_bad_characters(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_bad_characters(key)
            _refuse_bad_characters(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_bad_characters(item)
    elif isinstance(value, str):
        if "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise errors.Invalid("The JSON holds a NUL or half a character.", code="malformed_json")


class StrictJSONParser(BaseParser):
    """JSON bodies of any content type that says JSON; see `parse`."""

    media_type = "application/json"

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        view = (parser_context or {}).get("view")
        most = getattr(view, "largest_body", LARGEST_BODY)
        raw = stream.read(most + 1)
        return parse(raw, most=most) if raw.strip() else {}


class JSONRenderer(BaseRenderer):
    """JSON by orjson. Money is strings already; a Decimal here would be a mistake and raises."""

    media_type = "application/json"
    format = "json"
    charset = None
    render_style = "binary"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return orjson.dumps(data)


class JSONOnly(BaseContentNegotiation):
    """The API speaks JSON whatever is accepted: no negotiation, no 406."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        kind = (request.content_type or "application/json").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            return None
        return parsers[0]

    def select_renderer(
        self, request: Any, renderers: Any, format_suffix: str | None = None
    ) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type
