"""Ids: ordered by time, told apart by their books, refused to the letter."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from billing import errors, ids

keys = st.integers(0, 2**128 - 1).map(lambda number: UUID(int=number))
prefixes = st.sampled_from(sorted(ids.PREFIXES.values()))


@given(prefixes, keys)
def test_an_id_reads_back_as_its_key(prefix: str, key: UUID) -> None:
    assert ids.parse(prefix, ids.public(prefix, key)) == key


@given(prefixes, keys, st.text(max_size=40))
def test_no_other_text_is_that_id(prefix: str, key: UUID, text: str) -> None:
    assume(text != ids.public(prefix, key))
    try:
        assert ids.public(prefix, ids.parse(prefix, text)) == text
    except errors.NotFound:
        pass


@given(keys)
def test_an_id_moved_to_the_other_books_is_refused(key: UUID) -> None:
    text = ids.public("con", key)
    other = text.replace("con_test_", "con_") if ids.is_sandbox(key) else f"con_test_{text[4:]}"
    with pytest.raises(errors.NotFound):
        ids.parse("con", other)


@pytest.mark.parametrize("change", [str.lower, lambda text: text + "0", lambda text: text[:-1]])
def test_an_id_changed_in_anything_is_refused(change: object) -> None:
    text = ids.public("con", ids.new(sandbox=True))
    assert callable(change)
    with pytest.raises(errors.NotFound):
        ids.parse("con", "con_test_" + change(text[9:]) if change is str.lower else change(text))


@given(st.booleans(), st.datetimes(datetime(2020, 1, 1), datetime(2200, 1, 1)))
def test_a_key_tells_its_books_and_its_millisecond(sandbox: bool, moment: datetime) -> None:
    at = moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
    key = ids.new(sandbox=sandbox, at=at)
    assert ids.is_sandbox(key) == sandbox
    assert abs((ids.made_at(key) - at).total_seconds()) <= 0.001


@given(st.booleans())
def test_a_secret_key_is_known_by_its_checksum(sandbox: bool) -> None:
    key = ids.new_secret_key(sandbox)
    assert ids.check_secret_key(key)
    for place in (0, 12, 40, len(key) - 1):
        wrong = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
        assert not ids.check_secret_key(wrong)
