"""What the portal reads of the books: it adds up, and it says what happened in people's words."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import clock, credits
from billing.models import Connection, LedgerEntry, Merchant
from checkout.portal import activity, reading
from tests import factories
from tests.meters.test_charge import report

pytestmark = pytest.mark.django_db


class Books:
    """A customer on a plan of 25 with a meter of minutes and one of tokens."""

    def __init__(self, **plan: Any) -> None:
        self.merchant: Merchant = factories.make_merchant()
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(self.merchant, **plan)
        factories.make_meter(self.merchant, self.plan, tiers=[("0", "1")])
        factories.make_meter(
            self.merchant, self.plan, slug="minutes", tiers=[("0", "0.009")], unit="minutes"
        )
        self.connection: Connection = factories.make_connection(
            self.merchant, now=self.merchant.now()
        )
        self.current = factories.make_subscription(
            self.plan, connection=self.connection, now=self.merchant.now()
        )

    def use(self, name: str, tokens: int) -> None:
        report(self.key, self.connection, name, input_tokens=tokens)

    def speak(self, name: str, seconds: str) -> None:
        report(
            self.key, self.connection, name, meter_slug="minutes", input_seconds=Decimal(seconds)
        )

    def page(self, **fields: Any) -> activity.Page:
        self.connection.refresh_from_db()
        return activity.page(self.connection, now=self.merchant.now(), **fields)

    def rows(self, **fields: Any) -> list[activity.Row]:
        return [row for day in self.page(**fields).days for row in day.rows]


@pytest.fixture
def books() -> Books:
    return Books()


def test_what_used_it_adds_up_with_what_is_left(books: Books) -> None:
    factories.give(books.connection, "10", now=books.merchant.now())
    books.use("a", 2_157_600)
    books.speak("b", "252")
    now = books.merchant.now()
    balance = credits.balance(books.connection, now=now)
    used = reading.usage(books.connection, books.current)
    assert used.charged == Decimal("2.1954")
    assert used.charged + balance.total == Decimal(35)
    parts = reading.parts(balance, used, plan=books.plan, collecting=Decimal(0))
    assert [part.kind for part in parts] == ["used", "cycle", "bundle"]
    assert parts[0].hint == "Out of $35.00"
    widths = [Decimal(part.width.rstrip("%")) for part in parts]
    assert abs(sum(widths) - 100) < Decimal("0.05")
    assert [line.quantity for line in used.lines] == ["2,157,600 tokens", "4 min 12 s"]
    assert [line.price for line in used.lines] == ["$1.00 a million", "$0.009 a minute"]
    assert [line.terms for line in used.lines] == ["", ""]


def test_a_price_of_more_than_one_rate_is_told_whole_below_its_meter(books: Books) -> None:
    meter = factories.make_meter(
        books.merchant, books.plan, slug="code", tiers=[("0", "3"), ("1000000", "2")],
        tier_window="cycle",
    )  # fmt: skip
    report(books.key, books.connection, "a", meter_slug=meter.slug, input_tokens=1_000_000)
    (line,) = reading.usage(books.connection, books.current).lines
    assert line.price == "$2.00 to $3.00 a million"
    assert line.terms == (
        "$3.00 a million tokens, $2.00 after 1 million tokens; the count starts again every month"
    )


def test_use_past_the_credits_is_said_as_owed(books: Books) -> None:
    books.use("a", 30_000_000)
    balance = credits.balance(books.connection, now=books.merchant.now())
    used = reading.usage(books.connection, books.current)
    parts = reading.parts(balance, used, plan=books.plan, collecting=Decimal(0))
    assert [(part.kind, part.amount.main) for part in parts][-1] == ("debt", "$5.00")
    assert parts[0].hint == "Out of $25.00"


def test_a_request_that_drew_on_two_grants_is_one_line(books: Books) -> None:
    factories.give(books.connection, "10", now=books.merchant.now())
    books.use("a", 30_000_000)
    assert LedgerEntry.objects.filter(connection=books.connection, kind="usage").count() == 2
    top = books.rows()[0]
    assert (top.what, top.used) == ("Chat", "30,000,000 tokens")
    assert (top.change.main, top.after.main) == ("\u2212$30.00", "$5.00")


def test_what_was_rolled_over_or_paid_inside_moves_nothing_and_is_no_line() -> None:
    books = Books(price="0")
    books.use("a", 1_000_000)
    clock.advance(books.merchant, to=books.current.cycle_end + timedelta(minutes=1))
    assert LedgerEntry.objects.filter(connection=books.connection, kind="roll").exists()
    assert [row.what for row in books.rows()] == ["Studio credits", "Chat", "Studio credits"]


def test_pages_follow_one_another_without_a_gap(books: Books) -> None:
    for number in range(25):
        books.use(f"r{number}", 1000 * (number + 1))
    seen: list[str] = []
    below: int | None = None
    for _ in range(10):
        page = books.page(below=below, most=7)
        seen += [row.change.main for day in page.days for row in day.rows]
        below = page.older
        if below is None:
            break
    assert len(seen) == 26
    assert seen == [row.change.main for row in books.rows(most=100)]


def test_the_file_has_every_line_and_no_formula(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.plan.meters.filter(slug="chat").update(name="=cmd|calc")
    for number in range(7):
        books.use(f"r{number}", 1000)
    monkeypatch.setattr(activity, "CHUNK", 3)
    rows = list(csv.DictReader(io.StringIO("".join(activity.csv_lines(books.connection)))))
    assert len(rows) == 8
    assert rows[0]["What"] == "'=cmd|calc"
    assert rows[0]["Credits"] == "-0.0010000000"
    assert rows[0]["Left after"] == "24.9930000000"


def test_somebody_elses_lines_are_not_read(books: Books) -> None:
    other = factories.make_connection(books.merchant, now=books.merchant.now())
    factories.give(other, "99", now=books.merchant.now())
    assert all(row.change.main != "+$99.00" for row in books.rows())
