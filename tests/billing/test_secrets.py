"""Secrets at rest: what is stored says nothing, and old keys still open."""

from __future__ import annotations

from typing import Any

import pytest

from billing import errors, secrets

TEXT = "sk-proj-1234567890abcdef"


def test_a_sealed_secret_opens_again_and_shows_nothing() -> None:
    sealed = secrets.seal(TEXT)
    assert secrets.open(sealed) == secrets.open(memoryview(sealed)) == TEXT
    assert secrets.open(secrets.seal(TEXT.encode())) == TEXT
    assert b"1234" not in sealed and secrets.seal(TEXT) != sealed


def test_any_changed_byte_is_noticed() -> None:
    sealed = bytearray(secrets.seal(TEXT))
    for place in (0, 20, len(sealed) // 2, len(sealed) - 3):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(errors.Unavailable):
            secrets.open(bytes(changed))
    with pytest.raises(errors.Unavailable):
        secrets.open(b"")


def test_a_secret_outlives_a_change_of_the_key_only_by_the_fallbacks(settings: Any) -> None:
    sealed = secrets.seal(TEXT)
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another key " * 8
    with pytest.raises(errors.Unavailable):
        secrets.open(sealed)
    settings.SECRET_KEY_FALLBACKS = [old]
    assert secrets.open(sealed) == TEXT
    moved = secrets.reseal(sealed)
    settings.SECRET_KEY_FALLBACKS = []
    assert secrets.open(moved) == TEXT


def test_the_end_of_a_short_secret_is_not_shown() -> None:
    assert secrets.last4(TEXT) == "cdef"
    assert secrets.last4("short") == ""
