"""Whose credits a grant holds: pieces that are spent in order and never come from nowhere."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from billing import clawback

A, B, C = (UUID(int=number) for number in (1, 2, 3))
amounts = st.decimals("0.0000000001", "1000", places=10)
pieces = st.lists(st.tuples(st.sampled_from([A, B, C, None]), amounts), max_size=6)


def total(rows: list[tuple[UUID | None, Decimal]]) -> Decimal:
    return sum((amount for _, amount in rows), Decimal(0))


@given(rows=pieces, amount=amounts)
def test_what_is_moved_and_what_stays_are_all_there_was(
    rows: list[tuple[UUID | None, Decimal]], amount: Decimal
) -> None:
    moved, stays = clawback._front(rows, amount), clawback._without(rows, amount)
    assert total(moved) + total(stays) == total(rows)
    assert total(moved) == min(amount, total(rows))
    # The order is kept: what stays is the end of what was there.
    assert [owner for owner, _ in rows][len(rows) - len(stays) :] == [owner for owner, _ in stays]


@given(rows=pieces, amount=amounts)
def test_an_owners_own_are_taken_first_and_the_rest_from_the_front(
    rows: list[tuple[UUID | None, Decimal]], amount: Decimal
) -> None:
    left = clawback._without(rows, amount, owner=B)
    own = total([row for row in rows if row[0] == B])
    assert total(left) == total(rows) - min(amount, total(rows))
    assert total([row for row in left if row[0] == B]) == max(own - amount, Decimal(0)) or (
        amount > own
    )


def test_figures_by_hand() -> None:
    rows = [(A, Decimal(20)), (B, Decimal(25))]
    assert clawback._without(rows, Decimal(12)) == [(A, Decimal(8)), (B, Decimal(25))]
    assert clawback._without(rows, Decimal(5), owner=B) == [(A, Decimal(20)), (B, Decimal(20))]
    assert clawback._without(rows, Decimal(30), owner=B) == [(A, Decimal(15))]
    assert clawback._front(rows, Decimal(22)) == [(A, Decimal(20)), (B, Decimal(2))]
