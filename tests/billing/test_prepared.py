"""Prepared statements: prepared again when forgotten, with Django's errors and transactions."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from billing.prepared import Statement, text

HALF = Statement("test_half", "SELECT 10 / $1::int, $2::text")


def known() -> int:
    """How many statements of ours this connection has prepared."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'test_%'")
        return int(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_it_is_prepared_once_a_connection() -> None:
    connection.close()
    assert HALF.row([b"5", b"x"]) == (2, "x")
    assert HALF.row([b"2", None]) == (5, None)
    assert known() == 1
    connection.close()
    assert HALF.row([b"5", b"x"]) == (2, "x")
    assert known() == 1


@pytest.mark.django_db(transaction=True)
def test_a_forgotten_one_is_prepared_again() -> None:
    HALF.row([b"5", b"x"])
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    assert HALF.row([b"5", b"x"]) == (2, "x")
    assert known() == 1


@pytest.mark.django_db(transaction=True)
def test_one_that_somebody_else_prepared_on_the_link_is_used() -> None:
    HALF.row([b"5", b"x"])
    HALF._prepared.clear()
    assert HALF.row([b"5", b"x"]) == (2, "x")


@pytest.mark.django_db(transaction=True)
def test_its_errors_are_djangos_and_spoil_nothing() -> None:
    with pytest.raises(DataError, match="division by zero"):
        HALF.row([b"0", b"x"])
    assert HALF.row([b"5", b"x"]) == (2, "x")


@pytest.mark.django_db(transaction=True)
def test_a_lost_connection_is_an_operational_error_and_the_next_one_works() -> None:
    HALF.row([b"5", b"x"])
    pid = connection.connection.info.backend_pid
    other: Any = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    other.close()
    with pytest.raises(OperationalError):
        HALF.row([b"5", b"x"])
    # As the end of a request does.
    connection.close_if_unusable_or_obsolete()
    assert HALF.row([b"5", b"x"]) == (2, "x")


@pytest.mark.django_db(transaction=True)
def test_it_takes_part_in_a_transaction() -> None:
    write = Statement(
        "test_write", "UPDATE django_migrations SET name = name WHERE id = $1 RETURNING id"
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(id) FROM django_migrations")
        row = str(cursor.fetchone()[0]).encode()
    with transaction.atomic():
        write.row([row])
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id_if_assigned()")
            assert cursor.fetchone()[0] is not None, "it wrote outside the transaction"
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        write.row([row])
        raise ZeroDivisionError
    assert connection.connection.info.transaction_status == 0


@pytest.mark.django_db(transaction=True)
def test_a_broken_transaction_takes_no_more() -> None:
    with transaction.atomic():
        with pytest.raises(DataError), transaction.atomic():
            HALF.row([b"0", b"x"])
        assert HALF.row([b"5", b"x"]) == (2, "x")
        transaction.set_rollback(True)
        with pytest.raises(TransactionManagementError):
            HALF.row([b"5", b"x"])


@pytest.mark.django_db
def test_djangos_log_of_queries_has_it() -> None:
    with CaptureQueriesContext(connection) as log:
        HALF.row([b"5", b"x"])
    assert [query["sql"] for query in log.captured_queries] == [HALF.sql]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -(10**17),
        Decimal("0.0000000001"),
        Decimal("1E+3"),
        "",
        "a'b\"\\ \u00e9 \u4e16",
        b"",
        b"\x00\xff",
        datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC),
    ],
)
@pytest.mark.django_db
def test_what_goes_in_comes_out(value: Any) -> None:
    kinds = {
        bool: "boolean",
        int: "bigint",
        Decimal: "numeric",
        str: "text",
        bytes: "bytea",
        datetime: "timestamptz",
        type(None): "text",
    }
    statement = Statement("test_echo", f"SELECT $1::{kinds[type(value)]}")
    (found,) = statement.row([text(value)])
    assert found == value and type(found) is type(value)
