"""Charges of one connection at one instant share a transaction, and answer as if they did not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import DataError, Error, connections, transaction
from django.db import connection as database

from billing import errors, ledger
from billing.models import LedgerEntry
from meters import turns
from meters.models import UsageRequest
from tests.meters.test_charge import Setting, report
from tests.product import eventually

ONE = uuid4()


class Statement:
    """In a prepared statement's place: it says what it was asked, when it is let."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.gate = threading.Event()
        self.alone: list[str] = []
        self.together: list[list[str]] = []

    def row(self, params: Sequence[bytes | None]) -> tuple[Any, ...]:
        assert self.gate.wait(20)
        self.alone.append(said(params))
        if self.fails and said(params) == "broken":
            raise Error(said(params))
        return (said(params),)

    def rows_together(self, many: Sequence[Sequence[bytes | None]]) -> list[tuple[Any, ...]]:
        self.together.append([said(params) for params in many])
        if self.fails:
            raise Error("one of them")
        return [(said(params),) for params in many]


def said(params: Sequence[bytes | None]) -> str:
    assert params[0] is not None
    return params[0].decode()


def ask(
    statement: Statement, keys: Sequence[str], pool: ThreadPoolExecutor
) -> tuple[turns.Turns, dict[str, Future[tuple[Any, ...]]]]:
    """The first runs, held up; the others come meanwhile, one behind the other."""
    taken = turns.Turns(statement)  # type: ignore[arg-type]
    asked = {}
    for place, key in enumerate(keys):
        asked[key] = pool.submit(taken.row, ONE, key, [key.encode()])
        eventually(lambda place=place: len(taken._running.get(ONE, ())) == place)  # type: ignore[misc]
        if place == 0:
            eventually(lambda: ONE in taken._running)
    statement.gate.set()
    return taken, asked


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(40) as found:
        yield found


def test_who_comes_meanwhile_shares_the_next_turn_in_the_order_of_ids(
    pool: ThreadPoolExecutor,
) -> None:
    statement = Statement()
    taken, asked = ask(statement, ["first", "d", "b", "c", "a"], pool)
    assert {key: asked[key].result(20) for key in asked} == {key: (key,) for key in asked}
    assert statement.alone == ["first"]
    assert statement.together == [["a", "b", "c", "d"]]
    assert taken._running == {}


def test_one_who_waits_alone_runs_alone(pool: ThreadPoolExecutor) -> None:
    statement = Statement()
    taken, asked = ask(statement, ["first", "second"], pool)
    assert asked["second"].result(20) == ("second",)
    assert statement.alone == ["first", "second"] and statement.together == []
    assert taken._running == {}


def test_a_turn_has_an_end(pool: ThreadPoolExecutor) -> None:
    statement = Statement()
    keys = [f"{number:02}" for number in range(2 * turns.MOST + 2)]
    taken, asked = ask(statement, keys, pool)
    assert [asked[key].result(20) for key in keys] == [(key,) for key in keys]
    assert statement.together == [keys[1 : turns.MOST + 1], keys[turns.MOST + 1 : -1]]
    assert statement.alone == [keys[0], keys[-1]]
    assert taken._running == {}


def test_one_that_fails_fails_alone(pool: ThreadPoolExecutor) -> None:
    statement = Statement(fails=True)
    taken, asked = ask(statement, ["first", "fine", "broken", "too"], pool)
    with pytest.raises(Error, match="broken"):
        asked["broken"].result(20)
    assert [asked[key].result(20) for key in ("first", "fine", "too")] == [
        ("first",), ("fine",), ("too",),
    ]  # fmt: skip
    assert len(statement.together) == 1
    assert taken._running == {}


def test_connections_do_not_wait_for_each_other(pool: ThreadPoolExecutor) -> None:
    statement = Statement()
    taken = turns.Turns(statement)  # type: ignore[arg-type]
    first = pool.submit(taken.row, ONE, "a", [b"a"])
    eventually(lambda: ONE in taken._running)
    other = pool.submit(taken.row, uuid4(), "b", [b"b"])
    eventually(lambda: len(taken._running) == 2)
    statement.gate.set()
    assert first.result(20) == ("a",) and other.result(20) == ("b",)
    assert statement.together == []


# -- on the database


def queued(it: Setting, posts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Post while the connection is locked, so that all but the first wait; the answers, or what
    they raised."""

    def post(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except errors.LavaError as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(posts)) as pool:
        with transaction.atomic():
            ledger.lock(it.connection.pk)
            asked = []
            for work in posts:
                asked.append(pool.submit(post, work))
                time.sleep(0.05)
        return [one.result(30) for one in asked]


def transactions() -> int:
    """In how many transactions the stored requests were written."""
    with database.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT xmin::text) FROM meters_usagerequest")
        return int(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_charges_that_wait_for_one_connection_are_one_transaction() -> None:
    it = Setting()

    def post(number: int) -> Callable[[], Any]:
        return lambda: report(it.key, it.connection, f"r{number}", input_tokens=1_000_000)

    answers = queued(it, [post(number) for number in range(6)])
    assert [answer.request.request_id for answer in answers] == [f"r{n}" for n in range(6)]
    assert {answer.request.total_remaining for answer in answers} == {
        Decimal(25 - 3 * (n + 1)) for n in range(6)
    }
    assert transactions() == 2
    lines = LedgerEntry.objects.filter(connection=it.connection).order_by("seq")
    assert [line.seq for line in lines] == list(range(1, 8))
    assert lines.last().balance_after == Decimal(7)  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
def test_a_refused_one_and_a_repeat_spoil_nobody() -> None:
    it = Setting(when_depleted="block")

    def post(name: str, **fields: Any) -> Callable[[], Any]:
        return lambda: report(it.key, it.connection, name, **fields)

    first, one, again, other, much, late = queued(
        it,
        [
            post("a", input_tokens=1_000_000),
            post("b", input_tokens=1_000_000),
            post("b", input_tokens=1_000_000),
            post("b", input_tokens=2_000_000),
            post("c", input_tokens=900_000_000, enforce=True),
            post("d", input_tokens=1_000_000, meter_slug="nothing"),
        ],
    )
    assert not first.replayed
    assert {one.replayed, again.replayed} == {False, True}
    assert one.request == again.request
    assert isinstance(other, errors.Conflict)
    assert isinstance(much, errors.PaymentRequired)
    assert isinstance(late, errors.NotFound)
    assert UsageRequest.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_what_the_database_cannot_do_is_one_callers_fault() -> None:
    it = Setting()

    def post(name: str, **fields: Any) -> Callable[[], Any]:
        return lambda: report(it.key, it.connection, name, **fields)

    def broken() -> Any:
        # The API refuses so large a number; the database has no room for it, and their transaction
        # fails with it.
        with pytest.raises(DataError, match="overflow") as failed:
            report(it.key, it.connection, "b", input_seconds=Decimal(10) ** 30)
        return failed.type

    answers = queued(it, [post("a", input_tokens=1), post("c", input_tokens=1), broken,
                          post("d", input_tokens=1)])  # fmt: skip
    assert [getattr(answer, "replayed", None) for answer in answers] == [False, False, None, False]
    assert UsageRequest.objects.count() == 3
