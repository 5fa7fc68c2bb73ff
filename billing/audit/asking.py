"""How a rule asks: SQL, or a function over rows that come a few thousand at a time.

For `billing.audit` and `meters.audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, LiteralString, cast

from django.db import connection as database

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must be true; `find` is SQL, or a function, that gives what breaks it."""

    name: str
    sentence: str
    find: LiteralString | Callable[[], Iterator[Row]]

    def rows(self, limit: int = 100) -> list[Row]:
        """What breaks the rule, at most `limit` rows; empty when it holds."""
        found = query(self.find) if isinstance(self.find, str) else self.find()
        return [row for row, _ in zip(found, range(limit), strict=False)]


def chunks(sql: str) -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
    """An answer in parts that fit into memory: the columns' names, and rows."""
    with database.chunked_cursor() as cursor:
        cursor.execute(sql)
        while rows := cursor.fetchmany(5000):
            yield [column[0] for column in cast(Any, cursor.description)], rows


def stream(sql: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a question, one at a time."""
    for _, rows in chunks(sql):
        yield from rows


def query(sql: str) -> Iterator[Row]:
    """The rows of a question, one at a time, each with its columns' names."""
    for names, rows in chunks(sql):
        for row in rows:
            yield dict(zip(names, row, strict=True))
