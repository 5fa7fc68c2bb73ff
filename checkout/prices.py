"""What a meter costs, in words: every sentence about a price, in the language of now.

Read by the customer's pages, and by the console and the commands, outside `locales.speak` and so in
English. Writes nothing and asks the database nothing: what it is given is a published price
(`meters.models.MeterPrice`) or a draft (`meters.prices.Terms`), which belong to a room next door
and are read through the names they share. The rules are those of `meters.pricing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.utils.text import capfirst
from django.utils.translation import gettext, gettext_noop, ngettext

from billing import locales, money
from checkout import intervals

_MILLION = Decimal(1_000_000)
# A unit of its own in words: the tokens of a price that counts the output alone.
_OUTPUT = "output_1m"

# The word that a meter's name may already carry.
_NOUNS = {
    "tokens_1m": gettext_noop("tokens"),
    _OUTPUT: gettext_noop("output tokens"),
    "characters_1m": gettext_noop("characters"),
    "minutes": gettext_noop("minutes"),
    "requests": gettext_noop("requests"),
}
# A rate beside a quantity that names its unit.
_SHORT = {
    "tokens_1m": gettext_noop("{price} a million"),
    _OUTPUT: gettext_noop("{price} a million"),
    "characters_1m": gettext_noop("{price} a million"),
    "minutes": gettext_noop("{price} a minute"),
    "requests": gettext_noop("{price} a request"),
}
# A rate that stands alone.
_WHOLE = _SHORT | {
    "tokens_1m": gettext_noop("{price} a million tokens"),
    _OUTPUT: gettext_noop("{price} a million output tokens"),
    "characters_1m": gettext_noop("{price} a million characters"),
}
# The label of a rate in a list of meters.
_LABELS = {
    "tokens_1m": gettext_noop("{meter}, per million tokens"),
    _OUTPUT: gettext_noop("{meter}, per million output tokens"),
    "characters_1m": gettext_noop("{meter}, per million characters"),
    "minutes": gettext_noop("{meter}, per minute"),
    "requests": gettext_noop("{meter}, per request"),
}
# What a rate by kind of token is for.
_KINDS = {
    "input": gettext_noop("input"),
    "output": gettext_noop("output"),
    "cache_read": gettext_noop("cached input"),
    "cache_write": gettext_noop("input written to the cache"),
}
_SHARE = gettext_noop("{percent} of the provider’s price")
_ON_TOP = gettext_noop("the provider’s price plus {percent}")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a list of prices: a rate in money, a rate in words, or a note that has none."""

    label: str
    rate: Decimal | None = None
    text: str = ""
    # Whether it goes on with the meter of the line above.
    goes_on: bool = False

    @property
    def is_note(self) -> bool:
        return self.rate is None and not self.text


def tell(price: Any, currency: str, *, interval: str = "") -> str:
    """A price whole, in one sentence: every rate, and all that is asked or given beside it.

    `interval`: the plan's, where there is one; it says when the count starts again.
    """
    if _by_kind(price):
        return _kinds(price, currency)
    first, *rest = price.tiers
    parts = [_worded(price, _bare(price, first.rate, currency), _WHOLE)]
    for tier in rest:
        shown = _bare(price, tier.rate, currency)
        parts.append(_step(price).format(price=shown, quantity=count(_unit(price), tier.start)))
    return "; ".join([", ".join(parts), *beside(price, currency, interval=interval)])


def brief(price: Any, currency: str) -> str:
    """A price in a few words, beside its unit: `$1.20 a million`, `$2.00 to $3.00 a million`."""
    rates = sorted({tier.rate for tier in price.tiers})
    if len(rates) == 1:
        return rate(price, rates[0], currency)
    low, high = (_bare(price, amount, currency) for amount in (rates[0], rates[-1]))
    both = gettext("{low} to {high}").format(low=low, high=high)
    return _worded(price, both, _SHORT)


def rate(price: Any, amount: Decimal, currency: str) -> str:
    """One rate of a price, beside its unit: `$0.009 a minute`, `20% of the provider’s price`."""
    return _worded(price, _bare(price, amount, currency), _SHORT)


def is_plain(price: Any) -> bool:
    """Whether one rate is all there is to say, so that `brief` is the whole price."""
    return len(price.tiers) == 1 and not _has_count(price) and not _adds_cost(price)


def lines(name: str, price: Any, currency: str, *, interval: str) -> list[Line]:
    """A meter's price whole, for a list of prices: a line for each rate, then one note."""
    if _by_kind(price):
        first, *rest = (gettext(_KINDS[tier.kind]) for tier in price.tiers)
        labels = [f"{_label(name, price)}, {first}", *rest]
    else:
        labels = [_label(name, price)]
        for tier in price.tiers[1:]:
            after = (
                gettext("for all once past {quantity}")
                if _by_volume(price)
                else gettext("after {quantity}")
            )
            labels.append(after.format(quantity=count(_unit(price), tier.start)))
    share = price.rate_type == "percentage"
    found = [
        Line(
            label,
            rate=None if share else tier.rate,
            text=locales.percent(tier.rate) if share else "",
            goes_on=place > 0,
        )
        for place, (label, tier) in enumerate(zip(labels, price.tiers, strict=True))
    ]
    notes = "; ".join(beside(price, currency, interval=interval))
    return [*found, Line(capfirst(notes), goes_on=True)] if notes else found


def beside(price: Any, currency: str, *, interval: str = "") -> list[str]:
    """What a price has beside its rates, a phrase each; none where the rates are all."""
    found = []
    if _adds_cost(price):
        found.append(gettext("plus the provider’s price"))
    if _has_count(price):
        found += [*_free(price), *_packages(price), *_flats(price, currency)]
        found.append(_window(price, interval))
    if _by_volume(price):
        found.append(gettext("then what you paid above the price you reach comes back"))
    return found


def count(unit: str, number: Decimal) -> str:
    """So many of a unit as a price counts them: 10 million tokens, 10 minutes, 1 request."""
    if number < _MILLION or number % (_MILLION / 10):
        return _counted(unit, number)
    number /= _MILLION
    one = 1 if number == 1 else 2
    words = {
        "tokens_1m": ngettext("{count} million tokens", "{count} million tokens", one),
        _OUTPUT: ngettext("{count} million output tokens", "{count} million output tokens", one),
        "characters_1m": ngettext("{count} million characters", "{count} million characters", one),
        "minutes": ngettext("{count} million minutes", "{count} million minutes", one),
        "requests": ngettext("{count} million requests", "{count} million requests", one),
    }
    return words[unit].format(count=locales.number(number))


def used(unit: str, quantity: Decimal) -> str:
    """How much was used, `quantity` as stored (seconds for minutes), with every digit: 12,480
    tokens, 4 min 12 s, 1,624 min."""
    if unit != "minutes":
        return _counted(unit, quantity)
    minutes, rest = divmod(quantity, 60)
    # The signs of minute and second are the same everywhere.
    if minutes >= 100:
        return f"{locales.number(minutes)} min"
    short = f"{locales.number(rest)} s" if rest else ""
    return f"{minutes:f} min {short}".strip() if minutes else short or "0 s"


def _counted(unit: str, number: Decimal) -> str:
    one = 1 if number == 1 else 2
    words = {
        "tokens_1m": ngettext("{count} token", "{count} tokens", one),
        _OUTPUT: ngettext("{count} output token", "{count} output tokens", one),
        "characters_1m": ngettext("{count} character", "{count} characters", one),
        "minutes": ngettext("{count} minute", "{count} minutes", one),
        "requests": ngettext("{count} request", "{count} requests", one),
    }
    return words[unit].format(count=locales.number(number))


def kind(name: str) -> str:
    """A kind of tokens: cached input."""
    return gettext(_KINDS[name])


def _unit(price: Any) -> str:
    counts_output = price.unit == "tokens_1m" and price.token_basis == "output"
    return _OUTPUT if counts_output else str(price.unit)


def _by_kind(price: Any) -> bool:
    return bool(price.tiers[0].kind)


def _has_count(price: Any) -> bool:
    """Whether it matters how much was used before."""
    if _by_kind(price):
        return False
    flats = any(tier.flat for tier in price.tiers)
    return len(price.tiers) > 1 or flats or bool(price.free_allowance or price.package_size)


def _by_volume(price: Any) -> bool:
    """Whether one rate counts for all use of a billing period, that of the step it reaches."""
    return bool(price.tier_mode == "volume")


def _step(price: Any) -> str:
    if _by_volume(price):
        return gettext("{price} for all once past {quantity}")
    return gettext("{price} after {quantity}")


def _adds_cost(price: Any) -> bool:
    """Whether the provider's price comes on top of a rate; of a share of it the words say so."""
    return bool(price.base_cost_payer == "wallet" and price.rate_type != "percentage")


def _bare(price: Any, amount: Decimal, currency: str) -> str:
    if price.rate_type == "percentage":
        return locales.percent(amount)
    return money.display(amount, currency)


def _worded(price: Any, shown: str, words: dict[str, str]) -> str:
    if price.rate_type == "percentage":
        said = _ON_TOP if price.base_cost_payer == "wallet" else _SHARE
        return gettext(said).format(percent=shown)
    return gettext(words[_unit(price)]).format(price=shown)


def _kinds(price: Any, currency: str) -> str:
    """Every rate by kind, and what else there is: input $3.00, output $15.00 a million tokens."""
    said = ", ".join(
        f"{kind(tier.kind)} {money.display(tier.rate, currency)}" for tier in price.tiers
    )
    return "; ".join([_worded(price, said, _WHOLE), *beside(price, currency)])


def _label(name: str, price: Any) -> str:
    """What a rate is for; a meter's name that says its unit is not told it again."""
    if price.rate_type == "percentage":
        if price.base_cost_payer == "wallet":
            return gettext("{meter}, on top of the provider’s price").format(meter=name)
        return gettext("{meter}, of the provider’s price").format(meter=name)
    unit = _unit(price)
    noun = _NOUNS[unit]
    if noun in name.lower() or gettext(noun).lower() in name.lower():
        if unit in ("minutes", "requests"):
            return name
        return gettext("{meter}, per million").format(meter=name)
    return gettext(_LABELS[unit]).format(meter=name)


def _free(price: Any) -> list[str]:
    if not price.free_allowance:
        return []
    quantity = count(_unit(price), price.free_allowance)
    one = 1 if price.free_allowance == 1 else 2
    if len(price.tiers) > 1 or price.package_size:
        text = ngettext(
            "the first {quantity} is free and not counted",
            "the first {quantity} are free and not counted",
            one,
        )
    else:
        text = ngettext("the first {quantity} is free", "the first {quantity} are free", one)
    return [text.format(quantity=quantity)]


def _packages(price: Any) -> list[str]:
    if not price.package_size:
        return []
    if price.package_rounding == "up":
        text = gettext("sold in packages of {quantity}; a package you begin is paid whole")
    else:
        text = gettext("sold in packages of {quantity}; each is paid once it is used up")
    return [text.format(quantity=count(_unit(price), price.package_size))]


def _flats(price: Any, currency: str) -> list[str]:
    """Amounts asked once with the first unit of a step; of the first step that is the first unit
    that is paid for at all."""
    found = []
    for tier in price.tiers:
        if not tier.flat:
            continue
        if tier.start:
            text = gettext("plus {amount} once you pass {quantity}")
        elif price.free_allowance or (price.package_size and price.package_rounding == "down"):
            text = gettext("plus {amount} with the first use that is paid")
        else:
            text = gettext("plus {amount} with the first use")
        found.append(
            text.format(
                amount=money.display(tier.flat, currency), quantity=count(_unit(price), tier.start)
            )
        )
    return found


def _window(price: Any, interval: str) -> str:
    if price.tier_window == "lifetime":
        return gettext("the count never starts again")
    if not interval:
        return gettext("the count starts again each billing period")
    return gettext("the count starts again {every}").format(every=intervals.every(interval))
