"""Prices against an oracle that knows one thing only: what each single unit costs.

The oracle counts unit by unit in fractions; `meters.pricing` never does. Quantities are small, so
that this stays possible, and rates have all ten decimals.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

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
def prices(draw: st.DrawFn, *, rate_type: str = "fixed", plain: bool = False) -> pricing.Price:
    unit = draw(st.sampled_from(pricing.UNITS))
    flat = st.just(Decimal(0)) if plain else st.one_of(st.just(Decimal(0)), rates)
    packages = rate_type == "fixed" and not plain
    return pricing.Price(
        rate_type=rate_type,
        unit=unit,
        token_basis=draw(st.sampled_from(pricing.TOKEN_BASES)),
        tiers=tuple(
            pricing.Tier(Decimal(start), draw(rates), draw(flat)) for start in draw(starts)
        ),
        free_allowance=Decimal(0 if plain else draw(st.sampled_from([0, 0, 1, 7, 100]))),
        package_size=Decimal(draw(st.sampled_from([0, 0, 1, 3, 10])) if packages else 0),
        package_rounding=draw(st.sampled_from(pricing.PACKAGE_ROUNDINGS)),
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


def size(price: pricing.Price) -> int:
    return 60 if price.unit == "minutes" else 1


def tier_of(price: pricing.Price, place: int) -> int:
    """The tier of the unit number `place` (from 1): the last that begins before it."""
    return max(i for i, tier in enumerate(price.tiers) if tier.start * size(price) < place)


def seen(price: pricing.Price, count: int) -> int:
    """How many units the tiers see of a count: packages are counted one by one."""
    past = max(count - int(price.free_allowance) * size(price), 0)
    package = int(price.package_size) * size(price)
    if not package:
        return past
    packages = 0
    while packages * package < past:
        packages += 1
    if price.package_rounding == "down" and packages * package > past:
        packages -= 1
    return packages * package


def oracle(
    price: pricing.Price, counted: int, before: int, cost: Decimal | None = None
) -> tuple[Fraction, Fraction, dict[int, tuple[int, Fraction]]]:
    """The flat amounts, the exact fee of the units, and (units, exact amount) by tier."""
    found: dict[int, tuple[int, Fraction]] = {}
    flats = Fraction(0)
    for place in range(seen(price, before) + 1, seen(price, before + counted) + 1):
        tier = tier_of(price, place)
        if place == price.tiers[tier].start * size(price) + 1:
            flats += Fraction(price.tiers[tier].flat)
        rate = Fraction(price.tiers[tier].rate)
        if cost is None:
            one = rate / DIVISOR[price.unit]
        else:
            one = rate / 100 * Fraction(cost) / counted
        units, amount = found.get(tier, (0, Fraction(0)))
        found[tier] = (units + 1, amount + one)
    return flats, sum((amount for _, amount in found.values()), Fraction(0)), found


def half_up(exact: Fraction) -> Decimal:
    return Decimal(int(exact * TEN + Fraction(1, 2))).scaleb(-10)


@st.composite
def volumes(draw: st.DrawFn) -> pricing.Price:
    """A price by volume: at least two tiers, whose rates fall or stay."""
    price = draw(prices().filter(lambda found: len(found.tiers) > 1))
    falling = sorted((tier.rate for tier in price.tiers), reverse=True)
    tiers = tuple(
        pricing.Tier(tier.start, rate) for tier, rate in zip(price.tiers, falling, strict=True)
    )
    return replace(price, tiers=tiers, tier_mode="volume")


@given(price=volumes(), parts=st.lists(st.integers(0, 90), min_size=1, max_size=6))
def test_by_volume_all_units_cost_the_rate_of_the_last_one(
    price: pricing.Price, parts: list[int]
) -> None:
    """While it runs every request pays the first rate; in the end each unit pays the rate of the
    last one that was counted, and nothing was charged too little but a rounding."""
    pricing.validate(price)
    first = price.tiers[0].rate
    position, charged, billed = Decimal(0), Decimal(0), Decimal(0)
    for part in parts:
        fee = pricing.price(price, used(price, counts(price, part)), before=position)
        assert all(found.tier == 0 for found in fee.slices)
        position += fee.quantity
        charged += fee.amount
        billed += sum(found.quantity for found in fee.slices)
    units = seen(price, int(position))
    assert billed == units
    assert abs(charged - units * first / DIVISOR[price.unit]) <= len(parts) * Decimal("1e-10")
    reached = price.tiers[tier_of(price, units)].rate if units else first
    settled = pricing.volume_fee(price, billed=billed, total=position)
    assert settled == half_up(Fraction(units) * Fraction(reached) / DIVISOR[price.unit])
    assert settled <= charged + len(parts) * Decimal("1e-10")


@given(price=prices(), counted=st.integers(0, 400), before=st.integers(0, 400))
def test_a_fee_is_what_its_units_cost(price: pricing.Price, counted: int, before: int) -> None:
    counted = counts(price, counted)
    fee = pricing.price(price, used(price, counted), before=Decimal(before))
    flats, exact, by_tier = oracle(price, counted, before)
    assert fee.amount == half_up(flats + exact)
    assert fee.quantity == counted
    units = [part for part in fee.slices if part.quantity]
    assert sum(part.amount for part in fee.slices if not part.quantity) == flats
    assert {part.tier: part.quantity for part in units} == {
        tier: units for tier, (units, _) in by_tier.items()
    }
    assert sum(part.amount for part in fee.slices) == fee.amount
    for part in units:
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
    flats, exact, _ = oracle(price, counted, before, cost)
    assert fee.amount == half_up(flats + exact)
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
    flats, exact, _ = oracle(price, first + second, 0)
    assert abs(Fraction(one + two) - flats - exact) <= Fraction(1, TEN)


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


@given(
    price=prices(),
    before=st.integers(0, 300),
    back=st.integers(0, 300),
    counted=st.integers(0, 300),
)
def test_a_flat_amount_is_asked_once_although_a_void_stepped_back(
    price: pricing.Price, before: int, back: int, counted: int
) -> None:
    counted = counts(price, counted)
    stands = max(before - back, 0)
    fee = pricing.price(
        price, used(price, counted), before=Decimal(stands), flats_from=Decimal(before)
    )
    first = pricing.price(price, used(price, counted), before=Decimal(stands)).slices
    flats = {part.tier for part in fee.slices if not part.quantity}
    assert flats <= {part.tier for part in first if not part.quantity}
    for tier in flats:
        assert price.tiers[tier].start * size(price) >= seen(price, before)


kinds = st.permutations(["input", "output", "cache_read", "cache_write"]).flatmap(
    lambda order: st.sets(st.sampled_from(["cache_read", "cache_write"])).map(
        lambda left_out: [kind for kind in order if kind not in left_out]
    )
)


@given(
    named=kinds,
    rated=st.lists(rates, min_size=4, max_size=4),
    fresh=st.integers(0, 10**7),
    read=st.integers(0, 10**7),
    written=st.integers(0, 10**7),
    output=st.integers(0, 10**7),
    before=st.integers(0, 10**9),
)
def test_each_kind_of_token_pays_its_rate(
    named: list[str], rated: list[Decimal], fresh: int, read: int, written: int, output: int,
    before: int,
) -> None:  # fmt: skip
    rate = dict(zip(named, rated, strict=False))
    price = pricing.Price(
        "fixed", "tokens_1m", "input+output",
        tuple(pricing.Tier(Decimal(0), rate[kind], kind=kind) for kind in named),
    )  # fmt: skip
    pricing.validate(price)
    usage = pricing.Usage(
        input_tokens=fresh + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    fee = pricing.price(price, usage, before=Decimal(before))
    exact = sum(
        Fraction(count) * Fraction(rate.get(kind, rate["input"])) / 10**6
        for kind, count in (
            ("input", fresh), ("output", output), ("cache_read", read), ("cache_write", written),
        )
    )  # fmt: skip
    assert fee.amount == half_up(Fraction(exact))
    assert sum(part.quantity for part in fee.slices) == fee.quantity == usage.input_tokens + output


def tier(**terms: str) -> pricing.Tier:
    return pricing.Tier(
        **(
            {"start": Decimal(0), "rate": Decimal(1)}
            | {name: text if name == "kind" else Decimal(text) for name, text in terms.items()}
        )
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terms", "tiers", "param"),
    [
        ({}, [tier(flat="-1")], "tiers[0].flat"),
        ({}, [tier(flat="NaN")], "tiers[0].flat"),
        ({"free_allowance": "-1"}, [tier()], "free_allowance"),
        ({"free_allowance": "0.5"}, [tier()], "free_allowance"),
        ({"package_size": "Infinity"}, [tier()], "package_size"),
        ({"package_size": "5", "rate_type": "percentage"}, [tier()], "package_size"),
        ({"package_rounding": "nearest"}, [tier()], "package_rounding"),
        ({}, [tier(kind="input")], "tiers"),
        ({}, [tier(kind="input"), tier(kind="input")], "tiers[1].kind"),
        ({}, [tier(kind="input"), tier()], "tiers[1].kind"),
        ({}, [tier(kind="input"), tier(kind="output", start="5")], "tiers[1].start"),
        ({}, [tier(kind="input"), tier(kind="output", flat="5")], "tiers[1].flat"),
        ({"unit": "requests"}, [tier(kind="input"), tier(kind="output")], "tiers[0].kind"),
        ({"free_allowance": "1"}, [tier(kind="input"), tier(kind="output")], "free_allowance"),
        ({"package_size": "1"}, [tier(kind="input"), tier(kind="output")], "package_size"),
        ({"token_basis": "output"}, [tier(kind="input"), tier(kind="output")], "token_basis"),
    ],
)
def test_bad_terms_are_refused_with_the_fields_name(
    terms: dict[str, str], tiers: list[pricing.Tier], param: str
) -> None:
    values: dict[str, Any] = {
        "rate_type": "fixed",
        "unit": "tokens_1m",
        "token_basis": "input+output",
    }
    for name, text in terms.items():
        values[name] = Decimal(text) if name in ("free_allowance", "package_size") else text
    with pytest.raises(errors.Invalid) as refused:
        pricing.validate(pricing.Price(tiers=tuple(tiers), **values))
    assert refused.value.param == param
