"""Ids and keys: time-ordered, prefixed, recognisable. Pure; anybody may call.

A row's key is a ULID held as a UUID: 48 bits of milliseconds, then 80 random bits, the first of
which says sandbox. So an id tells its books without a query, and `con_test_...` with a live key is
refused at the door. Secret keys carry a checksum, so that a typo needs no query and a leak is
findable.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import time
import zlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

from billing import errors

# What a public id begins with, by the noun. Each once.
PREFIXES = {
    "connection": "con",
    "subscription": "sub",
    "plan": "sc",
    "meter": "prd",
    "credit_bundle": "cb",
    "request": "req",
    "checkout_session": "cs",
    "checkout_secret": "css",
    "payment": "pay",
    "webhook": "whk",
    "secret_key": "key",
    "event": "evt",
    "delivery": "dlv",
    "customer": "cus",
    "organization": "org",
    "merchant": "mer",
    "invitation": "inv",
    "grant": "grt",
    "payment_method": "pm",
    "cycle": "cyc",
    "refund": "ref",
    "approval": "apr",
    "dispute": "dsp",
    "payment_attempt": "att",
    "card_account": "cac",
    "message": "msg",
    "meter_price": "mpr",
    "phone_verification": "phv",
    "portal_visit": "pvs",
    "plan_move": "mov",
    "customer_import": "imp",
    "http_request": "rid",
    "hold": "hld",
    "provider": "prv",
    "provider_key": "pvk",
    "model_price": "mdp",
    "spend_key": "spk",
    "key_offer": "kof",
}

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_SHIFTS = range(120, -1, -10)
# The same number in the digits that Python reads with base 32.
_DIGITS = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")
_ULID = re.compile(rf"[0-7][{_CROCKFORD}]{{25}}\Z")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE62_SET = frozenset(_BASE62)
_SANDBOX_BIT = 1 << 79
_SECRET_WIDTH = 43
_CHECKSUM_WIDTH = 6


def new(*, sandbox: bool, at: datetime | None = None) -> UUID:
    """A new key, ordered by time to the millisecond (`at`, default: now)."""
    moment_ms = time.time_ns() // 1_000_000 if at is None else int(at.timestamp() * 1000)
    tail = int.from_bytes(os.urandom(10), "big") & (_SANDBOX_BIT - 1)
    if sandbox:
        tail |= _SANDBOX_BIT
    return UUID(int=moment_ms << 80 | tail)


def first(moment: datetime) -> UUID:
    """The least key made at an instant of real time: where a range of keys begins."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def made_at(key: UUID) -> datetime:
    """When a key was made, to the millisecond, in real time whatever a sandbox's clock says."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=key.int >> 80)


def is_sandbox(key: UUID) -> bool:
    """Whether a key belongs to a sandbox."""
    return bool(key.int & _SANDBOX_BIT)


@functools.lru_cache(maxsize=4096)
def public(prefix: str, key: UUID) -> str:
    """A key as clients see it: `con_01J...`, `con_test_01J...`."""
    value = key.int
    middle = "test_" if value & _SANDBOX_BIT else ""
    # Two characters a step: 26 are 13 times 10 bits.
    characters = [_PAIRS[value >> shift & 1023] for shift in _SHIFTS]
    return f"{prefix}_{middle}{''.join(characters)}"


def parse(prefix: str, text: str) -> UUID:
    """The key behind a public id.

    Raises:
        billing.errors.NotFound: it is not an id of that kind, to the letter.
    """
    head = f"{prefix}_"
    rest = text.removeprefix(head)
    test = rest.startswith("test_")
    rest = rest.removeprefix("test_")
    if not (text.startswith(head) and _ULID.match(rest)):
        raise _not_found(prefix, text)
    key = UUID(int=int(rest.translate(_DIGITS), 32))
    if is_sandbox(key) != test:
        raise _not_found(prefix, text)
    return key


def _not_found(prefix: str, text: str) -> errors.NotFound:
    return errors.NotFound(f"No such id: {text[:80]!r}. Expected {prefix}_...")


def base62(data: bytes, width: int) -> str:
    """Bytes as a number in base 62, with leading zeros to `width` characters."""
    value = int.from_bytes(data, "big")
    characters = []
    for _ in range(width):
        value, digit = divmod(value, 62)
        characters.append(_BASE62[digit])
    return "".join(reversed(characters))


def new_secret_key(sandbox: bool) -> str:
    """A backend's key: prefix, 32 random bytes in base 62, a CRC32 checksum of 6 characters."""
    body = ("aks_test_" if sandbox else "aks_live_") + base62(
        secrets.token_bytes(32), _SECRET_WIDTH
    )
    return body + _checksum(body)


def check_secret_key(text: str) -> bool:
    """Whether a text can be a key at all: prefix, length, letters, checksum. Needs no query."""
    if len(text) != 9 + _SECRET_WIDTH + _CHECKSUM_WIDTH:
        return False
    if not text.startswith(("aks_live_", "aks_test_")) or not _BASE62_SET.issuperset(text[9:]):
        return False
    return secrets.compare_digest(_checksum(text[:-_CHECKSUM_WIDTH]), text[-_CHECKSUM_WIDTH:])


def secret_hash(text: str) -> bytes:
    """What is stored of a secret: its SHA-256, 32 bytes."""
    return hashlib.sha256(text.encode()).digest()


def _checksum(text: str) -> str:
    return base62(zlib.crc32(text.encode()).to_bytes(4, "big"), _CHECKSUM_WIDTH)
