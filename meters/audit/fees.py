"""Every fee, worked out anew in whole ten-billionths from the stored price version.

Amounts, rates and counts are integers here, `UNIT` times what they mean: exact, and quick enough
for millions of requests. A quotient is rounded once, half up, as money.md says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from billing.audit.asking import Row, Rule, stream

UNIT = 10**10
# (tier, units, amount), each in `UNIT`s.
Slice = tuple[int, int, int]

_PRICES = """
    SELECT id, rate_type, unit, token_basis, base_cost_payer, tier_starts, tier_rates, tier_flats,
           tier_kinds, free_allowance, package_size, package_rounding
      FROM meters_meterprice
"""

# A request that lies in one tier of a fixed rate, with nothing free, flat or by kind, is looked at
# where it stands, in exact products (a minute has 60 seconds: a quotient): most are like that. All
# others are walked below.
_REQUESTS = """
    SELECT r.id, r.connection_id, r.price_id, r.input_tokens, r.output_tokens, r.cache_read_tokens,
           r.cache_write_tokens, r.input_characters, r.output_characters, r.input_seconds,
           r.output_seconds, r.provider_cost, r.quantity, r.position_before, r.peak_before, r.fee,
           r.charged, r.slices::text
      FROM meters_usagerequest r JOIN meters_meterprice p ON p.id = r.price_id
     WHERE (p.rate_type = 'fixed' AND p.base_cost_payer = 'merchant' AND p.unit <> 'minutes'
            AND p.tier_kinds = '{}' AND 0 >= ALL (p.tier_flats) AND p.free_allowance = 0
            AND p.package_size = 0 AND r.quantity > 0 AND r.charged = r.fee
            AND r.quantity = CASE p.unit
                WHEN 'tokens_1m' THEN r.output_tokens
                    + CASE p.token_basis WHEN 'output' THEN 0 ELSE r.input_tokens END
                WHEN 'characters_1m' THEN r.input_characters + r.output_characters
                WHEN 'requests' THEN 1 END
            AND EXISTS (
                SELECT FROM unnest(p.tier_starts, p.tier_rates)
                            WITH ORDINALITY t (start, rate, place)
                 WHERE t.start <= r.position_before
                   AND (p.tier_starts[t.place::int + 1] IS NULL
                        OR r.position_before + r.quantity <= p.tier_starts[t.place::int + 1])
                   AND r.fee = round(r.quantity * t.rate
                                     * CASE p.unit WHEN 'requests' THEN 1 ELSE 0.000001 END, 10)
                   AND r.slices = jsonb_build_array(jsonb_build_array(
                           t.place - 1, trim_scale(r.quantity)::text, r.fee::text)))
           ) IS NOT TRUE
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """A price version in whole `UNIT`s; `a_unit`: what a rate is for, in what is counted."""

    percent: bool
    unit: str
    output_only: bool
    cost_is_charged: bool
    a_unit: int
    starts: list[int]
    rates: list[int]
    flats: list[int]
    kinds: list[str]
    free: int
    package: int
    rounds_up: bool

    def seen(self, position: int) -> int:
        """What of a count the tiers see: past the free part, in packages begun or used up."""
        past = max(position - self.free, 0)
        if self.package == 0:
            return past
        whole, over = divmod(past, self.package)
        return (whole + (1 if over and self.rounds_up else 0)) * self.package


class Told(NamedTuple):
    """What a request said it used, as stored."""

    input_tokens: int
    output_tokens: int
    cache_read: int | None
    cache_write: int | None
    input_characters: int
    output_characters: int
    input_seconds: Decimal
    output_seconds: Decimal

    def counted(self, terms: Terms) -> int:
        """What the price version counts of it, in `UNIT`s: tokens, characters, seconds, or 1."""
        if terms.unit == "tokens_1m":
            return UNIT * (self.output_tokens + (0 if terms.output_only else self.input_tokens))
        if terms.unit == "characters_1m":
            return UNIT * (self.input_characters + self.output_characters)
        if terms.unit == "minutes":
            return whole(self.input_seconds + self.output_seconds)
        return UNIT

    def by_kind(self, kinds: list[str]) -> list[int]:
        """The tokens of each kind that has a rate; cached input without one is input."""
        cached = {"cache_read": self.cache_read or 0, "cache_write": self.cache_write or 0}
        fresh = self.input_tokens - sum(cached[kind] for kind in cached if kind in kinds)
        tokens = cached | {"input": fresh, "output": self.output_tokens}
        return [tokens[kind] * UNIT for kind in kinds]


def whole(number: Decimal) -> int:
    """A stored number, of at most ten decimals, in `UNIT`s."""
    scaled = number.scaleb(10)
    found = int(scaled)
    assert found == scaled, number
    return found


def fees_that_do_not_recompute() -> Iterator[Row]:
    """Requests whose count, fee, slices or charge differ from what their price version says."""
    prices = {row[0]: _terms(*row[1:]) for row in stream(_PRICES)}
    for key, connection, price, *told, cost, quantity, position, peak, fee, charged, text in stream(
        _REQUESTS
    ):
        terms, used = prices[price], Told(*told)
        counted = used.counted(terms)
        provider = whole(cost) if cost is not None else 0
        reached = position if peak is None or peak < position else peak
        expected = slices(terms, used, counted, whole(position), whole(reached), provider)
        total = sum(amount for _, _, amount in expected)
        due = total + (provider if terms.cost_is_charged else 0)
        said = [
            (int(tier), whole(Decimal(part)), whole(Decimal(amount)))
            for tier, part, amount in json.loads(text)
        ]
        stored = (whole(quantity), whole(fee), whole(charged))
        if stored != (counted, total, due) or said != expected:
            yield {
                "request": key,
                "connection": connection,
                "fee": fee,
                "recomputed": Decimal(total).scaleb(-10),
                "charged": charged,
                "slices": text,
                "slices_recomputed": [
                    (tier, Decimal(part).scaleb(-10), Decimal(amount).scaleb(-10))
                    for tier, part, amount in expected
                ],
            }


def slices(
    terms: Terms, told: Told, counted: int, position: int, reached: int, cost: int
) -> list[Slice]:
    """Walk the units from the position up, tier by tier, and price each stretch exactly.

    `reached`: the furthest the count ever was, in `UNIT`s like `position` and `cost`: the flat
    amounts of tiers up to there are paid.
    """
    at = terms.seen(position)
    if counted == 0:
        return _of_cost_alone(terms, at, cost)
    if terms.kinds:
        parts = told.by_kind(terms.kinds)
    else:
        end = terms.seen(position + counted)
        parts = [
            min(stop, end) - max(start, at)
            for start, stop in zip(terms.starts, [*terms.starts[1:], end], strict=True)
        ]
    furthest = terms.seen(reached)
    of = counted * 100 * UNIT if terms.percent else terms.a_unit * UNIT
    running = upto = 0
    found: list[Slice] = []
    for tier, part in enumerate(parts):
        if part <= 0:
            continue
        if terms.flats and terms.flats[tier] and terms.starts[tier] >= furthest:
            found.append((tier, 0, terms.flats[tier]))
        running += part * terms.rates[tier] * (cost if terms.percent else 1)
        amount = _half_up(running, of) - upto
        upto += amount
        found.append((tier, part, amount))
    return found


def _of_cost_alone(terms: Terms, at: int, cost: int) -> list[Slice]:
    """Nothing was counted: a share of the cost, at the tier where the count stands."""
    if not terms.percent or cost == 0:
        return []
    tier = max([0, *(place for place, start in enumerate(terms.starts) if place and start < at)])
    return [(tier, 0, _half_up(cost * terms.rates[tier], 100 * UNIT))]


def _half_up(over: int, under: int) -> int:
    """No amount here is below 0."""
    return (2 * over + under) // (2 * under)


def _terms(
    rate_type: str,
    unit: str,
    basis: str,
    payer: str,
    starts: list[Decimal],
    rates: list[Decimal],
    flats: list[Decimal],
    kinds: list[str],
    free: Decimal,
    package: Decimal,
    rounding: str,
) -> Terms:
    # Tiers, allowance and packages are told in minutes, and seconds are counted.
    counts = 60 if unit == "minutes" else 1
    return Terms(
        percent=rate_type == "percentage",
        unit=unit,
        output_only=basis == "output",
        cost_is_charged=payer == "wallet",
        a_unit={"tokens_1m": 10**6, "characters_1m": 10**6, "minutes": 60, "requests": 1}[unit],
        starts=[whole(start) * counts for start in starts],
        rates=[whole(rate) for rate in rates],
        flats=[whole(flat) for flat in flats],
        kinds=kinds,
        free=whole(free) * counts,
        package=whole(package) * counts,
        rounds_up=rounding == "up",
    )


RULES = (
    Rule(
        "fees_recompute",
        "Every fee and slice follows from the stored price version.",
        fees_that_do_not_recompute,
    ),
)
