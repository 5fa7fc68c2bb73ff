"""Prepared statements for the hot path: one call of libpq a run, on the thread's own connection.

Django's cursor sends its parameters inside the text, so that the server parses and plans each time;
psycopg's own prepares, but waits in Python. Here the statement is prepared once a connection and
run by libpq's blocking call, which waits without the interpreter's lock. Only `meters.usage` has a
path hot enough for it; everything else speaks through Django.

Errors are those of `django.db`, transactions and the log of queries are Django's.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

# invalid_sql_statement_name, duplicate_prepared_statement
_UNKNOWN, _KNOWN = b"26000", b"42P05"


class Statement:
    """A statement that gives rows, mostly one. Its parameters are `$1`, `$2`, ... of known types.

    Times come back in UTC; JSON is best asked for as text.
    """

    def __init__(self, name: str, sql: str) -> None:
        # A pooler may hand on a link on which another version of the product prepared its own.
        self.name = f"{name}_{zlib.crc32(sql.encode()):08x}".encode()
        self.sql = sql
        # Where it is prepared, with the loaders for its columns.
        self._prepared: WeakKeyDictionary[psycopg.Connection[Any], Any] = WeakKeyDictionary()

    def row(self, params: Sequence[bytes | None]) -> tuple[Any, ...]:
        """Run it; gives its first row. The parameters in PostgreSQL's text form (see `text`).

        Raises:
            django.db.Error: as any query of Django's.
        """
        return self.rows(params)[0]

    def rows(self, params: Sequence[bytes | None]) -> list[tuple[Any, ...]]:
        """As `row`, with all of them."""
        database = connections[DEFAULT_DB_ALIAS]
        database.ensure_connection()
        database.validate_no_broken_transaction()
        since = time.monotonic()
        with database.wrap_database_errors:
            found = self._run(database.connection, params)
        if database.queries_logged:
            spent = time.monotonic() - since
            database.queries_log.append({"sql": self.sql, "time": f"{spent:.3f}"})
        return found

    def _run(
        self, link: psycopg.Connection[Any], params: Sequence[bytes | None]
    ) -> list[tuple[Any, ...]]:
        if link.autocommit:
            result = self._prepared_run(link, params)
        else:
            # Inside atomic(): begun as psycopg's cursors do. Not prepared: a statement that was
            # forgotten meanwhile would take the transaction with it.
            if link.pgconn.transaction_status == TransactionStatus.IDLE:
                _check(link, link.pgconn.exec_(b"BEGIN"))
            result = link.pgconn.exec_params(self.sql.encode(), params)
        _check(link, result)
        # psycopg's own loaders, in C; those that Django sets on its connections are in Python.
        loader = self._prepared.get(link) or Transformer()
        loader.set_pgresult(result)
        found: list[tuple[Any, ...]] = loader.load_rows(0, result.ntuples, tuple)
        return found

    def _prepared_run(
        self, link: psycopg.Connection[Any], params: Sequence[bytes | None]
    ) -> PGresult:
        if link in self._prepared:
            # None is NULL; psycopg's annotation forgets it.
            result = link.pgconn.exec_prepared(self.name, params)  # type: ignore[arg-type]
            if result.error_field(DiagnosticField.SQLSTATE) != _UNKNOWN:
                return result
        # New here, or forgotten: DEALLOCATE ALL is sent by psycopg after some rollbacks, and by
        # poolers between two clients. What is not known has not run.
        made = link.pgconn.prepare(self.name, self.sql.encode())
        if made.error_field(DiagnosticField.SQLSTATE) != _KNOWN:
            _check(link, made)
        self._prepared[link] = Transformer()
        return link.pgconn.exec_prepared(self.name, params)  # type: ignore[arg-type]


def _check(link: psycopg.Connection[Any], result: PGresult) -> None:
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        # An error without a state is not the server's: it went away without a word.
        bad = link.pgconn.status == ConnStatus.BAD
        if bad or result.error_field(DiagnosticField.SQLSTATE) is None:
            raise psycopg.OperationalError(result.get_error_message())
        raise psycopg.errors.error_from_result(result)


def text(value: Any) -> bytes | None:
    """A value in PostgreSQL's text form."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, datetime):
        return value.isoformat().encode()
    if isinstance(value, Decimal):
        return f"{value:f}".encode()
    return str(value).encode()


def array(values: Sequence[Any]) -> bytes:
    """An array in PostgreSQL's text form; None is NULL in it."""
    words = []
    for value in values:
        word = text(value)
        if word is None:
            words.append(b"NULL")
        elif isinstance(value, int | Decimal):
            words.append(word)
        else:
            words.append(b'"' + word.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
    return b"{" + b",".join(words) + b"}"
