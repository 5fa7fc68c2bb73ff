"""Money: rounded in one place, halves up, and never a digit lost."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moneyed import Money

from billing import errors, money

CURRENCIES = ["USD", "EUR", "JPY", "KRW", "KWD", "BHD", "ISK", "UGX"]
amounts = st.decimals(-(10**12), 10**12, places=12, allow_nan=False)
currencies = st.sampled_from(CURRENCIES)


@given(amounts)
def test_a_fee_is_rounded_by_less_than_half_a_place(amount: Decimal) -> None:
    rounded = money.round_fee(amount)
    assert abs(rounded - amount) <= Decimal("5e-11")
    assert money.round_fee(rounded) == rounded
    assert money.round_fee(Fraction(amount)) == rounded


@given(st.lists(st.fractions(0, 1000), min_size=1, max_size=20))
def test_parts_add_up_to_the_rounded_whole(parts: list[Fraction]) -> None:
    sums, running = [], Fraction(0)
    for part in parts:
        running += part
        sums.append(running)
    assert sum(money.allocate(sums)) == money.round_fee(running)


@given(amounts.filter(lambda amount: amount >= 0), currencies)
def test_what_a_card_pays_is_never_more_than_is_owed(amount: Decimal, currency: str) -> None:
    paid = money.floor_minor(amount, currency)
    assert 0 <= paid <= amount
    assert money.is_whole_minor(paid, currency)
    minor = money.to_minor(Money(paid, currency))
    assert money.from_minor(minor, currency).amount == paid
    assert amount - paid < (1 if currency in ("JPY", "KRW", "ISK", "UGX") else Decimal("0.01"))


@given(amounts)
def test_the_wire_keeps_every_place(amount: Decimal) -> None:
    text = money.wire(amount)
    assert Decimal(text) == money.round_fee(amount)
    assert len(text.partition(".")[2]) == 10 and "E" not in text


@given(st.text(max_size=24))
def test_only_plain_amounts_are_taken(text: str) -> None:
    try:
        taken = money.parse_amount(text, param="amount")
    except errors.Invalid:
        return
    assert text.isascii() and 0 <= taken < 10**12


@pytest.mark.parametrize(
    "value",
    ["NaN", "inf", "-1", "+1", "1e3", "1_0", "\uff11", " 1", "", ".5", "1.", "1" * 13, 1.5, True,
     None, -1, "1.00000000001", "1\n"],
)  # fmt: skip
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(errors.Invalid):
        money.parse_amount(value, param="amount")


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("25", "USD", "$25.00"),
        ("0.0045", "USD", "$0.0045"),
        ("-1.2", "USD", "\u2212$1.20"),
        ("1234567.5", "EUR", "\u20ac1,234,567.50"),
        ("50", "JPY", "\u00a550"),
    ],
)
def test_amounts_for_people(amount: str, currency: str, shown: str) -> None:
    assert money.display(Decimal(amount), currency) == shown
