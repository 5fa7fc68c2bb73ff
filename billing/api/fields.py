"""Fields on the wire: strict readers for what comes in, one writer for times that go out.

Every reader raises `billing.errors.Invalid` with the field's name and the mend. Unknown fields are
ignored, never assigned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.dateparse import parse_datetime

from billing import errors, money

FURTHEST_OFFSET = timedelta(hours=14)
METADATA_KEY = re.compile(r"[A-Za-z0-9_]{1,255}\Z")
E164 = re.compile(r"\+[1-9][0-9]{6,14}\Z")
LARGEST_COUNT = 10**12


def text(body: dict[str, Any], name: str, *, required: bool = False, most: int = 255) -> str | None:
    """A string of 1 to `most` characters, without control characters; None when absent."""
    value = body.get(name)
    if value is None:
        if required:
            raise errors.Invalid(f"`{name}` is missing.", param=name)
        return None
    if not isinstance(value, str):
        raise errors.Invalid(f"`{name}` must be a string.", param=name)
    if not 1 <= len(value) <= most:
        raise errors.Invalid(f"`{name}` must have 1 to {most} characters.", param=name)
    if not value.isprintable():
        raise errors.Invalid(f"`{name}` must not hold control characters.", param=name)
    return value


def nullable_text(body: dict[str, Any], name: str, *, most: int = 255) -> str:
    """As `text`, for a field that may be emptied: null and "" are the empty string."""
    return "" if body.get(name) == "" else text(body, name, most=most) or ""


def required_text(body: dict[str, Any], name: str, *, most: int = 255) -> str:
    """As `text`, for a field that must be there."""
    value = text(body, name, required=True, most=most)
    assert value is not None
    return value


def email(body: dict[str, Any], name: str = "email") -> str:
    """An e-mail address; empty when absent, null or ""."""
    value = nullable_text(body, name, most=254)
    if value:
        try:
            validate_email(value)
        except ValidationError as error:
            raise errors.Invalid(f"`{name}` is not an e-mail address.", param=name) from error
    return value


def phone(body: dict[str, Any], name: str = "phone") -> str:
    """A phone number as E.164, +14155550142; empty when absent, null or ""."""
    value = nullable_text(body, name, most=16)
    if value and not E164.match(value):
        raise errors.Invalid(
            f"`{name}` must be a phone number with its country code: +14155550142.", param=name
        )
    return value


def items(body: dict[str, Any], name: str, *, most: int) -> list[dict[str, Any]] | None:
    """A list of at most `most` objects; None when absent."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise errors.Invalid(f"`{name}` must be a list of objects.", param=name)
    if len(value) > most:
        raise errors.Invalid(f"`{name}` must have at most {most} items.", param=name)
    return value


def texts(body: dict[str, Any], name: str, *, most: int) -> list[str] | None:
    """A list of at most `most` strings; None when absent."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise errors.Invalid(f"`{name}` must be a list of strings.", param=name)
    if len(value) > most:
        raise errors.Invalid(f"`{name}` must have at most {most} items.", param=name)
    return value


def choice(
    body: dict[str, Any], name: str, options: Sequence[str], *, default: str | None = None
) -> str:
    """One of a few words; absent is `default`, where there is one."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or value not in options:
        raise errors.Invalid(f"`{name}` must be one of {', '.join(options)}.", param=name)
    return value


def count(body: dict[str, Any], name: str) -> int:
    """A whole number from 0; absent is 0."""
    value = body.get(name)
    if value is None:
        return 0
    if type(value) is not int:
        raise errors.Invalid(f"`{name}` must be a whole number.", param=name)
    if not 0 <= value < LARGEST_COUNT:
        raise errors.Invalid(f"`{name}` must be 0 or more, below 10^12.", param=name)
    return value


def seconds(body: dict[str, Any], name: str) -> Decimal:
    """A number of seconds from 0, at most 6 decimals; absent is 0."""
    value = body.get(name)
    if value is None:
        return Decimal(0)
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise errors.Invalid(f"`{name}` must be a number.", param=name)
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -6:
        raise errors.Invalid(f"`{name}` must have at most 6 decimals.", param=name)
    if value.is_signed() or not 0 <= value < 10**9:
        raise errors.Invalid(f"`{name}` must be 0 or more, below 10^9.", param=name)
    return value


def amount(body: dict[str, Any], name: str) -> Decimal | None:
    """An amount of money as a string of at most 12 digits and 10 decimals; None when absent."""
    value = body.get(name)
    return None if value is None else money.parse_amount(value, param=name)


def flag(body: dict[str, Any], name: str) -> bool:
    """true or false; absent is false."""
    value = body.get(name, False)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise errors.Invalid(f"`{name}` must be true or false.", param=name)
    return value


def moment(value: Any, name: str) -> datetime:
    """An ISO 8601 instant with its offset."""
    try:
        found = parse_datetime(value) if isinstance(value, str) and len(value) <= 40 else None
    except ValueError:
        found = None
    offset = found.utcoffset() if found is not None else None
    # No zone is further from UTC, and PostgreSQL reads no offset much beyond.
    known = offset is not None and abs(offset) <= FURTHEST_OFFSET
    if found is None or not known or not 1970 <= found.year <= 9000:
        raise errors.Invalid(
            f"`{name}` must be a time with its offset, such as 2026-11-23T10:41:07Z.", param=name
        )
    return found


def metadata(body: dict[str, Any], name: str = "metadata") -> dict[str, str]:
    """Up to 100 pairs of strings; keys of letters, digits and _."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.Invalid(f"`{name}` must be an object.", param=name)
    if len(value) > 100:
        raise errors.Invalid(f"`{name}` must have at most 100 pairs.", param=name)
    for key, item in value.items():
        if not METADATA_KEY.match(key):
            raise errors.Invalid(
                f"A key of `{name}` must be 1 to 255 letters, digits or _.", param=name
            )
        if not isinstance(item, str) or len(item) > 255 or "\x00" in item:
            raise errors.Invalid(
                f"`{name}.{key}` must be a string of at most 255 characters.", param=name
            )
    return value


def instant(value: datetime | None) -> str | None:
    """A time on the wire: ISO 8601 in UTC with Z."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
