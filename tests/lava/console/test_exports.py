"""Exports: every row that the page's filters leave, exact, and nothing a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext

from billing import subscriptions
from billing.models import LedgerEntry
from lava.console import exports
from meters.models import UsageRequest
from tests import factories
from tests.lava.console.shop import Shop

pytestmark = pytest.mark.django_db


def read(shop: Shop, name: str, **query: str) -> list[dict[str, str]]:
    answer: Any = shop.client().get(f"/console/exports/{name}.csv", query)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith('attachment; filename="northwind-works-sandbox')
    return list(csv.DictReader(io.StringIO(answer.getvalue().decode(), newline="")))


def test_the_ledger_is_exported_to_the_last_digit(ours: Shop) -> None:
    ours.sandbox.use("deep", 1)
    rows = read(ours, "ledger")
    lines = LedgerEntry.objects.filter(merchant=ours.sandbox.merchant)
    assert len(rows) == lines.count()
    assert sum(Decimal(row["amount"]) for row in rows) == sum(line.amount for line in lines)
    assert {row["amount"] for row in rows} >= {"-0.0000020000", "25.0000000000"}
    assert [row["kind"] for row in read(ours, "ledger", kind="in")] == ["grant"]


def test_the_ledgers_requests_are_those_of_the_requests(ours: Shop) -> None:
    ours.sandbox.use("deep", 1)
    used = {row["request_id"] for row in read(ours, "ledger", kind="usage")}
    assert used == {row["id"] for row in read(ours, "requests")}


def test_no_number_has_more_digits_than_money(ours: Shop) -> None:
    books = ours.sandbox
    plan = factories.make_plan(
        books.merchant, price="10", credit="30", billing_interval="week", rollover_type="full"
    )
    subscription = factories.make_subscription(plan, now=books.merchant.now())
    subscriptions.advance(subscription, index=1, now=books.merchant.now())
    amounts = [row["value"] for row in read(ours, "numbers")]
    amounts += [row["mrr"] for row in read(ours, "plans")]
    amounts += [row["paid_for"] for row in read(ours, "credit")]
    assert max(len(amount.partition(".")[2]) for amount in amounts) == 10


def test_requests_and_payments_are_exported_as_filtered(ours: Shop) -> None:
    books = ours.sandbox
    books.use("another", 10, metadata={"team": "north"})
    assert len(read(ours, "requests")) == UsageRequest.objects.of(books.merchant).count() == 2
    assert [row["request_id"] for row in read(ours, "requests", q="another")] == ["another"]
    assert [row["request_id"] for row in read(ours, "requests", q="team=north")] == ["another"]
    assert read(ours, "requests", q="team=south") == []
    (paid,) = read(ours, "payments", status="succeeded")
    assert (paid["amount"], paid["currency"], paid["customer"]) == (
        "25.000", "USD", "Northwind Quill",
    )  # fmt: skip
    assert read(ours, "payments", status="failed") == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_name_is_never_a_formula(ours: Shop, text: str) -> None:
    customer = ours.sandbox.connection.customer
    customer.first_name = text
    customer.save()
    (row,) = read(ours, "connections")
    assert row["first_name"] == f"'{text}"
    # A phone begins with a plus: the apostrophe keeps it a text.
    assert row["phone"] == "'+14155551001"
    assert exports.cell(Decimal("-1.5")) == "-1.5"


def test_it_reads_in_pieces_and_not_once_a_row(ours: Shop) -> None:
    for number in range(30):
        ours.sandbox.use(f"many-{number}", 10)
    client: Any = ours.client()
    with CaptureQueriesContext(database) as found:
        text = client.get("/console/exports/requests.csv").getvalue().decode()
    assert text.count("\r\n") == 1 + 31
    assert len(found) <= 6
