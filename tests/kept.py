"""Rows that many tests of a module begin with: made once, in a transaction that stays open, and
gone back to after each test, which runs in a savepoint above them.

A fixture says what it keeps in two steps, as `tests/lava/console/conftest.py` does: `open` in a
fixture of class scope, which comes before the test's own transaction begins, and `give` in the
fixture that tests name. What is made may hang on no fixture of a single test.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import DjangoDbBlocker

# Their tests commit, and other connections look on: nothing is kept under these.
_COMMITTING = {"transactional_db", "live_server", "django_db_reset_sequences"}


class Kept:
    """A stack of things made, each in an open transaction: the later ones stand on the earlier."""

    def __init__(self) -> None:
        self._stack: list[tuple[str, Any, transaction.Atomic]] = []
        self._wanted: Collection[str] = ()
        self.blocker: DjangoDbBlocker | None = None

    def begin(self, item: pytest.Item) -> None:
        """A test begins: what it does not ask for is taken back, so that it sees none of it."""
        self._wanted = set() if _commits(item) else set(getattr(item, "fixturenames", ()))
        known = 0
        for name, _, _ in self._stack:
            if name not in self._wanted:
                break
            known += 1
        self._take_back(down_to=known)

    def open(self, name: str, make: Callable[[], Any]) -> None:
        """Make a thing that is not there yet, for this test and the next ones that ask for it."""
        if name not in self._wanted or any(name == known for known, _, _ in self._stack):
            return
        assert self.blocker is not None
        with self.blocker.unblock():
            block = transaction.atomic()
            # As in Django's own test cases: what must be outermost elsewhere may stand in here.
            block._from_testcase = True  # type: ignore[attr-defined]
            block.__enter__()
            try:
                made = make()
                # Else every test's end would check these rows anew.
                connection.check_constraints()
            except BaseException:
                _roll_back(block)
                raise
        self._stack.append((name, made, block))

    def give(self, name: str, make: Callable[[], Any]) -> Any:
        """A copy of what was made, for one test; made anew for a test that commits."""
        for known, made, _ in self._stack:
            if known == name:
                return copy.deepcopy(made)
        return make()

    def close(self) -> None:
        """Take everything back."""
        self._take_back(down_to=0)

    def _take_back(self, *, down_to: int) -> None:
        while len(self._stack) > down_to:
            _, _, block = self._stack.pop()
            assert self.blocker is not None
            with self.blocker.unblock():
                _roll_back(block)


def _roll_back(block: transaction.Atomic) -> None:
    transaction.set_rollback(True)
    block.__exit__(None, None, None)


def _commits(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("django_db")
    names = set(getattr(item, "fixturenames", ()))
    return bool(marker and marker.kwargs.get("transaction")) or bool(names & _COMMITTING)


KEPT = Kept()


@pytest.fixture(scope="module")
def kept(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Kept]:
    """What is kept within one module."""
    KEPT.blocker = django_db_blocker
    yield KEPT
    KEPT.close()
