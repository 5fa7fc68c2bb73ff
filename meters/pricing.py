"""Prices: usage in, fee and slices out. Pure: no Django, no clock, no database.

Anybody may call it: the console's calculator, estimates, the audit's recomputation. The charge
itself prices in `meters/sql/charge.sql`, under the connection's lock; a test holds both equal.

Several tiers are graduated: each unit pays the rate of the tier it falls in, and a quantity exactly
on a boundary is still in the lower tier (money.md, Meters). Tiers by volume ask one rate for all
units of a cycle, that of the tier they reach: known when the cycle is over. Until then each unit
pays the first tier's rate, the highest, since a rate that falls for units already paid would make a
fee negative; `volume_fee` is what they cost in the end. Before the tiers see it, a count is
turned into what is billable: less the free allowance, then in whole packages. What is billable of a
request is the difference of the two counts it lies between, so that requests cost together what one
would. A tier's flat amount is asked once, with the first unit in it. A price by kinds of tokens has
a rate for each kind in place of tiers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from billing import errors, money

UNITS = ("tokens_1m", "characters_1m", "minutes", "requests")
RATE_TYPES = ("fixed", "percentage")
TOKEN_BASES = ("input+output", "output")
PACKAGE_ROUNDINGS = ("up", "down")
TIER_MODES = ("graduated", "volume")
# Of which input and output are always there; cached input without a rate pays the input's.
KINDS = ("input", "output", "cache_read", "cache_write")
MOST_TIERS = 20
LARGEST = Decimal(10) ** 12


@dataclass(frozen=True, slots=True)
class Tier:
    """From `start` (in the unit counted: tokens, characters, minutes, requests) the rate is
    `rate`: money per million, per minute, per request, or percent of the provider's cost. `flat`:
    money asked once, with the first unit in the tier. `kind`: the kind of tokens it is for."""

    start: Decimal
    rate: Decimal
    flat: Decimal = Decimal(0)
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Price:
    """One version of a meter's price.

    `free_allowance` and `package_size` in the unit counted; 0: none. `package_rounding`: a package
    begun is paid (`up`), or only one that is used up (`down`).
    """

    rate_type: str
    unit: str
    token_basis: str
    tiers: tuple[Tier, ...]
    free_allowance: Decimal = Decimal(0)
    package_size: Decimal = Decimal(0)
    package_rounding: str = "up"
    tier_mode: str = "graduated"

    @property
    def live(self) -> Price:
        """What a request pays when it comes: of tiers by volume, the first alone."""
        if self.tier_mode != "volume":
            return self
        return replace(self, tiers=self.tiers[:1], tier_mode="graduated")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request used; `provider_cost` in money, None when nobody said. Cached tokens are
    part of the input tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_characters: int = 0
    output_characters: int = 0
    input_seconds: Decimal = Decimal(0)
    output_seconds: Decimal = Decimal(0)
    provider_cost: Decimal | None = None
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a request in one tier; `tier` is its index, `quantity` as in `quantity()`. A
    tier's flat amount is a slice of its own, of no quantity."""

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
        (price.package_rounding, PACKAGE_ROUNDINGS, "package_rounding"),
        (price.tier_mode, TIER_MODES, "tier_mode"),
    ):
        if value not in options:
            raise errors.Invalid(f"Use one of {', '.join(options)}.", param=name)
    if not price.tiers:
        raise errors.Invalid("Give at least one tier.", param="tiers")
    if len(price.tiers) > MOST_TIERS:
        raise errors.Invalid(f"Give at most {MOST_TIERS} tiers.", param="tiers")
    for place, tier in enumerate(price.tiers):
        _check_amount(tier.rate, "a rate", f"tiers[{place}].rate")
        _check_amount(tier.flat, "a flat amount", f"tiers[{place}].flat")
        _check_count(tier.start, f"tiers[{place}].start")
    _check_count(price.free_allowance, "free_allowance")
    _check_count(price.package_size, "package_size")
    if price.package_size and price.rate_type == "percentage":
        raise errors.Invalid("A share of a cost has no packages.", param="package_size")
    if any(tier.kind for tier in price.tiers):
        _check_kinds(price)
        return
    before: Decimal | None = None
    for place, tier in enumerate(price.tiers):
        start = f"tiers[{place}].start"
        if before is None and tier.start != 0:
            raise errors.Invalid("The first tier starts at 0.", param=start)
        if before is not None and tier.start <= before:
            raise errors.Invalid("Each tier starts above the one before it.", param=start)
        before = tier.start
    if price.tier_mode == "volume":
        _check_volume(price)


def _check_amount(amount: Decimal, what: str, param: str) -> None:
    if not (amount.is_finite() and 0 <= amount < LARGEST):
        raise errors.Invalid(f"Give {what} of 0 or more, below 10^12.", param=param)
    if money.round_fee(amount) != amount:
        raise errors.Invalid(f"Give {what} with at most 10 decimals.", param=param)


def _check_count(count: Decimal, param: str) -> None:
    if not (count.is_finite() and 0 <= count < LARGEST):
        raise errors.Invalid("Give 0 or more, below 10^12.", param=param)
    if count != count.to_integral_value():
        raise errors.Invalid("Give a whole number.", param=param)


def _check_volume(price: Price) -> None:
    """One fixed rate for all units of a cycle, falling from tier to tier: what a request paid when
    it came is never less than what it costs in the end."""
    if price.rate_type != "fixed":
        raise errors.Invalid("Tiers by volume are for a fixed rate.", param="tier_mode")
    if len(price.tiers) < 2:
        raise errors.Invalid("Give a second tier, or graduated tiers.", param="tiers")
    for place, tier in enumerate(price.tiers):
        if tier.flat:
            raise errors.Invalid(
                "Tiers by volume have no flat amount.", param=f"tiers[{place}].flat"
            )
        if place and tier.rate > price.tiers[place - 1].rate:
            raise errors.Invalid(
                "By volume, a rate is no higher than that of the tier before it.",
                param=f"tiers[{place}].rate",
            )


def _check_kinds(price: Price) -> None:
    """Rates by kind stand in place of tiers: each kind once, input and output always."""
    if price.rate_type != "fixed" or price.unit != "tokens_1m":
        raise errors.Invalid("Rates by kind are for tokens at a fixed rate.", param="tiers[0].kind")
    if price.token_basis != "input+output":
        raise errors.Invalid("Rates by kind count input and output.", param="token_basis")
    if price.tier_mode != "graduated":
        raise errors.Invalid("Rates by kind have no tiers.", param="tier_mode")
    if price.free_allowance:
        raise errors.Invalid("Rates by kind have no allowance.", param="free_allowance")
    if price.package_size:
        raise errors.Invalid("Rates by kind have no packages.", param="package_size")
    seen: set[str] = set()
    for place, tier in enumerate(price.tiers):
        if tier.kind not in KINDS or tier.kind in seen:
            raise errors.Invalid(
                f"Give each kind once: {', '.join(KINDS)}.", param=f"tiers[{place}].kind"
            )
        if tier.start:
            raise errors.Invalid("Rates by kind start at 0.", param=f"tiers[{place}].start")
        if tier.flat:
            raise errors.Invalid("Rates by kind have no flat amount.", param=f"tiers[{place}].flat")
        seen.add(tier.kind)
    if not {"input", "output"} <= seen:
        raise errors.Invalid("Give a rate for input and one for output.", param="tiers")


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


def price(price: Price, usage: Usage, *, before: Decimal, flats_from: Decimal | None = None) -> Fee:
    """The fee of a request whose connection has used `before` of this meter already.

    `before` is a position in the unit of `quantity`. A position exactly on a boundary is still in
    the lower tier; the unit after it is the first of the upper one. Flat amounts of tiers that were
    entered before are not asked again: `flats_from` is the furthest the position ever was, where a
    void has moved it back (default: `before`).

    Raises:
        billing.errors.Refused: a percentage price and no provider cost (`cost_unknown`).
        ValueError: a position or a quantity below 0; the callers let none in.
    """
    price = price.live
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
    since = billable(price, before)
    if counted == 0:
        return _priced_without_units(price, cost, since)
    if price.rate_type == "percentage":
        divisor = Fraction(counted) * 100
    else:
        divisor = _a_unit(price)
    with money.exact():
        until = billable(price, before + counted)
    entered = max(since, billable(price, flats_from)) if flats_from is not None else since
    parts = _by_kind(price, usage) if price.tiers[0].kind else _spread(price, since, until)
    places: list[int] = []
    quantities: list[Decimal] = []
    sums: list[Fraction] = []
    exact = Fraction(0)
    for place, part in parts:
        exact += Fraction(part) * Fraction(price.tiers[place].rate) * cost / divisor
        places.append(place)
        quantities.append(part)
        sums.append(exact)
    slices: list[Slice] = []
    for place, part, amount in zip(places, quantities, money.allocate(sums), strict=True):
        tier = price.tiers[place]
        if tier.flat and tier.start * scale(price) >= entered:
            slices.append(Slice(tier=place, quantity=Decimal(0), amount=tier.flat))
        slices.append(Slice(tier=place, quantity=part, amount=amount))
    with money.exact():
        total = sum((part.amount for part in slices), Decimal(0))
    return Fee(amount=money.round_fee(total), quantity=counted, slices=tuple(slices))


def volume_tier(price: Price, total: Decimal) -> int:
    """The index of the tier that `total`, counted over a whole cycle, reaches."""
    reached = billable(price, total)
    return max(
        (place for place, tier in enumerate(price.tiers) if tier.start * scale(price) < reached),
        default=0,
    )


def volume_fee(price: Price, *, billed: Decimal, total: Decimal) -> Decimal:
    """What `billed` units cost in the end, in a cycle that counted `total`: at the rate of the tier
    that the total reaches. They are all of it, but for what another version of the price billed.
    """
    rate = price.tiers[volume_tier(price, total)].rate
    return money.round_fee(Fraction(billed) * Fraction(rate) / _a_unit(price))


def is_exact(price: Price) -> bool:
    """Whether a fixed rate never rounds: whole things are counted, each at 10 decimals or fewer."""
    each = [Fraction(tier.rate) / _a_unit(price) for tier in price.tiers]
    return price.unit != "minutes" and all(
        (part * 10**money.FEE_PLACES).denominator == 1 for part in each
    )


def billable(price: Price, position: Decimal) -> Decimal:
    """What of a count up to `position` the tiers see: past the allowance, in whole packages."""
    with money.exact():
        past = max(position - price.free_allowance * scale(price), Decimal(0))
        size = price.package_size * scale(price)
        if not size:
            return past
        packages = Fraction(past) / Fraction(size)
        whole = packages.__ceil__() if price.package_rounding == "up" else packages.__floor__()
        return whole * size


def _a_unit(price: Price) -> Fraction:
    """How much of what is counted a rate is for."""
    return Fraction({"minutes": 60, "requests": 1}.get(price.unit, 1_000_000))


def scale(price: Price) -> int:
    """How many are counted for one of the unit: minutes are written, and seconds counted."""
    return 60 if price.unit == "minutes" else 1


def _spread(price: Price, since: Decimal, until: Decimal) -> list[tuple[int, Decimal]]:
    """How much of what is billable falls in which tier, lowest first; empty ones left out."""
    with money.exact():
        bounds = [tier.start * scale(price) for tier in price.tiers]
        found = [
            (place, min(until, end) - max(since, start))
            for place, (start, end) in enumerate(zip(bounds, [*bounds[1:], until], strict=True))
        ]
    return [(place, part) for place, part in found if part > 0]


def _by_kind(price: Price, usage: Usage) -> list[tuple[int, Decimal]]:
    """How many tokens of which kind, in the order of the rates; empty ones left out."""
    counts = kinds(usage)
    rated = {tier.kind for tier in price.tiers}
    for cached in ("cache_read", "cache_write"):
        if cached not in rated:
            counts["input"] += counts.pop(cached)
    return [
        (place, Decimal(counts[tier.kind]))
        for place, tier in enumerate(price.tiers)
        if counts[tier.kind]
    ]


def kinds(usage: Usage) -> dict[str, int]:
    """The tokens of a request by kind; the input is what of it was not cached.

    Raises:
        billing.errors.Invalid: more cached than there was input.
    """
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    if cached > usage.input_tokens:
        raise errors.Invalid(
            "Cached tokens are part of `input_tokens`, and cannot be more.", param="input_tokens"
        )
    return {
        "input": usage.input_tokens - cached,
        "output": usage.output_tokens,
        "cache_read": usage.cache_read_tokens,
        "cache_write": usage.cache_write_tokens,
    }


def _priced_without_units(price: Price, cost: Fraction, since: Decimal) -> Fee:
    """Nothing was counted: no fee, or the whole cost at the rate of the tier reached."""
    if price.rate_type != "percentage" or cost == 0:
        return Fee(amount=Decimal(0), quantity=Decimal(0), slices=())
    place = 0
    for number, tier in enumerate(price.tiers):
        if number and tier.start * scale(price) < since:
            place = number
    amount = money.round_fee(cost * Fraction(price.tiers[place].rate) / 100)
    return Fee(
        amount=amount,
        quantity=Decimal(0),
        slices=(Slice(tier=place, quantity=Decimal(0), amount=amount),),
    )
