"""Two lives told in full, on PostgreSQL beside the plain model: every rule of money.md meets its
edge once, in an order a reader can follow. The mutants of tests/mutants are caught by it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from billing import subscriptions
from lava.demo.sim.terms import UNIT, Terms
from lava.demo.sim.twin import Twin
from lava.demo.sim.world import World, open_world
from lava.management.commands import audit

TIERS = ((0, 3 * UNIT), (2_000_000, 2 * UNIT), (5_000_000, UNIT // 7))


@pytest.fixture
def world(db: None) -> Iterator[World]:
    with open_world() as opened:
        yield opened


def the_books_hold() -> None:
    assert audit.broken(1) == {}


def wait(twin: Twin, **time: float) -> None:
    now = twin.world.now
    to = now + timedelta(**time)
    twin.world.move(to)
    twin.life.move(now, to)
    twin.check()


def to_the_end(twin: Twin) -> None:
    """To the end of the cycle, or the day of the next try."""
    current = twin.life.current
    assert current is not None
    end = current.next_try or current.end
    now = twin.world.now
    twin.world.move(end)
    twin.life.move(now, end)
    twin.check()


def then(twin: Twin, *tokens: int, **how: bool) -> None:
    for count in tokens:
        twin.use(count, **how)
        twin.check()


def test_a_paid_plan_that_rolls_over(world: World) -> None:
    terms = Terms(
        price=2500, included=10 * UNIT, cap=12 * UNIT, threshold=5 * UNIT, tiers=TIERS,
        overage_cap=9 * UNIT, keeps_bundles=False,
    )  # fmt: skip
    twin = Twin(world, terms, number=1)
    assert twin.subscribe()
    # Over two boundaries, to the digit that is rounded.
    then(twin, 1_999_999, 1, 1, 3_000_000, 1_000_001)
    assert twin.life.debt > 0
    twin.buy()
    twin.check()
    twin.give(3 * UNIT + 1)
    # A request taken back after its debt was paid out of a bundle; then all of them, twice.
    twin.void(3)
    twin.check()
    for place in (0, 0, 1, 2, 4):
        twin.void(place)
        twin.check()
    # What is left rolls over, cut to the cap; bundles end with the cycle.
    to_the_end(twin)
    to_the_end(twin)
    assert sum(lot.left for lot in twin.life.live(world.now)) == 22 * UNIT
    # A cycle is opened once.
    current = twin.connection.subscription
    assert current is not None
    assert not subscriptions.advance(current, index=current.cycle_index, now=world.now)
    twin.check()
    # The oldest is drawn first, and keeps its age when it rolls again.
    then(twin, 1_000_000)
    to_the_end(twin)
    twin.buy()
    then(twin, 3_000_000)
    # Owed in one cycle and taken back in the next.
    then(twin, 300_000_000)
    first = len(twin.rows) - 1
    assert twin.life.cycle_overage
    to_the_end(twin)
    then(twin, 160_000_000)
    twin.void(first)
    twin.check()
    # Enforced: refused past the cap, and with a debt that eats the credits.
    twin.set_card(False)
    then(twin, 200_000_000, 40_000_000)
    assert not twin.use(90_000_000, enforce=True)
    twin.check()
    # Declined on its days, then it ends unpaid.
    for _ in range(6):
        if twin.life.current is not None:
            to_the_end(twin)
    assert twin.life.current is None
    twin.set_card(True)
    twin.subscribe()
    twin.check()
    twin.check_card()
    the_books_hold()


def test_a_silent_network_and_late_usage(world: World) -> None:
    terms = Terms(
        price=900, included=9 * UNIT, interval="week", threshold=2 * UNIT, by_cycle=True,
        overage_cap=5 * UNIT + UNIT // 2,
    )  # fmt: skip
    twin = Twin(world, terms, number=2)
    twin.subscribe()
    # The money moves and the answer is lost; what happens meanwhile leaves that debt alone.
    twin.silence("dropped")
    then(twin, 4_000_000)
    assert twin.life.collecting
    twin.give(UNIT)
    twin.check()
    # What the card is paying is owed all the same: it leaves less to spend.
    assert not twin.use(1_000_000, enforce=True)
    twin.check()
    twin.void(0)
    twin.check()
    twin.ask()
    twin.check()
    # The call is lost: made again with its own key, once.
    twin.silence("lost")
    then(twin, 9_000_000)
    twin.ask()
    twin.check()
    # The count starts again with the cycle; usage of the last one is late and counts in this one.
    to_the_end(twin)
    twin.use(1_000_000, ago=timedelta(days=2))
    twin.check()
    # Owed below the threshold: with the end of the cycle it is charged, in whole cents.
    then(twin, 3_333_333)
    to_the_end(twin)
    # Declined: one day later the next try.
    twin.set_card(False)
    then(twin, 4_444_444)
    twin.set_card(True)
    wait(twin, hours=23)
    assert twin.life.overage_next is not None
    wait(twin, hours=2)
    assert twin.life.overage_next is None
    twin.cancel()
    twin.resume()
    twin.check()
    # Cancelled with credits left: they end with the cycle.
    to_the_end(twin)
    assert twin.life.spendable(world.now) > 8 * UNIT
    twin.cancel()
    to_the_end(twin)
    assert twin.life.current is None
    twin.check_card()
    the_books_hold()


def test_a_plan_whose_credits_end_and_that_blocks(world: World) -> None:
    terms = Terms(included=5 * UNIT, keeps=False, interval="day", overage=False, tiers=TIERS)
    twin = Twin(world, terms, number=3)
    twin.subscribe()
    twin.give(2 * UNIT)
    then(twin, 2_000_000)
    assert not twin.use(9_000_000, enforce=True)
    twin.check()
    # Usage that has run is recorded, and becomes debt; the next credits pay it first.
    then(twin, 6_000_000)
    assert twin.life.debt
    assert not twin.use(10, enforce=True)
    twin.check()
    wait(twin, days=1, hours=1)
    # Taken back after its credits ended: they end again.
    twin.void(0)
    twin.check()
    twin.give(30 * UNIT)
    left = sum(lot.left for lot in twin.life.live(world.now))
    assert not twin.take(left + 1)
    assert twin.take(UNIT)
    twin.check()
    # Three days asleep: once for the current cycle.
    world.tick(timedelta(days=3))
    twin.settle()
    twin.check()
    the_books_hold()
