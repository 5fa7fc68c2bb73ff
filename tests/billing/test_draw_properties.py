"""The draw against an oracle in fractions: any lots of credits, any fees, in any order of their
making; what pays, how much, and what becomes debt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import audit, balances, credits, ids, ledger
from billing.models import Connection, CreditGrant, LedgerEntry, Merchant
from tests import factories

pytestmark = pytest.mark.django_db

TEN = 10**10
DAYS = st.integers(-5, 5)


@dataclass(frozen=True)
class Lot:
    """A lot to be granted: its place in the order of the draw, and how much it holds."""

    pool: int
    priority: int
    amount: int
    ends: int | None
    origin: int


lots = st.lists(
    st.builds(
        Lot,
        pool=st.sampled_from([1, 2]),
        priority=st.sampled_from([0, 0, 0, -1, 3]),
        amount=st.one_of(st.integers(1, 50).map(lambda n: n * TEN), st.integers(1, 50 * TEN)),
        ends=st.one_of(st.none(), st.integers(1, 6)),
        # One origin a lot: what is equal in every other way is drawn oldest first.
        origin=st.integers(0, 10**6),
    ),
    max_size=7,
    unique_by=lambda lot: lot.origin,
)
fees = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 60).map(lambda n: n * TEN), st.integers(0, 60 * TEN)),
        st.integers(0, 2),
    ),
    max_size=6,
)


@pytest.fixture
def merchant() -> Merchant:
    return factories.make_merchant()


def grant(connection: Connection, lot: Lot, now: datetime) -> UUID:
    """A lot with any priority: the public verb grants at 0 alone."""
    made = ids.new(sandbox=True)
    ledger.call(
        "SELECT billing_grant(%s, %s, %s, %s, %s, %s, %s, %s, NULL, NULL, NULL, 'x', 'x', %s)",
        made,
        connection.pk,
        lot.pool,
        "cycle" if lot.pool == 1 else "manual",
        Decimal(lot.amount).scaleb(-10),
        lot.priority,
        None if lot.ends is None else now + timedelta(days=lot.ends),
        now - timedelta(seconds=10**6 - lot.origin),
        now,
    )
    return made


def spend(connection: Connection, amount: int, request: UUID, now: datetime) -> Any:
    return ledger.call(
        "SELECT row_to_json(s) FROM billing_spend(%s, %s, %s, %s) s",
        connection.pk,
        Decimal(amount).scaleb(-10),
        request,
        now,
    )


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(made=lots, asked=fees)
def test_a_draw_is_what_the_oracle_says(
    merchant: Merchant, made: list[Lot], asked: list[tuple[int, int]]
) -> None:
    with transaction.atomic():
        _play(merchant, made, asked)
        transaction.set_rollback(True)


def _play(merchant: Merchant, made: list[Lot], asked: list[tuple[int, int]]) -> None:
    now = factories.NOW
    connection = factories.make_connection(merchant, now=now)
    names = [grant(connection, lot, now) for lot in made]
    left = {name: Fraction(lot.amount, TEN) for name, lot in zip(names, made, strict=True)}
    lot_of = dict(zip(names, made, strict=True))
    debt = Fraction(0)
    day = 0
    for number, (amount, days) in enumerate(asked):
        day += days
        alive = [name for name, lot in lot_of.items() if (lot.ends is None or lot.ends > day)]
        order = sorted(
            alive,
            key=lambda name: (
                lot_of[name].priority,
                Fraction(10**9) if lot_of[name].ends is None else Fraction(lot_of[name].ends or 0),
                lot_of[name].pool,
                lot_of[name].origin,
            ),
        )
        need = Fraction(amount, TEN)
        expected: list[tuple[str | None, Fraction]] = []
        for name in order:
            part = min(need, left[name])
            if part:
                left[name] -= part
                need -= part
                expected.append((str(name), part))
        if need:
            debt += need
            expected.append((None, need))
        request = ids.new(sandbox=True)
        answer = spend(connection, amount, request, now + timedelta(days=day, seconds=number))
        draws = answer["draws"] if isinstance(answer, dict) else json.loads(answer)["draws"]
        assert [(name, Fraction(part)) for name, part in draws] == expected
        lines = LedgerEntry.objects.filter(request_id=request).order_by("seq")
        assert [
            (line.grant_id and str(line.grant_id), -Fraction(line.amount)) for line in lines
        ] == (expected)
    connection.refresh_from_db()
    assert Fraction(connection.debt) == debt
    at = now + timedelta(days=day, seconds=len(asked))
    balance = credits.balance(connection, now=at)
    assert balances.read(factories.make_key(merchant), connection.public_id, now=at) == balance
    live = {
        name: rest
        for name, rest in left.items()
        if lot_of[name].ends is None or lot_of[name].ends > day  # type: ignore[operator]
    }
    for pool, said in ((1, balance.cycle), (2, balance.bundle)):
        rest = sum((live[name] for name in live if lot_of[name].pool == pool), Fraction(0))
        assert Fraction(said) == rest
    assert Fraction(balance.total) == sum(live.values(), Fraction(0)) - debt
    # Nobody works here: what falls is told to no one.
    for rule in audit.RULES:
        assert rule.name == "nothing_is_stuck" or not rule.rows(1), rule.name


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(made=lots, first=st.integers(1, 120 * TEN))
def test_debt_is_paid_first_out_of_whatever_comes(
    merchant: Merchant, made: list[Lot], first: int
) -> None:
    with transaction.atomic():
        now = factories.NOW
        connection = factories.make_connection(merchant, now=now)
        spend(connection, first, ids.new(sandbox=True), now)
        debt = first
        for lot in made:
            name = grant(connection, lot, now)
            paid = min(debt, lot.amount)
            debt -= paid
            assert CreditGrant.objects.get(pk=name).remaining.scaleb(10) == lot.amount - paid
            connection.refresh_from_db()
            assert connection.debt.scaleb(10) == debt
        transaction.set_rollback(True)
