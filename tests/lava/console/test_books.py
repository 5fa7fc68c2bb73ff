"""The ledger of all: every line of the books once, in order, whatever the page's length."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import credits
from billing.models import Connection, CreditGrant, LedgerEntry
from lava.console import books
from meters.models import UsageRequest
from tests import factories
from tests.lava.console.shop import Shop

pytestmark = pytest.mark.django_db


def read(shop: Shop, *, kind: str = "", connection: Any = None) -> list[books.Line]:
    """Every page, one after the other."""
    found: list[books.Line] = []
    cursor: books.Cursor | None = books.Cursor()
    pages = 0
    while cursor is not None:
        lines, cursor = books.page(
            shop.sandbox.merchant, kind=kind, connection=connection, cursor=cursor
        )
        # As the next page's address carries it.
        cursor = books.Cursor.read(str(cursor)) if cursor is not None else None
        found += lines
        pages += 1
        assert pages < 100
    return found


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_pages_of_any_length_hold_every_act_once_in_order(
    ours: Shop, theirs: Shop, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    shop = ours.sandbox
    for number in range(6):
        shop.use(f"more-{number}", 100_000)
        factories.give(shop.connection, "1", now=shop.merchant.now())
    second = factories.make_subscription(shop.plan, now=shop.merchant.now()).connection
    shop.use("over", 30_000_000)
    factories.give(shop.connection, "200", now=shop.merchant.now())  # pays what is owed: a pair
    monkeypatch.setattr(books, "PAGE", length)

    found = read(ours)
    moments = [line.row.moment for line in found]
    assert moments == sorted(moments, reverse=True)
    used = [line for line in found if line.row.link.startswith("/console/requests/")]
    assert len(used) == UsageRequest.objects.of(shop.merchant).count() == 8
    grants = [line for line in found if line.row.title in ("Given by hand", "Plan credit")]
    assert len(grants) == CreditGrant.objects.of(shop.merchant).count()
    # All that the rows say was moved is all the ledger moved, for each customer.
    for connection in (shop.connection, second):
        connection.refresh_from_db()
        sums = sum(
            (line.row.amount for line in found if line.connection.pk == connection.pk), Decimal(0)
        )
        assert sums == connection.balance
    mine = {shop.connection.pk, second.pk}
    assert {line.connection.pk for line in found} == mine
    assert {line.connection.pk for line in read(ours, connection=second.pk)} == {second.pk}


@pytest.mark.parametrize("kind", list(books.SHOWN))
def test_a_kind_shows_its_own_lines_alone(ours: Shop, kind: str) -> None:
    shop = ours.sandbox
    shop.use("over", 30_000_000)
    factories.give(shop.connection, "200", now=shop.merchant.now())
    kinds = set(books.SHOWN[kind][1])
    lines = LedgerEntry.objects.filter(merchant=shop.merchant, kind__in=kinds)
    found = read(ours, kind=kind)
    assert bool(found) == lines.exists()
    if kind == "usage":
        assert all(line.row.amount < 0 for line in found)
        assert sum(line.row.amount for line in found) == sum(row.amount for row in lines)
    page = ours.client().get("/console/ledger", {"kind": kind})
    assert page.status_code == 200


def test_the_sums_are_those_of_the_balances(ours: Shop) -> None:
    shop = ours.sandbox
    factories.make_subscription(shop.plan, now=shop.merchant.now())
    shop.use("over", 30_000_000)
    now = shop.merchant.now() + timedelta(seconds=1)
    sums = books.sums(shop.merchant, now=now)
    balances = [
        credits.balance(connection, now=now).total
        for connection in Connection.objects.of(shop.merchant)
    ]
    assert sums["net"] == sum(balances, Decimal(0))
    assert (sums["holders"], sums["owing"]) == (1, 1)


def test_a_cursor_that_is_none_begins_at_the_newest(ours: Shop) -> None:
    client = ours.client()
    for before in ("x", "1.2.3", "9" * 30, ".req_nothing", "-1."):
        assert client.get("/console/ledger", {"before": before}).status_code == 200
