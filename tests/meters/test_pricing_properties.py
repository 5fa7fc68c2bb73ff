"""Prices against an oracle that knows one thing only: what each single unit costs.

The oracle counts unit by unit in fractions; `meters.pricing` never does. Quantities are small, so
that this stays possible, and rates have all ten decimals.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import errors
from meters import pricing

TEN = 10**10
DIVISOR = {"tokens_1m": 10**6, "characters_1m": 10**6, "minutes": 60, "requests": 1}

rates = st.integers(0, 10**6 * TEN).map(lambda n: Decimal(n).scaleb(-10))
starts = st.lists(st.integers(1, 60), max_size=4, unique=True).map(
    lambda found: [0, *sorted(found)]
)


@st.composite
def prices(draw: st.DrawFn, *, rate_type: str = "fixed") -> pricing.Price:
    unit = draw(st.sampled_from(pricing.UNITS))
    return pricing.Price(
        rate_type=rate_type,
        unit=unit,
        token_basis=draw(st.sampled_from(pricing.TOKEN_BASES)),
        tiers=tuple(pricing.Tier(Decimal(start), draw(rates)) for start in draw(starts)),
    )


def used(price: pricing.Price, counted: int, cost: Decimal | None = None) -> pricing.Usage:
    """Usage that counts `counted`: of the kind the price counts, with noise in the others."""
    if price.unit == "tokens_1m":
        if price.token_basis == "output":
            return pricing.Usage(input_tokens=999, output_tokens=counted, provider_cost=cost)
        return pricing.Usage(
            input_tokens=counted // 3, output_tokens=counted - counted // 3, provider_cost=cost
        )
    if price.unit == "characters_1m":
        return pricing.Usage(
            input_characters=counted // 2, output_characters=counted - counted // 2,
            input_tokens=7, provider_cost=cost,
        )  # fmt: skip
    if price.unit == "minutes":
        return pricing.Usage(input_seconds=Decimal(counted), provider_cost=cost)
    return pricing.Usage(input_tokens=5, provider_cost=cost)


def counts(price: pricing.Price, counted: int) -> int:
    return 1 if price.unit == "requests" else counted


def tier_of(price: pricing.Price, place: int) -> int:
    """The tier of the unit number `place` (from 1): the last that begins before it."""
    size = 60 if price.unit == "minutes" else 1
    return max(i for i, tier in enumerate(price.tiers) if tier.start * size < place)


def oracle(
    price: pricing.Price, counted: int, before: int, cost: Decimal | None = None
) -> tuple[Fraction, dict[int, tuple[int, Fraction]]]:
    """The exact fee, and (units, exact amount) by tier."""
    found: dict[int, tuple[int, Fraction]] = {}
    for place in range(before + 1, before + counted + 1):
        tier = tier_of(price, place)
        rate = Fraction(price.tiers[tier].rate)
        if cost is None:
            one = rate / DIVISOR[price.unit]
        else:
            one = rate / 100 * Fraction(cost) / counted
        units, amount = found.get(tier, (0, Fraction(0)))
        found[tier] = (units + 1, amount + one)
    return sum((amount for _, amount in found.values()), Fraction(0)), found


def half_up(exact: Fraction) -> Decimal:
    return Decimal(int(exact * TEN + Fraction(1, 2))).scaleb(-10)


@given(price=prices(), counted=st.integers(0, 400), before=st.integers(0, 400))
def test_a_fee_is_what_its_units_cost(price: pricing.Price, counted: int, before: int) -> None:
    counted = counts(price, counted)
    fee = pricing.price(price, used(price, counted), before=Decimal(before))
    exact, by_tier = oracle(price, counted, before)
    assert fee.amount == half_up(exact)
    assert fee.quantity == counted
    assert {part.tier: part.quantity for part in fee.slices} == {
        tier: units for tier, (units, _) in by_tier.items()
    }
    assert sum(part.amount for part in fee.slices) == fee.amount
    for part in fee.slices:
        assert abs(Fraction(part.amount) - by_tier[part.tier][1]) < Fraction(1, TEN)


@given(
    price=prices(rate_type="percentage"),
    counted=st.integers(1, 400),
    before=st.integers(0, 400),
    cost=st.integers(0, 10**4 * TEN).map(lambda n: Decimal(n).scaleb(-10)),
)
def test_a_share_of_the_cost_is_split_by_units(
    price: pricing.Price, counted: int, before: int, cost: Decimal
) -> None:
    counted = counts(price, counted)
    fee = pricing.price(price, used(price, counted, cost), before=Decimal(before))
    exact, _ = oracle(price, counted, before, cost)
    assert fee.amount == half_up(exact)
    assert sum(part.amount for part in fee.slices) == fee.amount


@given(price=prices(), first=st.integers(0, 200), second=st.integers(0, 200))
def test_two_requests_cost_together_what_one_would(
    price: pricing.Price, first: int, second: int
) -> None:
    """But for the rounding of each: at most half a ten-billionth a request."""
    if price.unit == "requests":
        first = second = 1
    one = pricing.price(price, used(price, first), before=Decimal(0)).amount
    two = pricing.price(price, used(price, second), before=Decimal(first)).amount
    exact, _ = oracle(price, first + second, 0)
    assert abs(Fraction(one + two) - exact) <= Fraction(1, TEN)


@given(price=prices(), counted=st.integers(0, 200), before=st.integers(0, 200))
def test_more_usage_never_costs_less(price: pricing.Price, counted: int, before: int) -> None:
    if price.unit == "requests":
        return
    less = pricing.price(price, used(price, counted), before=Decimal(before)).amount
    more = pricing.price(price, used(price, counted + 1), before=Decimal(before)).amount
    assert 0 <= less <= more


@pytest.mark.parametrize("number", ["NaN", "-1", "Infinity", "1000000000000", "0.00000000001"])
def test_a_rate_that_is_no_amount_is_refused_with_its_name(number: str) -> None:
    price = pricing.Price(
        "fixed", "requests", "output", (pricing.Tier(Decimal(0), Decimal(number)),)
    )
    with pytest.raises(errors.Invalid) as refused:
        pricing.validate(price)
    assert refused.value.param == "tiers[0].rate"


@pytest.mark.parametrize("number", ["NaN", "-1", "Infinity", "1.5", "1000000000000", "0"])
def test_a_start_that_is_no_count_is_refused_with_its_name(number: str) -> None:
    tiers = (pricing.Tier(Decimal(0), Decimal(1)), pricing.Tier(Decimal(number), Decimal(1)))
    with pytest.raises(errors.Invalid) as refused:
        pricing.validate(pricing.Price("fixed", "requests", "output", tiers))
    assert refused.value.param == "tiers[1].start"
