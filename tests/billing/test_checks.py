"""The last wall before a wrong number: the database's own checks, whoever writes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db import connection as database
from django.utils import timezone

from billing import credits, holds
from meters.gateway import spendkeys
from meters.models import GatewayCall, RequestCost
from tests.meters.test_charge import Setting, report

pytestmark = pytest.mark.django_db

# By table: a column and what it may not be.
AMOUNT = ("'NaN'", "-0.0000000001")
NUMBER = ("'NaN'",)
WRONG = [
    *(("billing_connection", name, words) for name in ("debt", "held") for words in AMOUNT),
    *(("billing_connection", "balance", words) for words in NUMBER),
    *(("billing_connection", "collecting", words) for words in (*AMOUNT, "debt + 1")),
    *(("billing_hold", "amount", words) for words in AMOUNT),
    ("billing_hold", "ended_at", "now()"),
    ("billing_hold", "state", "'expired'"),
    ("billing_hold", "request_id", "gen_random_uuid()"),
    *(("billing_creditgrant", "amount", words) for words in AMOUNT),
    *(("billing_creditgrant", "remaining", words) for words in (*AMOUNT, "amount + 1")),
    ("billing_creditgrant", "expires_at", "effective_at - interval '1 second'"),
    ("billing_creditgrant", "reason", "''"),
    ("billing_creditgrant", "actor", "''"),
    *(("meters_usagerequest", name, words) for name in ("fee", "charged") for words in AMOUNT),
    *(("meters_gatewaycall", "held", words) for words in AMOUNT),
    *(("meters_requestcost", "amount", words) for words in AMOUNT),
    *(("meters_forwardtoken", name, words) for name in ("held", "spend_limit") for words in AMOUNT),
]


@pytest.fixture
def it() -> Setting:
    """A row in each of the tables, the grants by hand."""
    it = Setting()
    credits.give(
        it.connection, amount=Decimal(3), reason="kind", actor="somebody", now=timezone.now()
    )
    report(it.key, it.connection, "r1", input_tokens=1000)
    holds.place(it.merchant, it.connection.pk, amount=Decimal(1), now=it.now)
    spendkeys.make(
        it.merchant, name="t", now=it.now, connection=it.connection, meter=it.meter,
        limits=spendkeys.Limits(spend_limit=Decimal(5)),
    )  # fmt: skip
    call = GatewayCall.objects.create(
        merchant=it.merchant, status="completed", provider="openai", method="POST",
        endpoint="/v1/x", held=0, seen_at=it.now, created_at=it.now,
    )  # fmt: skip
    RequestCost.objects.create(
        id=call.pk, merchant=it.merchant, provider="openai", model="m", source="override", amount=1
    )
    return it


@pytest.mark.parametrize(("table", "column", "words"), WRONG)
def test_a_wrong_number_stays_out(it: Setting, table: str, column: str, words: str) -> None:
    where = " WHERE source = 'manual'" if table == "billing_creditgrant" else ""
    with pytest.raises(IntegrityError, match="check constraint"), transaction.atomic():
        run(f"UPDATE {table} SET {column} = {words}{where}")
    # The statement is right but for that.
    assert run(f"UPDATE {table} SET {column} = {column}{where}") >= 1


@pytest.mark.parametrize(
    ("amount", "after"), [("0", "0"), ("'NaN'", "0"), ("1", "'NaN'"), ("'NaN'", "'NaN'")]
)
def test_a_wrong_line_stays_out_of_the_ledger(it: Setting, amount: str, after: str) -> None:
    line = (
        "INSERT INTO billing_ledgerentry (merchant_id, connection_id, seq, kind, amount,"
        " balance_after, reason, actor, occurred_at) SELECT merchant_id, connection_id, 1000,"
        " 'adjust', {}, {}, '', '', occurred_at FROM billing_ledgerentry LIMIT 1"
    )
    with pytest.raises(IntegrityError, match="check constraint"), transaction.atomic():
        run(line.format(amount, after))
    assert run(line.format("1", "0")) == 1


def test_every_check_has_looked_at_every_row(it: Setting) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE NOT convalidated"
        )
        assert cursor.fetchall() == []


def run(sql: str) -> Any:
    with database.cursor() as cursor:
        cursor.execute(sql)
        return cursor.rowcount
