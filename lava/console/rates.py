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


KINDS = {
    "input": "input",
    "output": "output",
    "cache_read": "cached input read",
    "cache_write": "cached input written",
}


def tier_name(price: Any, place: int) -> str:
    """What a tier is called beside its rate: `Tier 2`, `One rate`, or its kind of tokens."""
    kind = price.tiers[place].kind
    if kind:
        return KINDS[kind].capitalize()
    return f"Tier {place + 1}" if len(price.tiers) > 1 else "One rate"


def describe(price: Any, currency: str) -> str:
    """A price in a few words: `from $0.0120 a min`, `cost plus 20 %`, and what else it has."""
    tiers = price.tiers
    first = tiers[0].rate
    if tiers[0].kind:
        return _kinds(price, currency)
    if price.rate_type == "percentage":
        text = f"cost plus {typed.plain(first)} %"
        if price.base_cost_payer == "merchant":
            text = f"{typed.plain(first)} % of cost"
    else:
        text = f"{rate(first, currency)} {WORDS[price.unit].per}"
    text = text if len(tiers) == 1 else f"from {text}"
    return "; ".join([text, *_extras(price, currency)])


def spell(terms: Any, currency: str) -> str:
    """A price whole, in one sentence: every rate, and all that is asked or given beside it."""
    tiers = terms.tiers
    word = WORDS[terms.unit]
    if tiers[0].kind:
        parts = [_kinds(terms, currency)]
    else:
        shown = [tier_rate(terms, place, currency) for place in range(len(tiers))]
        if terms.rate_type == "percentage":
            shown = [f"{text} of the provider’s cost" for text in shown]
        rates_of = [shown[0]]
        for text, tier in zip(shown[1:], tiers[1:], strict=True):
            rates_of.append(f"{text} after {plain_count(tier.start)} {word.many}")
        parts = [", ".join(rates_of), *_extras(terms, currency)]
    if terms.unit == "tokens_1m" and terms.token_basis == "output":
        parts.append("only output counts")
    if len(tiers) > 1 or len(parts) > 1:
        if not tiers[0].kind:
            again = terms.tier_window == "cycle"
            parts.append("counted anew each cycle" if again else "counted for life")
    if terms.base_cost_payer == "wallet":
        parts.append("plus the provider’s cost")
    return "; ".join(parts)


def _kinds(price: Any, currency: str) -> str:
    parts = [f"{KINDS[tier.kind]} {rate(tier.rate, currency)}" for tier in price.tiers]
    return f"{', '.join(parts)} {WORDS[price.unit].per}"


def _extras(price: Any, currency: str) -> list[str]:
    """What a price has beside its rates: what is free, packages, flat amounts."""
    word = WORDS[price.unit]
    found = []
    if price.free_allowance:
        many = word.one if price.free_allowance == 1 else word.many
        found.append(f"first {plain_count(price.free_allowance)} {many} free")
    if price.package_size:
        paid = "begun is paid" if price.package_rounding == "up" else "is paid when used up"
        found.append(f"a package of {plain_count(price.package_size)} {paid}")
    flats = [(place, tier.flat) for place, tier in enumerate(price.tiers, 1) if tier.flat]
    if len(price.tiers) == 1:
        found += [f"{money.display(flat, currency)} once" for _, flat in flats]
    elif flats:
        said = [f"{money.display(flat, currency)} in tier {place}" for place, flat in flats]
        found.append(f"once {', '.join(said)}")
    return found


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
