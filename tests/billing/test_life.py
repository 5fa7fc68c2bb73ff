"""A connection's life, made up by hypothesis, on PostgreSQL: after each step the plain model of
`lava.demo.sim` agrees to the last digit, and every rule of the audit is silent.

Four families of plans, 50 lives of 50 steps each. The card network is the in-process stand-in; the
stories in tests/scenarios use the real HTTP of the local one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.db import transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)  # fmt: skip

from billing import audit as money_audit
from billing import statements
from billing.audit import asking
from lava.demo.sim.terms import UNIT, Terms
from lava.demo.sim.twin import Twin
from lava.demo.sim.world import World, open_world, ticks
from meters import audit as usage_audit
from meters import proofs

# Lives a family of plans, each of 50 steps: in every run, at the gate, and by LAVA_TEST_LIVES=500.
FEW = 5
SHORT = 50
LIVES = int(os.environ.get("LAVA_TEST_LIVES", SHORT))
# A failing life is shrunk by hand, in the long form: it takes minutes.
SHRINK = os.environ.get("LAVA_TEST_SHRINK", "0") == "1"
RULES = (*money_audit.RULES, *usage_audit.RULES)

TIERS = ((0, 3 * UNIT), (2_000_000, 2 * UNIT), (5_000_000, UNIT // 7))
FAMILIES: dict[str, list[Terms]] = {
    "free plans that roll over": [
        Terms(included=25 * UNIT, cap=30 * UNIT, overage=False, tiers=TIERS),
        Terms(included=10 * UNIT, keeps_bundles=False, interval="week", tiers=TIERS),
    ],
    "free plans that end": [
        Terms(included=10 * UNIT, keeps=False, keeps_bundles=False, interval="day", overage=False),
        Terms(included=7 * UNIT, keeps=False, by_cycle=True, tiers=TIERS, overage_cap=4 * UNIT),
    ],
    "paid plans that roll over": [
        Terms(price=2500, included=25 * UNIT, cap=20 * UNIT, tiers=TIERS),
        Terms(price=900, included=9 * UNIT, interval="week", threshold=2 * UNIT, by_cycle=True),
    ],
    "paid plans that end": [
        Terms(price=1000, included=10 * UNIT, keeps=False, threshold=UNIT, tiers=TIERS),
        Terms(
            price=500, included=5 * UNIT, keeps=False, keeps_bundles=False, interval="week",
            overage_cap=8 * UNIT, threshold=3 * UNIT,
        ),
    ],
    "tiers by volume": [
        Terms(
            included=7 * UNIT, interval="day", keeps=False, by_cycle=True, by_volume=True,
            tiers=TIERS, overage=False,
        ),
        Terms(
            price=900, included=9 * UNIT, interval="week", keeps_bundles=False, by_cycle=True,
            by_volume=True, tiers=TIERS, threshold=2 * UNIT,
        ),
    ],
}  # fmt: skip

# Amounts with all ten decimals, and round ones.
amounts = st.one_of(st.integers(1, 40).map(lambda n: n * UNIT), st.integers(1, 40 * UNIT))
tokens = st.one_of(st.integers(0, 6_000_000), st.sampled_from([0, 1, 1_000_000, 2_000_000]))
_phones = itertools.count(1)


class Audit:
    """Every rule in one trip: those in SQL as one prepared question, the others as they are."""

    def __init__(self) -> None:
        self.python = [rule for rule in RULES if callable(rule.find)]
        self.sql = [rule for rule in RULES if isinstance(rule.find, str)]
        parts = [f"SELECT '{rule.name}' AS rule WHERE EXISTS ({rule.find})" for rule in self.sql]
        with database.cursor() as cursor:
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            cursor.execute("SET LOCAL jit = off")
            cursor.execute("DEALLOCATE ALL")
            cursor.execute("PREPARE whole_audit AS " + " UNION ALL ".join(parts))

    def broken(self) -> list[str]:
        with database.cursor() as cursor:
            cursor.execute("EXECUTE whole_audit")
            found = [row[0] for row in cursor.fetchall()]
        return found + [rule.name for rule in self.python if rule.rows(1)]


def read_at_once(sql: str) -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
    """`billing.audit.asking.chunks` in one trip, for books of one customer."""
    with database.cursor() as cursor:
        cursor.execute(sql)
        yield [column[0] for column in cursor.description], cursor.fetchall()


class Life(RuleBasedStateMachine):
    """One customer of a merchant; `world`, `terms` and `audit` are set by the test."""

    world: World
    family: list[Terms]
    audit: Audit

    def __init__(self) -> None:
        super().__init__()
        self.undo = transaction.atomic()
        self.undo.__enter__()
        # (instant, plan credits, bundle credits, debt) after each step.
        self.past: list[tuple[Any, int, int, int]] = []
        self.offset = self.world.merchant.clock_offset

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.undo.__exit__(None, None, None)
        self.world.merchant.clock_offset = self.offset
        self.world.network.declining.clear()
        self.world.network.faults.clear()

    @initialize(place=st.integers(0, 1))
    def begin(self, place: int) -> None:
        self.twin = Twin(self.world, self.family[place], number=next(_phones))
        self.twin.subscribe()

    @property
    def life(self) -> Any:
        return self.twin.life

    @rule(tokens=tokens, enforce=st.booleans())
    def use(self, tokens: int, enforce: bool) -> None:
        self.twin.use(tokens, enforce=enforce)

    @rule(tokens=tokens, hours=st.integers(1, 24 * 29))
    def use_late(self, tokens: int, hours: int) -> None:
        self.twin.use(tokens, ago=timedelta(hours=hours))

    @rule(place=st.integers(0, 1000))
    def void(self, place: int) -> None:
        self.twin.void(place)

    @rule(amount=amounts)
    def give(self, amount: int) -> None:
        self.twin.give(amount)

    @rule(amount=amounts)
    def take(self, amount: int) -> None:
        self.twin.take(amount)

    @rule(quantity=st.integers(1, 3))
    def buy(self, quantity: int) -> None:
        self.twin.buy(quantity)

    @rule(good=st.booleans())
    def set_card(self, good: bool) -> None:
        self.twin.set_card(good)

    @rule(fault=st.sampled_from(["lost", "dropped"]))
    def silence(self, fault: str) -> None:
        """A charge of the next usage is not answered; what happens next happens beside it."""
        self.twin.silence(fault)
        self.twin.use(5_000_000)
        self.twin.hear()

    @precondition(lambda self: self.life.open)
    @rule()
    def ask(self) -> None:
        self.twin.ask()

    @precondition(lambda self: self.life.current is not None and not self.life.current.cancels)
    @rule()
    def cancel(self) -> None:
        self.twin.cancel()

    @precondition(lambda self: self.life.current is not None and self.life.current.cancels)
    @rule()
    def resume(self) -> None:
        self.twin.resume()

    @precondition(lambda self: self.life.current is None)
    @rule()
    def subscribe_again(self) -> None:
        self.twin.subscribe()

    @rule(hours=st.one_of(st.integers(1, 72), st.integers(1, 24 * 40)))
    def wait(self, hours: int) -> None:
        self.move(self.world.now + timedelta(hours=hours))

    @precondition(lambda self: self.life.current is not None)
    @rule(fault=st.sampled_from([None, None, "dropped"]))
    def renew(self, fault: str | None) -> None:
        """To the end of the cycle, perhaps with a network that does not answer at once."""
        end = self.life.current.next_try or self.life.current.end
        if self.life.open:
            self.twin.ask()
        if end <= self.world.now or self.life.current is None:
            return
        if fault and not self.life.debt:
            self.twin.silence(fault)
        self.move(end)
        self.twin.hear()
        if self.life.open:
            self.twin.ask()

    @precondition(lambda self: self.life.current is not None)
    @rule()
    def use_at_the_very_end(self) -> None:
        """Usage in the last second of a cycle, just before it is renewed."""
        end = self.life.current.end
        if end - timedelta(seconds=2) > self.world.now:
            self.move(end - timedelta(seconds=2))
            if self.life.current is not None and self.life.current.end == end:
                self.twin.use(1_234_567)

    @precondition(lambda self: self.past)
    @rule(place=st.integers(0, 100))
    def explain(self, place: int) -> None:
        """Any balance of the past is proven from the lines alone."""
        at, cycle, bundle, debt = self.past[place % len(self.past)]
        found = statements.explain(self.twin.connection, at=at)
        said = found.balance
        assert (ticks(said.cycle), ticks(said.bundle), ticks(said.debt)) == (cycle, bundle, debt)
        assert sum(line.amount for line in found.lines) == said.total + found.ended
        proven = proofs.of(self.twin.connection, found.requests)
        assert all(
            sum(part.amount for part in proof.slices) == proof.request.fee
            and sum(draw.amount for draw in proof.draws) == proof.request.charged
            for proof in proven.values()
        )

    def move(self, to: Any) -> None:
        if self.life.open:
            self.twin.ask()
        now = self.world.now
        self.world.move(to)
        # What was due already is done at this instant still.
        self.life.sweep(now)
        self.note(now)
        self.life.move(now, to)

    def note(self, now: Any) -> None:
        """Keep what there is at an instant. When several things happened at one, what is proven of
        it is how it ended."""
        lots = self.life.live(now)
        sums = [sum(lot.left for lot in lots if lot.pool == pool) for pool in (1, 2)]
        if self.past and self.past[-1][0] == now:
            self.past.pop()
        self.past.append((now, *sums, self.life.debt))

    @invariant()
    def both_say_the_same_and_the_audit_is_silent(self) -> None:
        if hasattr(self, "twin"):
            self.twin.check()
            self.note(self.world.now)
            assert self.audit.broken() == []


@pytest.fixture
def world(db: None) -> Iterator[World]:
    with open_world() as opened:
        yield opened


@pytest.mark.parametrize("family", FAMILIES)
def test_a_life(world: World, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    live(world, family, FEW, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_lives(world: World, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    live(world, family, LIVES, monkeypatch)


def live(world: World, family: str, lives: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many lives on a family of plans, each against the model, the audit asked at every step."""
    monkeypatch.setattr(asking, "chunks", read_at_once)
    for terms in FAMILIES[family]:
        world.offer(terms)

    class Machine(Life):
        pass

    Machine.world, Machine.family, Machine.audit = world, FAMILIES[family], Audit()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=lives,
            # The gate draws by a fixed seed (and by constants of the modules that are loaded, so
            # that not every run lives quite the same lives); the long form draws new ones.
            derandomize=lives <= SHORT,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # A failure is shrunk for people; a mutant only has to be seen.
            phases=list(Phase) if SHRINK else [Phase.generate],
        ),
    )


def test_what_was_due_and_is_done_later_is_proven_as_it_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal that nobody looked for until the clock moves on happens at the instant of the last
    look, after what was seen of that instant."""
    monkeypatch.setattr(asking, "chunks", read_at_once)
    family = FAMILIES["paid plans that end"]
    for terms in family:
        world.offer(terms)

    class Machine(Life):
        pass

    Machine.world, Machine.family, Machine.audit = world, family, Audit()
    life = Machine()
    try:
        for step in (
            lambda: life.begin(place=0), life.use_at_the_very_end, lambda: life.void(place=0),
            lambda: life.void(place=0), lambda: life.wait(hours=15),
        ):  # fmt: skip
            step()
            life.both_say_the_same_and_the_audit_is_silent()
        assert [cycle for _, cycle, _, _ in life.past[-2:]] == [10 * UNIT, 10 * UNIT]
        for place in range(len(life.past)):
            life.explain(place=place)
    finally:
        life.teardown()
