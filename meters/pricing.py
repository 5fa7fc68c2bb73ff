"""Prices: usage in, fee and slices out. Pure: no Django, no clock, no database.

Anybody may call it: the console's calculator, estimates, the audit's recomputation. The charge
itself prices in `meters/sql/charge.sql`, under the connection's lock; a test holds both equal.

Several tiers are graduated: each unit pays the rate of the tier it falls in, and a quantity exactly
on a boundary is still in the lower tier (money.md, Meters).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from billing import errors, money

UNITS = ("tokens_1m", "characters_1m", "minutes", "requests")
RATE_TYPES = ("fixed", "percentage")
TOKEN_BASES = ("input+output", "output")
MOST_TIERS = 20
LARGEST = Decimal(10) ** 12


@dataclass(frozen=True, slots=True)
class Tier:
    """From `start` (in the unit counted: tokens, characters, minutes, requests) the rate is
    `rate`: money per million, per minute, per request, or percent of the provider's cost."""

    start: Decimal
    rate: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """One version of a meter's price."""

    rate_type: str
    unit: str
    token_basis: str
    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request used; `provider_cost` in money, None when nobody said."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_characters: int = 0
    output_characters: int = 0
    input_seconds: Decimal = Decimal(0)
    output_seconds: Decimal = Decimal(0)
    provider_cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a request in one tier; `tier` is its index, `quantity` as in `quantity()`."""

    tier: int
    quantity: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Fee:
    """What a meter asks for a request; the slices add up to `amount`, exactly."""

    amount: Decimal
    quantity: Decimal
    slices: tuple[Slice, ...]


def validate(price: Price) -> None:
    """Check a price before it is published.

    Raises:
        billing.errors.Invalid: naming the field, e.g. `tiers[2].start`.
    """
    for value, options, name in (
        (price.rate_type, RATE_TYPES, "rate_type"),
        (price.unit, UNITS, "unit"),
        (price.token_basis, TOKEN_BASES, "token_basis"),
    ):
        if value not in options:
            raise errors.Invalid(f"Use one of {', '.join(options)}.", param=name)
    if not price.tiers:
        raise errors.Invalid("Give at least one tier.", param="tiers")
    if len(price.tiers) > MOST_TIERS:
        raise errors.Invalid(f"Give at most {MOST_TIERS} tiers.", param="tiers")
    before: Decimal | None = None
    for place, tier in enumerate(price.tiers):
        start, rate = f"tiers[{place}].start", f"tiers[{place}].rate"
        if not (tier.start.is_finite() and 0 <= tier.start < LARGEST):
            raise errors.Invalid("Start at 0 or more, below 10^12.", param=start)
        if tier.start != tier.start.to_integral_value():
            raise errors.Invalid("Start at a whole number.", param=start)
        if before is None and tier.start != 0:
            raise errors.Invalid("The first tier starts at 0.", param=start)
        if before is not None and tier.start <= before:
            raise errors.Invalid("Each tier starts above the one before it.", param=start)
        if not (tier.rate.is_finite() and 0 <= tier.rate < LARGEST):
            raise errors.Invalid("Give a rate of 0 or more, below 10^12.", param=rate)
        if money.round_fee(tier.rate) != tier.rate:
            raise errors.Invalid("Give a rate with at most 10 decimals.", param=rate)
        before = tier.start


def quantity(price: Price, usage: Usage) -> Decimal:
    """What of the usage is counted: tokens, characters, SECONDS for minutes (so that a position
    stays exact), or 1 for a request."""
    if price.unit == "tokens_1m":
        counted = usage.output_tokens
        if price.token_basis == "input+output":
            counted += usage.input_tokens
        return Decimal(counted)
    if price.unit == "characters_1m":
        return Decimal(usage.input_characters + usage.output_characters)
    if price.unit == "minutes":
        with money.exact():
            return Decimal(usage.input_seconds) + Decimal(usage.output_seconds)
    return Decimal(1)


def price(price: Price, usage: Usage, *, before: Decimal) -> Fee:
    """The fee of a request whose connection has used `before` of this meter already.

    `before` is a position in the unit of `quantity`. A position exactly on a boundary is still in
    the lower tier; the unit after it is the first of the upper one.

    Raises:
        billing.errors.Refused: a percentage price and no provider cost (`cost_unknown`).
        ValueError: a position or a quantity below 0; the callers let none in.
    """
    counted = quantity(price, usage)
    if before < 0 or counted < 0:
        raise ValueError(f"a position {before} and a quantity {counted} count up from 0")
    cost = Fraction(1)
    if price.rate_type == "percentage":
        if usage.provider_cost is None:
            raise errors.Refused(
                "This meter takes a share of the provider's cost: send `provider_cost`.",
                code="cost_unknown",
                param="provider_cost",
            )
        cost = Fraction(usage.provider_cost)
    if counted == 0:
        return _priced_without_units(price, cost, before)
    if price.rate_type == "percentage":
        divisor = Fraction(counted) * 100
    else:
        divisor = Fraction({"minutes": 60, "requests": 1}.get(price.unit, 1_000_000))
    places: list[int] = []
    quantities: list[Decimal] = []
    sums: list[Fraction] = []
    exact = Fraction(0)
    for place, part in _spread(price, counted, before):
        exact += Fraction(part) * Fraction(price.tiers[place].rate) * cost / divisor
        places.append(place)
        quantities.append(part)
        sums.append(exact)
    amounts = money.allocate(sums)
    return Fee(
        amount=money.round_fee(exact),
        quantity=counted,
        slices=tuple(
            Slice(tier=place, quantity=part, amount=amount)
            for place, part, amount in zip(places, quantities, amounts, strict=True)
        ),
    )


def _spread(price: Price, counted: Decimal, before: Decimal) -> Iterator[tuple[int, Decimal]]:
    """How much of a quantity falls in which tier, lowest first; empty tiers are left out."""
    scale = 60 if price.unit == "minutes" else 1
    with money.exact():
        bounds = [tier.start * scale for tier in price.tiers]
        after = before + counted
        ends = [*bounds[1:], after]
        found = [
            (place, min(after, end) - max(before, start))
            for place, (start, end) in enumerate(zip(bounds, ends, strict=True))
        ]
    return ((place, part) for place, part in found if part > 0)


def _priced_without_units(price: Price, cost: Fraction, before: Decimal) -> Fee:
    """Nothing was counted: no fee, or the whole cost at the rate of the tier reached."""
    if price.rate_type != "percentage" or cost == 0:
        return Fee(amount=Decimal(0), quantity=Decimal(0), slices=())
    scale = 60 if price.unit == "minutes" else 1
    place = 0
    for number, tier in enumerate(price.tiers):
        if number and tier.start * scale < before:
            place = number
    amount = money.round_fee(cost * Fraction(price.tiers[place].rate) / 100)
    return Fee(
        amount=amount,
        quantity=Decimal(0),
        slices=(Slice(tier=place, quantity=Decimal(0), amount=amount),),
    )
