"""`manage.py explain`: a balance down to the slices, at any instant."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from billing import clock, credits, statements
from billing.models import Connection, LedgerEntry
from meters import proofs
from tests import factories
from tests.meters.test_charge import report

pytestmark = pytest.mark.django_db


class Setting:
    """A subscriber of 25 on a graduated meter: 3 a million up to ten, then 2."""

    def __init__(self, **plan: Any) -> None:
        values = {"when_depleted": "block", "price": "0"} | plan
        self.merchant = factories.make_merchant()
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(self.merchant, **values)
        self.meter = factories.make_meter(
            self.merchant, self.plan, tiers=[("0", "3"), ("10000000", "2")]
        )
        self.connection: Connection = factories.make_subscription(
            self.plan, now=timezone.now()
        ).connection

    def use(self, request_id: str, tokens: int) -> Any:
        return report(self.key, self.connection, request_id, input_tokens=tokens)


def explain(connection: Connection, *flags: str) -> str:
    out = io.StringIO()
    call_command("explain", connection.public_id, *flags, stdout=out)
    return out.getvalue()


def told(connection: Connection, *flags: str) -> Any:
    return json.loads(explain(connection, "--json", *flags))


def test_each_line_is_shown_newest_last_and_the_balance_ends_it() -> None:
    shop = Setting()
    shop.use("job-1", 4_000_000)
    text = explain(shop.connection)
    lines = text.splitlines()
    places = [text.index(word) for word in ("Credits added", "4,000,000 tokens", "Balance at")]
    assert places == sorted(places)
    assert "request job-1" in text and "price   version 1" in text
    assert "slice   tier 1: 4,000,000 tokens at $3.00 a million = $12.00" in text
    assert "drawn   $12.00 from Plan credit" in text
    assert lines[-1].split() == ["To", "spend", "$13.00"]


def test_a_request_over_a_boundary_and_past_the_credits_shows_slices_and_draws() -> None:
    shop = Setting()
    shop.use("job-1", 8_000_000)
    shop.use("job-2", 3_000_000)
    (line,) = [
        line
        for line in told(shop.connection)["lines"]
        if line["kind"] == "usage" and line["grant_id"] is None
    ]
    proof = line["request"]
    assert [(part["tier"], part["quantity"], part["amount"]) for part in proof["slices"]] == [
        (1, "2000000", "6.0000000000"),
        (2, "1000000", "2.0000000000"),
    ]
    paid, owed = proof["draws"]
    assert (paid["amount"], owed) == ("1.0000000000", {"grant_id": None, "amount": "7.0000000000"})
    text = explain(shop.connection)
    assert text.count("request job-2") == 1
    assert text.splitlines()[-1].split() == ["To", "spend", "−$7.00"]


def test_the_balance_of_the_lines_is_the_balance_of_the_head() -> None:
    shop = Setting(rollover_type="none")
    factories.give(shop.connection, "10", now=timezone.now())
    shop.use("job-1", 9_000_000)
    clock.advance(shop.merchant, to=shop.connection.subscription.cycle_end)
    now = shop.merchant.now()
    shop.connection.refresh_from_db()
    found = statements.explain(shop.connection, at=now)
    assert found.balance == credits.balance(shop.connection, now=now)
    assert found.balance.total + found.ended == shop.connection.balance


def test_at_an_instant_it_explains_the_balance_of_that_instant() -> None:
    shop = Setting()
    shop.use("job-1", 1_000_000)
    then = shop.merchant.now()
    shop.use("job-2", 2_000_000)
    before = told(shop.connection, "--at", then.isoformat())
    assert before["balance"]["total_remaining"] == "22.0000000000"
    assert [line["seq"] for line in before["lines"]] == [1, 2]
    assert told(shop.connection)["balance"]["total_remaining"] == "16.0000000000"


def test_credits_that_have_ended_and_are_not_entered_yet_are_said_apart() -> None:
    shop = Setting(rollover_type="none")
    shop.use("job-1", 1_000_000)
    end = shop.connection.subscription.cycle_end
    assert told(shop.connection, "--at", (end - timedelta(seconds=1)).isoformat())["balance"][
        "total_remaining"
    ] == ("22.0000000000")
    after = told(shop.connection, "--at", end.isoformat())
    assert after["balance"]["total_remaining"] == "0.0000000000"
    assert after["balance"]["ended"] == "22.0000000000"
    assert "Ended, to be entered" in explain(shop.connection, "--at", end.isoformat())


def test_the_newest_lines_alone_say_the_balance_before_them() -> None:
    shop = Setting()
    for place in range(4):
        shop.use(f"job-{place}", 1_000_000)
    last = told(shop.connection, "--last", "2")
    assert [line["seq"] for line in last["lines"]] == [4, 5]
    assert (last["has_more"], last["balance_before"]) == (True, "19.0000000000")
    assert last["balance"]["total_remaining"] == "13.0000000000"
    older = statements.explain(shop.connection, at=shop.merchant.now(), most=2, below=4)
    assert [line.seq for line in older.lines] == [2, 3]
    assert older.before + sum(line.amount for line in older.lines) == Decimal(19)


def test_proofs_are_of_the_connection_alone() -> None:
    shop, other = Setting(), Setting()
    request = other.use("job-1", 1_000_000).request
    assert proofs.of(shop.connection, [request.pk]) == {}
    proof = proofs.of(other.connection, [request.pk])[request.pk]
    assert sum(part.amount for part in proof.slices) == request.fee
    assert sum(draw.amount for draw in proof.draws) == request.charged


def test_a_ledger_is_explained_as_the_books_have_it_line_by_line() -> None:
    shop = Setting()
    shop.use("job-1", 9_000_000)
    factories.give(shop.connection, "10", now=shop.merchant.now())
    lines = LedgerEntry.objects.filter(connection=shop.connection).order_by("seq")
    assert [
        (line["seq"], line["kind"], Decimal(line["amount"]))
        for line in told(shop.connection)["lines"]
    ] == [(line.seq, line.kind, line.amount) for line in lines]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["con_test_nonsense"], "No such id"),
        (["con_test_01J8ZZZZZZZZZZZZZZZZZZZZZZ"], "No such"),
        (["{id}", "--at", "yesterday"], "Write --at like"),
        (["{id}", "--at", "2026-11-23T10:00:00"], "Say the zone"),
        (["{id}", "--last", "0"], "a number from 1"),
    ],
)
def test_what_it_cannot_read_is_refused_in_a_sentence(words: list[str], answer: str) -> None:
    shop = Setting()
    with pytest.raises(CommandError, match=answer):
        call_command("explain", *[word.format(id=shop.connection.public_id) for word in words])


def test_before_anything_happened_it_says_so() -> None:
    shop = Setting()
    text = explain(shop.connection, "--at", datetime(2020, 1, 1, tzinfo=UTC).isoformat())
    assert "Nothing has happened yet." in text
    assert text.splitlines()[-1].split() == ["To", "spend", "$0.00"]
