"""What a provider charges for a model: the merchant's own price, the provider's word, the library.

`find` is the one function behind which the price library (genai-prices) stands; it is asked by the
gateway before and after a call, and by `usage.report` for percentage meters. Amounts are in the
merchant's currency; the library and providers speak dollars, so for another currency
`settings.LAVA_USD_RATES` must say the rate, else they count as unknown. Unknown is None, never 0.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.conf import settings

from billing import money
from meters.gateway.readers import Usage

OVERRIDE, PROVIDER, LIBRARY = "override", "provider", "library"
# For `prices`: any provider of the library, by the model's name alone.
ANY = "*"
_MILLION = Decimal(10) ** 6
_LARGEST = Decimal(10) ** 9
_LARGEST_KEPT = Decimal(10) ** 12
_RATES = (
    "input_rate", "output_rate", "cache_read_rate", "cache_write_rate", "image_rate",
    "second_rate", "character_rate",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A merchant's price of a model (a row of `ModelPrice`)."""

    provider: str
    model: str
    valid_from: datetime
    rates: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost its merchant, by which source, at which rates."""

    amount: Decimal
    source: str
    model: str
    rates: dict[str, str] = field(default_factory=dict)


def override(row: Mapping[str, Any]) -> Override:
    """An override out of a row's columns; rates as numbers or texts."""
    return Override(
        provider=row["provider"],
        model=row["model"],
        valid_from=row["valid_from"],
        rates={name: Decimal(str(row[name])) for name in _RATES if row[name] is not None},
    )


def find(
    provider: str,
    models: Iterable[str],
    used: Usage,
    *,
    prices: str,
    overrides: Iterable[Override] = (),
    currency: str,
    now: datetime,
    characters: int = 0,
) -> Cost | None:
    """The cost of some usage; None when nobody knows the model's price.

    Args:
        models: names of the model, the surest first: as the answer says it, as it was asked.
        provider: its slug; empty: any, for usage that was reported without one.
        prices: the provider's name in the price library; empty: not in it.
    """
    names = [name for name in dict.fromkeys(models) if name]
    own = list(overrides)
    for name in names:
        if row := chosen(provider, name, own, now):
            found = _by_override(row, name, used, characters)
            # More than a column holds is a slip of the hand, and no cost.
            return found if found.amount < _LARGEST_KEPT else None
    rate = dollars_in(currency)
    if rate is None:
        return None
    if used.cost is not None:
        amount = money.round_fee(used.cost * rate)
        return Cost(amount, PROVIDER, names[0] if names else "", {"usd": f"{rate:f}"})
    for name in names if prices else ():
        if told := _by_library(prices, name, used, characters, now):
            amount, rates = told
            return Cost(money.round_fee(amount * rate), LIBRARY, name, rates)
    return None


def chosen(provider: str, model: str, rows: Iterable[Override], now: datetime) -> Override | None:
    """The merchant's price that counts for a model: of its own provider, with the longest pattern,
    begun last. None: the merchant has set none."""
    fitting = [
        row
        for row in rows
        if (not provider or row.provider.lower() in ("*", provider.lower()))
        and row.valid_from <= now
        and fnmatch.fnmatchcase(model.lower(), row.model.lower().replace("[", "[[]"))
    ]
    return max(
        fitting,
        key=lambda row: (
            row.provider != "*",
            "*" not in row.model and "?" not in row.model,
            len(row.model),
            row.valid_from,
        ),
        default=None,
    )


def _by_override(row: Override, model: str, used: Usage, characters: int) -> Cost:
    rates = row.rates
    per_input = rates.get("input_rate", Decimal(0))
    cached = min(used.cache_read, used.input)
    written = min(used.cache_write, used.input - cached)
    with money.exact():
        amount = (
            (used.input - cached - written) * per_input
            + cached * rates.get("cache_read_rate", per_input)
            + written * rates.get("cache_write_rate", per_input)
            + used.output * rates.get("output_rate", Decimal(0))
        ) / _MILLION
        amount += used.images * rates.get("image_rate", Decimal(0))
        amount += used.input_seconds * rates.get("second_rate", Decimal(0))
        amount += characters * rates.get("character_rate", Decimal(0))
    told = {name.removesuffix("_rate"): f"{value.normalize():f}" for name, value in rates.items()}
    return Cost(money.round_fee(amount), OVERRIDE, model, told)


def warm() -> None:
    """Load the price library: about a second of work, better done before the first call."""
    find("openai", ("gpt-4o-mini",), Usage(input=1, output=1), prices="openai", currency="USD",
         now=datetime.now(UTC))  # fmt: skip


def _by_library(
    provider: str, model: str, used: Usage, characters: int, now: datetime
) -> tuple[Decimal, dict[str, str]] | None:
    """The library's price in dollars and its rates; None where it knows none or will not say."""
    import genai_prices
    from genai_prices import data_snapshot

    if not (characters or any(getattr(used, name) for name in _NOT_TEXT)):
        try:
            _, known = data_snapshot.get_snapshot().find_provider_model(
                model, None, None if provider == ANY else provider, None
            )
            flat = _flat(known.get_prices(now))
        except LookupError:
            # Also of a model that is there without any price.
            return None
        if flat is not None:
            amount = flat.amount(used)
            if amount == 0 and (used.input or used.output) and not flat.is_free:
                return None
            return (amount, flat.rates) if amount < _LARGEST else None
    for counts in (_library_usage(used, characters), _plain_usage(used)):
        try:
            found = genai_prices.calc_price(
                genai_prices.Usage(**counts), model,
                provider_id=None if provider == ANY else provider, genai_request_timestamp=now,
            )  # fmt: skip
        except LookupError:
            return None
        except (ValueError, TypeError, ArithmeticError):
            # It refuses counts that contradict each other: ask again by the two that cannot.
            continue
        amount = found.total_price
        if not amount.is_finite() or not 0 <= amount < _LARGEST:
            return None
        if amount == 0 and (used.input or used.output) and not _is_free(found.model_price):
            return None
        return amount, _library_rates(found.model_price)
    return None


@dataclass(frozen=True, slots=True)
class _Flat:
    """A price of the library that is a rate for each kind of text token, in dollars a million.

    Most calls use nothing else and most prices are no more than this, and the library works each
    call out by its registry of all units: a tenth of all that the gateway does for a call.
    """

    input: Decimal
    output: Decimal
    # None: they are paid as input.
    cache_read: Decimal | None
    cache_write: Decimal | None
    rates: dict[str, str]
    is_free: bool

    def amount(self, used: Usage) -> Decimal:
        """What some usage of text costs, in dollars."""
        plain = used.input
        with money.exact():
            found = used.output * self.output
            cached = min(used.cache_read, used.input)
            if self.cache_read is not None:
                found += cached * self.cache_read
                plain -= cached
            if self.cache_write is not None:
                written = min(used.cache_write, used.input - cached)
                found += written * self.cache_write
                plain -= written
            return (found + plain * self.input) / _MILLION


# What of usage is no text, or has a rate that not every price tells apart.
_NOT_TEXT = (
    "cache_write_1h", "input_audio", "output_audio", "web_searches", "searches", "input_seconds",
)  # fmt: skip
# Usage by which a price shows whether it is flat: each kind by itself shows in the sum.
_PROBES = (
    Usage(),
    Usage(input=1_000_003, output=17),
    Usage(input=900_000_011, output=70_000_027, cache_read=300_000_007, cache_write=11_000_081),
)
# By the price's identity, with the price, so that it lives as long; as many as the library has.
_FLATS: dict[int, tuple[Any, _Flat | None]] = {}


def _flat(price: Any) -> _Flat | None:
    """A price as flat rates; None where it is more than that, by the library's own sums."""
    known = _FLATS.get(id(price))
    if known is None or known[0] is not price:
        known = _FLATS[id(price)] = (price, _flattened(price))
    return known[1]


def _flattened(price: Any) -> _Flat | None:
    import genai_prices

    told = vars(price)
    if not all(isinstance(rate, Decimal) for rate in told.values() if rate is not None):
        return None
    found = _Flat(
        input=told.get("input_mtok") or Decimal(0),
        output=told.get("output_mtok") or Decimal(0),
        cache_read=told.get("cache_read_mtok"),
        cache_write=told.get("cache_write_mtok"),
        rates=_library_rates(price),
        is_free=_is_free(price),
    )
    try:
        for used in _PROBES:
            usage = genai_prices.Usage(**_library_usage(used, 0))
            if price.calc_price(usage)["total_price"] != found.amount(used):
                return None
    except (ValueError, TypeError, ArithmeticError):
        return None
    return found


def _library_usage(used: Usage, characters: int) -> dict[str, Any]:
    cached = min(used.cache_read, used.input)
    written = min(used.cache_write, used.input - cached)
    counts: dict[str, Any] = {
        "input_tokens": used.input,
        "output_tokens": used.output,
        "cache_read_tokens": cached,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": min(used.cache_write_1h, written),
        "input_audio_tokens": min(used.input_audio, used.input - cached - written),
        "output_audio_tokens": min(used.output_audio, used.output),
        "web_searches": used.web_searches,
        "rerank_searches": used.searches,
        "input_characters": characters,
        "input_audio_seconds": used.input_seconds,
    }
    return {name: count for name, count in counts.items() if count}


def _plain_usage(used: Usage) -> dict[str, Any]:
    return {"input_tokens": used.input, "output_tokens": used.output}


def _is_free(price: Any) -> bool:
    """Whether a price is 0 by its own word, not for want of a rate for what was used."""
    rates = _library_rates(price)
    return bool(rates) and all(Decimal(rate) == 0 for rate in rates.values())


def _library_rates(price: Any) -> dict[str, str]:
    rates: dict[str, str] = {}
    for name, value in vars(price).items():
        base = getattr(value, "base", value)
        if isinstance(base, Decimal):
            rates[name] = f"{base:f}"
            for tier in getattr(value, "tiers", ()):
                rates[f"{name}_from_{tier.start}"] = f"{tier.price:f}"
    return rates


def dollars_in(currency: str) -> Decimal | None:
    """How much of a currency a dollar is; None where nobody said."""
    if currency == "USD":
        return Decimal(1)
    rate = settings.LAVA_USD_RATES.get(currency)
    return None if rate is None else Decimal(str(rate))
