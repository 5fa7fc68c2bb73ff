"""Rates and quantities in words: `$0.0120 a min`, `20 % of cost`, `96.5 min`. Pure.

For the console's pages alone; the customers' words are the checkout's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing import money
from lava.console import typed
from lava.console.plans import symbol


@dataclass(frozen=True, slots=True)
class Word:
    """How people say a unit: many, one, and what a rate is per."""

    many: str
    one: str
    per: str
    short: str


WORDS = {
    "tokens_1m": Word("tokens", "token", "a million", "tok"),
    "characters_1m": Word("characters", "character", "a million", "chr"),
    "minutes": Word("minutes", "minute", "a min", "min"),
    "requests": Word("requests", "request", "each", "req"),
}


def rate(amount: Decimal, currency: str) -> str:
    """A rate for people: at least four digits behind the point below one unit, e.g. $0.0080."""
    digits = max(money.places(amount, currency), 4 if amount < 1 else 0)
    return f"{symbol(currency)}{amount:,.{digits}f}"


def tier_rate(price: Any, place: int, currency: str) -> str:
    """The rate of one tier with what it is per: `$0.0080 a min`, `20 %`."""
    amount = price.tiers[place].rate
    if price.rate_type == "percentage":
        return f"{typed.plain(amount)} %"
    return f"{rate(amount, currency)} {WORDS[price.unit].per}"


def describe(price: Any, currency: str) -> str:
    """A price in a few words: `from $0.0120 a min`, `cost plus 20 %`."""
    first = price.tiers[0].rate
    if price.rate_type == "percentage":
        text = f"cost plus {typed.plain(first)} %"
        if price.base_cost_payer == "merchant":
            text = f"{typed.plain(first)} % of cost"
        return text if len(price.tiers) == 1 else f"from {text}"
    text = f"{rate(first, currency)} {WORDS[price.unit].per}"
    return text if len(price.tiers) == 1 else f"from {text}"


def count(quantity: Decimal, unit: str) -> str:
    """How much was used, for people; `quantity` as stored (seconds for minutes): `96.5 min`."""
    if unit == "minutes":
        return f"{plain_count(quantity / 60)} min"
    word = WORDS[unit]
    return f"{plain_count(quantity)} {word.one if quantity == 1 else word.many}"


def plain_count(quantity: Decimal) -> str:
    """A number with commas, at most two decimals, none that are 0."""
    text = f"{quantity:,.2f}".rstrip("0").rstrip(".")
    return text or "0"
