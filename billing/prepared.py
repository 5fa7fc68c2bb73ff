"""Prepared statements for the hot path: one call of libpq a run, on the thread's own connection.

Django's cursor sends its parameters inside the text, so that the server parses and plans each time;
psycopg's own prepares, but waits in Python. Here the statement is prepared once a connection and
run by libpq's blocking call, which waits without the interpreter's lock. Only `meters.usage` and
the gateway have a path hot enough for it; everything else speaks through Django.

Errors are those of `django.db`, transactions and the log of queries are Django's; but for `row_on`,
which runs on a connection of the caller's own and in its event loop.
"""

from __future__ import annotations

import asyncio
import select
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

Link = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

# Types whose values PostgreSQL reads as Python writes them.
_AS_WRITTEN = {int, bool, Decimal}
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
        self._prepared: WeakKeyDictionary[Link, Any] = WeakKeyDictionary()

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

    def rows_together(self, many: Sequence[Sequence[bytes | None]]) -> list[tuple[Any, ...]]:
        """Run it once with each of `many`, all in one transaction and one trip; gives the first row
        of each. Outside of any transaction only. What raises leaves nothing of any of them.

        Raises:
            django.db.Error: as any query of Django's.
        """
        database = connections[DEFAULT_DB_ALIAS]
        database.ensure_connection()
        since = time.monotonic()
        with database.wrap_database_errors:
            link: psycopg.Connection[Any] = database.connection
            if link not in self._prepared:
                self._note(link, link.pgconn.prepare(self.name, self.sql.encode()))
            results = _together(link, self.name, many)
            found = [self._load(link, result)[0] for result in results]
        if database.queries_logged:
            spent = time.monotonic() - since
            database.queries_log.append({"sql": self.sql, "time": f"{spent:.3f}"})
        return found

    async def row_on(
        self, link: psycopg.AsyncConnection[Any], params: Sequence[bytes | None]
    ) -> tuple[Any, ...]:
        """As `row`, on a connection in autocommit that nobody else uses meanwhile.

        Cancelled in the midst, it leaves the connection busy, and the pool throws that away.

        Raises:
            psycopg.Error: as any query of psycopg's.
        """
        pgconn = link.pgconn
        result: PGresult | None = None
        if link in self._prepared:
            pgconn.send_query_prepared(self.name, params)
            result = await _result(link)
        if result is None or result.error_field(DiagnosticField.SQLSTATE) == _UNKNOWN:
            pgconn.send_prepare(self.name, self.sql.encode())
            self._note(link, await _result(link))
            pgconn.send_query_prepared(self.name, params)
            result = await _result(link)
        _check(link, result)
        return self._load(link, result)[0]

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
        return self._load(link, result)

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
        self._note(link, link.pgconn.prepare(self.name, self.sql.encode()))
        return link.pgconn.exec_prepared(self.name, params)  # type: ignore[arg-type]

    def _note(self, link: Link, made: PGresult) -> None:
        """It is prepared there, by us or by whoever had the connection before."""
        if made.error_field(DiagnosticField.SQLSTATE) != _KNOWN:
            _check(link, made)
        self._prepared[link] = Transformer()

    def _load(self, link: Link, result: PGresult) -> list[tuple[Any, ...]]:
        # psycopg's own loaders, in C; those that Django sets on its connections are in Python.
        loader = self._prepared.get(link) or Transformer()
        loader.set_pgresult(result)
        found: list[tuple[Any, ...]] = loader.load_rows(0, result.ntuples, tuple)
        return found


def _together(
    link: psycopg.Connection[Any], name: bytes, many: Sequence[Sequence[bytes | None]]
) -> list[PGresult]:
    """Send them all, then read them all: up to the one sync they are one transaction."""
    pgconn = link.pgconn
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)

    def result() -> PGresult | None:
        # psycopg's `get_result` waits with the interpreter's lock held: come when it is there.
        while pgconn.is_busy():
            poll.poll()
            pgconn.consume_input()
        return pgconn.get_result()

    found: list[PGresult] = []
    pgconn.enter_pipeline_mode()
    try:
        for params in many:
            pgconn.send_query_prepared(name, params)
        pgconn.pipeline_sync()
        while (one := result()) is None or one.status != ExecStatus.PIPELINE_SYNC:
            if one is not None:
                found.append(one)
    finally:
        if pgconn.status != ConnStatus.BAD:
            pgconn.exit_pipeline_mode()
    for one in found:
        _check(link, one)
    return found


async def _result(link: psycopg.AsyncConnection[Any]) -> PGresult:
    """Wait for what was sent; gives its one result."""
    pgconn, loop = link.pgconn, asyncio.get_running_loop()
    while pgconn.flush():
        await _ready(pgconn.socket, loop.add_writer, loop.remove_writer)
    found: PGresult | None = None
    while True:
        while pgconn.is_busy():
            await _ready(pgconn.socket, loop.add_reader, loop.remove_reader)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            assert found is not None
            return found
        found = result


async def _ready(socket: int, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    """Wait until a socket can be read, or written."""
    ready = asyncio.Event()
    add(socket, ready.set)
    try:
        await ready.wait()
    finally:
        remove(socket)


def _check(link: Link, result: PGresult) -> None:
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        # An error without a state is not the server's: it went away without a word.
        bad = link.pgconn.status == ConnStatus.BAD
        if bad or result.error_field(DiagnosticField.SQLSTATE) is None:
            raise psycopg.OperationalError(result.get_error_message())
        raise psycopg.errors.error_from_result(result)


# By the type itself; what is of none of these is written as Python writes it.
_WORDS: dict[type, Callable[[Any], bytes | None]] = {
    type(None): lambda value: None,
    str: str.encode,
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"%d" % value,
    UUID: lambda value: value.hex.encode(),
    bytes: lambda value: b"\\x" + value.hex().encode(),
    datetime: lambda value: value.isoformat().encode(),
    Decimal: lambda value: f"{value:f}".encode(),
    timedelta: lambda value: b"%d microseconds" % (value // timedelta(microseconds=1)),
}


def text(value: Any) -> bytes | None:
    """A value in PostgreSQL's text form."""
    words = _WORDS.get(type(value))
    return str(value).encode() if words is None else words(value)


def params(*values: Any) -> list[bytes | None]:
    """Values in PostgreSQL's text form; a list is an array."""
    return [array(value) if isinstance(value, list) else text(value) for value in values]


def array(values: Sequence[Any]) -> bytes:
    """An array in PostgreSQL's text form; None is NULL in it."""
    kinds = {*map(type, values)}
    if kinds <= _AS_WRITTEN:
        return f"{{{','.join(map(str, values))}}}".encode()
    if kinds == {UUID}:
        return f"{{{','.join([value.hex for value in values])}}}".encode()
    return b"{" + b",".join(map(_element, values)) + b"}"


def _element(value: Any) -> bytes:
    word = text(value)
    if word is None:
        return b"NULL"
    if isinstance(value, int | Decimal):
        return word
    return b'"' + word.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
