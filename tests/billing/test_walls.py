"""The database's own walls: whoever writes, a ledger line stays, and merchants do not mix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from billing.models import LedgerEntry, Payment
from tests import factories

pytestmark = pytest.mark.django_db

# The rights of the product's own role, as billing/sql/ledger_guards.sql and the cluster give them.
ROLE = "lava_app"


@pytest.fixture
def line() -> LedgerEntry:
    subscription = factories.make_subscription(factories.make_plan(factories.make_merchant()))
    return LedgerEntry.objects.get(connection=subscription.connection)


@pytest.fixture
def as_the_app(line: LedgerEntry) -> Iterator[psycopg.Connection]:
    """A line to the same database with the product's own role."""
    words = connection.get_connection_params()
    link = {name: words[name] for name in ("host", "port", "dbname")} | {"user": ROLE}
    try:
        app = psycopg.connect(**link)
    except psycopg.OperationalError:
        pytest.skip(f"this server has no role {ROLE} of its own")
    with app:
        yield app


def run(sql: str, *params: Any) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, params)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_ledgerentry SET amount = amount + 1 WHERE id = %s",
        "DELETE FROM billing_ledgerentry WHERE id = %s",
    ],
)
def test_even_the_owner_changes_no_ledger_line(line: LedgerEntry, sql: str) -> None:
    with pytest.raises(IntegrityError, match="append-only"):
        run(sql, line.pk)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_ledgerentry SET reason = 'x'",
        "DELETE FROM billing_ledgerentry",
        "TRUNCATE billing_ledgerentry",
        "DELETE FROM billing_creditgrant",
        "DELETE FROM billing_connection",
        "DELETE FROM billing_payment",
        "ALTER TABLE billing_ledgerentry DISABLE TRIGGER ALL",
    ],
)
def test_the_product_has_no_right_to_take_back_what_was_written(
    as_the_app: psycopg.Connection, sql: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_the_app.execute(sql)


def test_the_product_has_the_right_to_read_and_to_add(as_the_app: psycopg.Connection) -> None:
    as_the_app.execute("SELECT amount FROM billing_ledgerentry LIMIT 1")
    rights = as_the_app.execute(
        "SELECT has_table_privilege('billing_ledgerentry', 'INSERT')"
    ).fetchone()
    assert rights == (True,)


def test_rows_of_two_merchants_cannot_point_at_each_other() -> None:
    ours = factories.make_subscription(factories.make_plan(factories.make_merchant()))
    theirs = factories.make_subscription(factories.make_plan(factories.make_merchant()))
    their_card = factories.make_card(theirs.connection)
    for sql, params in (
        ("UPDATE billing_subscription SET plan_id = %s WHERE id = %s", (theirs.plan_id, ours.pk)),
        (
            "UPDATE billing_connection SET customer_id = %s WHERE id = %s",
            (theirs.connection.customer_id, ours.connection_id),
        ),
        (
            "UPDATE billing_creditgrant SET connection_id = %s WHERE connection_id = %s",
            (theirs.connection_id, ours.connection_id),
        ),
        (
            "UPDATE billing_paymentmethod SET merchant_id = %s WHERE id = %s",
            (ours.merchant_id, their_card.pk),
        ),
    ):
        with pytest.raises(IntegrityError):
            run(sql, *params)
            run("SET CONSTRAINTS ALL IMMEDIATE")


def test_a_payment_takes_a_card_of_its_own_connection_only() -> None:
    merchant = factories.make_merchant()
    one, other = (factories.make_connection(merchant) for _ in range(2))
    card = factories.make_card(other)
    payment = Payment(
        merchant=merchant, connection=one, purpose="bundle", amount=10, key="k", card=card
    )
    with pytest.raises(IntegrityError), transaction.atomic():
        payment.save()


def test_a_running_balance_and_a_grant_take_no_nan(line: LedgerEntry) -> None:
    with pytest.raises(DatabaseError):
        run("UPDATE billing_connection SET balance = 'NaN' WHERE id = %s", line.connection_id)
    with pytest.raises(DatabaseError):
        run("UPDATE billing_creditgrant SET remaining = 'NaN' WHERE id = %s", line.grant_id)


def test_a_sold_plan_keeps_its_price_and_interval() -> None:
    plan = factories.make_subscription(factories.make_plan(factories.make_merchant())).plan
    for column, value in (("price", "1"), ("billing_interval", "year")):
        with pytest.raises(IntegrityError, match="do not change"):
            run(f"UPDATE billing_plan SET {column} = %s WHERE id = %s", value, plan.pk)


def test_a_ledger_number_and_a_request_draw_are_taken_once(line: LedgerEntry) -> None:
    values = {
        field.attname: getattr(line, field.attname)
        for field in LedgerEntry._meta.concrete_fields
        if field.attname != "id"
    }
    with pytest.raises(IntegrityError, match="own_number"), transaction.atomic():
        LedgerEntry(**values).save(force_insert=True)
    with pytest.raises(IntegrityError, match="entered_once"), transaction.atomic():
        LedgerEntry(**(values | {"seq": 2})).save(force_insert=True)
