"""Any number of beats, one of which ticks; and the beat inside a worker."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import beat
from django.db import connection

from lava import beating
from lava.celery import app
from tests.product import eventually


@pytest.fixture
def made(tmp_path: Path) -> Callable[[], beating.OnlyBeat]:
    def make() -> beating.OnlyBeat:
        return beating.OnlyBeat(app, lazy=True, schedule_filename=str(tmp_path / "beat"))

    return make


@pytest.mark.django_db(transaction=True)
def test_a_beat_ticks_while_nobody_else_does(
    made: Callable[[], beating.OnlyBeat], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[Any] = []
    monkeypatch.setattr(beat.PersistentScheduler, "tick", lambda *_: ticks.append(1) or 30.0)
    params = connection.get_connection_params()
    for name in ("cursor_factory", "context", "pool", "assume_role", "server_side_binding"):
        params.pop(name, None)
    one = made()
    with psycopg.connect(**params | {"autocommit": True}) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [beating.LOCK])
        assert (one.tick(), ticks) == (2.0, [])
    # The other one has gone.
    eventually(lambda: one.tick() == 5.0)
    assert ticks == [1]
    assert (one.tick(), ticks) == (5.0, [1, 1])
    connection.close()
    # Its line to the database is another now: it asks again.
    assert (one.tick(), ticks) == (5.0, [1, 1, 1])
    connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_beat_whose_line_to_the_database_broke_takes_the_lock_again(
    made: Callable[[], beating.OnlyBeat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beat.PersistentScheduler, "tick", lambda *_: 30.0)
    params = connection.get_connection_params()
    for name in ("cursor_factory", "context", "pool", "assume_role", "server_side_binding"):
        params.pop(name, None)
    holders = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND granted"
    one = made()
    with psycopg.connect(**params | {"autocommit": True}) as other:
        eventually(lambda: one.tick() == 5.0)
        ((first,),) = other.execute(holders, [beating.LOCK]).fetchall()
        other.execute("SELECT pg_terminate_backend(%s)", [first])
        eventually(lambda: not other.execute(holders, [beating.LOCK]).fetchall())
        assert one.tick() == 2.0
        assert one.tick() == 5.0
        ((second,),) = other.execute(holders, [beating.LOCK]).fetchall()
    assert second != first
    connection.close()


@pytest.mark.parametrize(
    "left",
    [b"", b"\0" * 4000, b"\x80\x04cno_module\nname\n.", b"broken"],
    ids=["empty", "zeros", "of an older program", "broken"],
)
def test_a_schedule_that_nobody_can_read_is_made_anew(tmp_path: Path, left: bytes) -> None:
    place = tmp_path / "state" / "beat"
    one = beating.OnlyBeat(app, schedule_filename=str(place))
    names = set(one.schedule)
    one.close()
    files = list(place.parent.iterdir())
    assert files
    for file in files:
        if file.suffix != ".dir":
            file.write_bytes(left)
    two = beating.OnlyBeat(app, schedule_filename=str(place))
    assert set(two.schedule) == names
    two.close()


class Service:
    """In the place of Celery's."""

    def __init__(self, app: Any, *, scheduler_cls: type) -> None:
        assert scheduler_cls is beating.OnlyBeat
        self.ended = threading.Event()

    def start(self) -> None:
        self.ended.wait()

    def stop(self) -> None:
        self.ended.set()


class Failing(Service):
    def start(self) -> None:
        raise RuntimeError("no broker")


class Worker:
    app = app


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(beating.os, "kill", lambda *words: sent.append(words))
    return sent


def test_a_worker_beats_only_when_it_is_told() -> None:
    assert beating.WithBeat(Worker()).include_if(Worker()) is False
    assert beating.WithBeat(Worker(), beats=True).include_if(Worker()) is True


def test_a_beat_that_fails_ends_its_worker(
    signals: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beating.beat, "Service", Failing)
    beating.WithBeat(Worker(), beats=True).start(Worker())
    eventually(lambda: signals == [(os.getpid(), signal.SIGTERM)])


def test_a_beat_that_is_stopped_with_its_worker_says_nothing(
    signals: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beating.beat, "Service", Service)
    step = beating.WithBeat(Worker(), beats=True)
    step.start(Worker())
    service = step.service
    step.stop(Worker())
    step.terminate(Worker())
    assert isinstance(service, Service) and service.ended.is_set()
    assert signals == []
