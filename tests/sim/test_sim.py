"""The simulator: twenty small seeds agree, a seed replays itself, and a fault in the product is
seen."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from random import Random
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection as database

from billing import failpoints, payments
from billing.models import LedgerEntry, Merchant, Payment
from lava.demo.sim import play
from lava.demo.sim.terms import UNIT, Terms
from lava.demo.sim.twin import Twin
from lava.demo.sim.world import Disagreement, open_world
from meters.models import UsageRequest

pytestmark = pytest.mark.django_db


SEEDS = [pytest.param(seed, marks=[pytest.mark.slow] if seed > 4 else []) for seed in range(1, 21)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_small_seed_agrees(seed: int) -> None:
    report = play.run(seed, months=3, connections=3)
    assert report.requests > 0


def test_a_seed_plays_the_same_again_and_leaves_nothing_behind() -> None:
    first = play.run(3, months=3, connections=3)
    assert play.run(3, months=3, connections=3) == first
    assert not Merchant.objects.exists()
    assert not LedgerEntry.objects.exists() and not UsageRequest.objects.exists()


def test_what_falls_due_waits_for_a_worker_in_both() -> None:
    report = play.run(2, months=3, connections=4, look=timedelta(hours=6))
    assert report.requests > 0


def test_a_merchant_lives_the_same_without_the_other() -> None:
    both = play.run(5, months=2, connections=4)
    assert play.run(5, months=2, connections=4, merchant=0) + play.run(
        5, months=2, connections=4, merchant=1
    ) == (both)


def test_what_falls_due_while_somebody_else_acts_is_done_at_the_next_look() -> None:
    terms = Terms(included=5 * UNIT, interval="day")
    with open_world(real=play.START) as world:
        twin, other = (Twin(world, terms, number=number) for number in (1, 2))
        twin.subscribe()
        since, end = world.now, twin.life.current.end
        world.move(end - timedelta(seconds=1))
        other.subscribe()
        other.give(1)
        assert world.now > end and world.seen(end) is None
        world.move(end + timedelta(hours=1))
        assert end < world.seen(end) < world.now
        twin.life.move(since, world.now, world.seen)
        assert twin.life.lots[-1].start == world.seen(end)
        twin.check()


@pytest.mark.parametrize("place", failpoints.CHARGE)
def test_a_process_that_dies_over_a_charge_and_events_that_echo_agree(place: str) -> None:
    with open_world(real=play.START) as world:
        twin = Twin(world, Terms(included=5 * UNIT, threshold=3 * UNIT), number=1)
        twin.subscribe()
        twin.use_and_die(7_000_000, place)
        assert bool(twin.life.open) is (place != "settled")
        # What the network took and nobody entered is known by its event, or asked about.
        twin.echo(Random(1))
        twin.echo(Random(2))
        twin.check()
        twin.check_card()
        assert [purpose for purpose, _ in twin.life.taken] == ["overage"]


@pytest.mark.parametrize("place", failpoints.CHARGE)
def test_a_process_that_dies_over_a_declined_charge_agrees(place: str) -> None:
    with open_world(real=play.START) as world:
        twin = Twin(world, Terms(included=5 * UNIT, threshold=3 * UNIT), number=1)
        twin.subscribe()
        twin.set_card(False)
        twin.use_and_die(7_000_000, place)
        assert bool(twin.life.open) is (place != "settled")
        paid = Payment.objects.get(connection=twin.connection, purpose="overage")
        assert paid.is_open is (place != "settled")
        twin.ask()
        twin.check()
        twin.check_card()
        paid.refresh_from_db()
        assert (paid.status, twin.life.taken) == ("failed", [])


def test_a_charge_whose_process_died_and_that_nobody_asks_about_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(payments, "refresh", lambda payment, now: payment)
    with open_world(real=play.START) as world:
        twin = Twin(world, Terms(included=5 * UNIT, threshold=3 * UNIT), number=1)
        twin.subscribe()
        twin.use_and_die(7_000_000, "intended")
        twin.ask()
        with pytest.raises(Disagreement):
            twin.check()


def test_a_fault_in_the_product_is_seen_with_its_seed() -> None:
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef('billing_spend'::regproc)")
        sound: str = cursor.fetchone()[0]
        broken = sound.replace("take := LEAST(need, lot.remaining);", "take := LEAST(need, 1);")
        assert broken != sound
        cursor.execute(broken)
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command(
            "simulate", "--here", "--seed", "1", "--months", "3", "--connections", "3", stdout=out
        )
    assert ended.value.code == 1
    assert "Play it again: python3 manage.py simulate --seed 1 --months 3" in out.getvalue()


def test_the_command_says_what_was_played(capsys: Any) -> None:
    out = StringIO()
    call_command(
        "simulate", "--here", "--seeds", "2", "--months", "2", "--connections", "2", stdout=out
    )
    assert out.getvalue().count("requests charged") == 2
