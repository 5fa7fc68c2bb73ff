"""Who pays: the token that a caller sends in place of a provider's key, in every spelling. Pure.

aks_...          a merchant's secret key: the merchant's own call
lft_...          an opaque forward token (spend key): what it may do is stored with its hash
base64 of JSON   {"secret_key", "connection_id", "meter_slug", "provider_key"?, ...}, as the
                 official clients make it; url-safe, unpadded and broken over lines too
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import orjson

from billing import errors, ids
from meters.gateway import providers

PREFIX = "lft_"
LONGEST = 8192
_SPACE = re.compile(r"\s+")
# 9 or 4 characters of prefix and mode, 43 of the secret, 6 of the checksum.
_OPAQUE_BODY = 43
_CHECKSUM = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a caller's token says. `opaque` or `secret_key` is set, never both.

    A token prints without its secrets.
    """

    secret_key: str = field(default="", repr=False)
    opaque: str = field(default="", repr=False)
    connection: UUID | None = None
    meter: str = ""
    provider_key: str = field(default="", repr=False)
    disable_billing: bool = False

    @property
    def is_sandbox(self) -> bool:
        """Whether the token belongs to a sandbox."""
        return self.secret_key.startswith("aks_test_") or self.opaque.startswith("lft_test_")


def new(*, sandbox: bool) -> str:
    """A fresh opaque token; like a secret key, it ends in a checksum."""
    body = PREFIX + ("test_" if sandbox else "live_")
    body += ids.base62(secrets.token_bytes(32), _OPAQUE_BODY)
    return body + _checksum(body)


def find(headers: Mapping[bytes, bytes], query: str) -> tuple[Token, str]:
    """The token of a call and the slot it came in; `headers` with names in small letters.

    Raises:
        billing.errors.Unauthenticated: none, or none that can be one.
    """
    first: errors.LavaError | None = None
    for slot, text in _candidates(headers, query):
        if not text:
            continue
        try:
            return parse(text, in_query=slot == "key"), slot
        except errors.LavaError as error:
            # Some SDKs send a placeholder in one slot and the key in another.
            first = first or error
    raise first or errors.Unauthenticated(
        "Send a forward token in the place of the provider's key, e.g. as "
        "`Authorization: Bearer ...`.",
        code="key_missing",
    )


def _candidates(headers: Mapping[bytes, bytes], query: str) -> Iterable[tuple[str, str]]:
    for slot in providers.SLOTS:
        if slot == "key":
            for part in query.split("&"):
                name, _, value = part.partition("=")
                if name == "key":
                    yield slot, unquote(value)
            continue
        text = headers.get(slot.encode(), b"").decode("latin-1").strip()
        if slot == providers.BEARER:
            scheme, _, rest = text.partition(" ")
            text = rest.strip() if scheme.lower() == "bearer" else ""
        yield slot, text


def parse(text: str, *, in_query: bool = False) -> Token:
    """Read one token.

    Raises:
        billing.errors.Unauthenticated: it can be none: prefix, checksum or encoding.
        billing.errors.Invalid: it is one and says something impossible.
    """
    if len(text) > LONGEST:
        raise errors.invalid_key()
    text = _SPACE.sub("", text)
    if text.startswith("aks_"):
        if in_query:
            raise errors.Unauthenticated(
                "A secret key does not belong in an address: send it as a header.",
                code="key_in_query",
            )
        return Token(secret_key=_secret_key(text))
    if text.startswith(PREFIX):
        if not _is_opaque(text):
            raise errors.invalid_key()
        return Token(opaque=text)
    return _packed(text)


def _packed(text: str) -> Token:
    """A token that is base64 of JSON."""
    try:
        plain = text.translate(_URL_SAFE).rstrip("=")
        told: Any = orjson.loads(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True))
    except (ValueError, binascii.Error) as error:
        raise errors.invalid_key() from error
    if not isinstance(told, dict):
        raise errors.invalid_key()
    connection = _text(told, "connection_id", "customer_id", "connection_secret")
    meter = _text(told, "meter_slug", "product_secret", "meter_secret")
    disabled = told.get("disable_billing")
    if disabled is not None and not isinstance(disabled, bool):
        raise errors.Invalid("`disable_billing` must be true or false.", param="disable_billing")
    if connection and not meter:
        raise errors.Invalid(
            "The token names a connection and no meter: give `meter_slug` too.",
            code="meter_missing",
            param="meter_slug",
        )
    return Token(
        secret_key=_secret_key(_text(told, "secret_key")),
        connection=_connection(connection) if connection else None,
        meter=meter[:64],
        provider_key=_provider_key(_text(told, "provider_key")),
        disable_billing=bool(disabled),
    )


_URL_SAFE = str.maketrans("-_", "+/")


def _text(told: dict[str, Any], *names: str) -> str:
    """The first of some fields that is there; null is absent."""
    for name in names:
        value = told.get(name)
        if value is None or value == "":
            continue
        if not isinstance(value, str) or not value.isprintable():
            raise errors.Invalid(f"`{name}` of the token must be a string.", param=name)
        return value
    return ""


def _connection(text: str) -> UUID:
    try:
        return ids.parse("con", text)
    except errors.NotFound as error:
        raise errors.NotFound(
            "No such connection.", code="connection_not_found", param="connection_id"
        ) from error


def _provider_key(text: str) -> str:
    if text and not (text.isascii() and " " not in text and len(text) <= 4096):
        raise errors.Invalid(
            "`provider_key` of the token is no key that a header can carry.", param="provider_key"
        )
    return text


def _secret_key(text: str) -> str:
    if not ids.check_secret_key(text):
        raise errors.invalid_key()
    return text


def _is_opaque(text: str) -> bool:
    head = text[: len(PREFIX) + 5]
    if head not in ("lft_test_", "lft_live_"):
        return False
    if len(text) != len(head) + _OPAQUE_BODY + _CHECKSUM or not text[4:].isascii():
        return False
    return secrets.compare_digest(_checksum(text[:-_CHECKSUM]), text[-_CHECKSUM:])


def _checksum(text: str) -> str:
    return ids.base62(zlib.crc32(text.encode()).to_bytes(4, "big"), _CHECKSUM)
