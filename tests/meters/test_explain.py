"""`GET /v1/connections/{id}/balance/explain`: any balance at any instant, from its lines."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing import clock
from tests import factories
from tests.meters.test_voids import Till

pytestmark = pytest.mark.django_db


def explain(till: Till, key: str | None = None, **query: str) -> Any:
    path = f"/v1/connections/{till.connection.public_id}/balance/explain"
    headers = {"Authorization": f"Bearer {till.key if key is None else key}"}
    return Client().get(path, query, headers=headers if key != "" else {})


def test_each_line_comes_with_its_proof() -> None:
    till = Till()
    till.use("r1", "40")
    body = explain(till).json()
    assert body["balance"]["overage_due"] == "10.0000000000"
    owed, drawn, granted = body["data"]
    assert [line["balance_after"] for line in body["data"]] == [
        "-10.0000000000", "0.0000000000", "25.0000000000",
    ]  # fmt: skip
    proof = drawn["request"]
    assert proof == owed["request"] and granted["request"] is None
    assert (proof["price_version"], proof["fee"]) == (1, "35.0000000000")
    assert [(part["tier"], part["quantity"], part["amount"]) for part in proof["slices"]] == [
        (1, 30_000_000, "30.0000000000"),
        (2, 10_000_000, "5.0000000000"),
    ]
    assert proof["draws"] == [
        {"grant_id": granted["grant_id"], "amount": "25.0000000000"},
        {"grant_id": None, "amount": "10.0000000000"},
    ]


def test_a_past_balance_is_what_it_was() -> None:
    till = Till(rollover_type="none")
    till.use("r1", "10")
    before = till.now
    row = till.use("r2", "5")
    till.void(row)
    factories.give(till.connection, "3", now=till.now)
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant) + timedelta(days=1))
    body = explain(till, at=before.isoformat()).json()
    assert body["balance"]["total_remaining"] == "15.0000000000"
    assert [line["kind"] for line in body["data"]] == ["usage", "grant"]
    assert explain(till).json()["balance"]["total_remaining"] == "28.0000000000"


def test_credits_that_have_ended_and_are_not_entered_do_not_count() -> None:
    till = Till(rollover_type="none")
    end = till.connection.subscription.cycle_end
    clock.advance(till.merchant, to=end + timedelta(hours=1), run=False)
    body = explain(till).json()
    assert body["balance"]["total_remaining"] == "0.0000000000"
    assert body["balance"]["ended"] == "25.0000000000"
    assert [grant["ended"] for grant in body["grants"]] == [True]


def test_pages_join_without_a_gap() -> None:
    till = Till()
    for number in range(7):
        till.use(f"r{number}", "1")
    found: list[Any] = []
    query: dict[str, str] = {"limit": "3"}
    while True:
        body = explain(till, **query).json()
        found += body["data"]
        if not body["has_more"]:
            break
        query["cursor"] = body["next_cursor"]
    assert [line["seq"] for line in found] == [8, 7, 6, 5, 4, 3, 2, 1]
    balances = [Decimal(line["balance_after"]) for line in found]
    assert balances == [18, 19, 20, 21, 22, 23, 24, 25]


def test_a_time_to_come_and_a_bad_cursor_are_named() -> None:
    till = Till()
    for query in ({"at": (till.now + timedelta(days=1)).isoformat()}, {"at": "x"}, {"cursor": "x"}):
        answer = explain(till, **query)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == next(iter(query))


def test_it_is_for_the_merchant_alone() -> None:
    till, other = Till(), Till()
    assert explain(till, key="").status_code == 401
    assert explain(till, key=other.key).status_code == 404
