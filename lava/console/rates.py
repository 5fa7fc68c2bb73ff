"""Rates, quantities and names of tiers in the console's columns: `$0.0120`, `96.5 min`. Pure.

For the console's pages alone. What a price says in words is `checkout.prices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.utils.text import capfirst

from billing import money
from checkout import prices as words


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


PER = {"day": "a day", "week": "a week", "month": "a month", "year": "a year"}


def symbol(currency: str) -> str:
    """What stands before an amount of a currency, e.g. $."""
    return money.display(Decimal(0), currency).rstrip("0.,")


def rate(amount: Decimal, currency: str) -> str:
    """A rate for people: at least four digits behind the point below one unit, e.g. $0.0080."""
    digits = max(money.places(amount, currency), 4 if amount < 1 else 0)
    return f"{symbol(currency)}{amount:,.{digits}f}"


def tier_name(price: Any, place: int) -> str:
    """What a tier is called beside its rate: `Tier 2`, `One rate`, or its kind of tokens."""
    kind = price.tiers[place].kind
    if kind:
        return capfirst(words.kind(kind))
    return f"Tier {place + 1}" if len(price.tiers) > 1 else "One rate"


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
