"""Money: the only place that rounds, and the only words for amounts. Pure; anybody may call.

Credits and fees are `Decimal`s of 10 decimals; what a card pays is whole minor units of its
currency. Nothing here, or anywhere, passes through float.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import (
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from babel import Locale
from babel import numbers as babel_numbers
from moneyed import Money, get_currency
from moneyed.classes import CurrencyDoesNotExist

from billing import errors

# The language amounts are written in for people; set by `billing.locales.speak` alone.
language: ContextVar[str] = ContextVar("language", default="en")

FEE_PLACES = 10
MINUS = "\u2212"

# Wide enough for every sum and product of the product; what would still lose a digit raises.
_EXACT = Context(prec=60, traps=[InvalidOperation, DivisionByZero, Overflow, Inexact])
# The one context that may lose digits, used by `round_fee` alone.
_ROUNDING = Context(prec=60)
_FEE_QUANTUM = Decimal(1).scaleb(-FEE_PLACES)
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,10})?")

# Minor units that are not 2, as the card network counts them (https://docs.stripe.com/currencies).
_THREE_DECIMALS = ("BHD", "JOD", "KWD", "OMR", "TND")
_MINOR_UNITS = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND"), 0
    ),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(_THREE_DECIMALS, 3),
}

# Counted in hundredths although nobody pays them: 5 UGX is sent as 500 (same page, Special cases).
_WHOLE_ONLY = ("ISK", "UGX")

# A card pays multiples of so many minor units: three-decimal amounts end in 0 (same page).
_STEP = {**dict.fromkeys(_WHOLE_ONLY, 100), **dict.fromkeys(_THREE_DECIMALS, 10)}

# The least a card is charged (https://docs.stripe.com/currencies, Minimum charge amount).
_MINIMUM = {
    "USD": "0.50", "AED": "2.00", "ARS": "0.50", "AUD": "0.50", "BGN": "1.00", "BRL": "0.50",
    "CAD": "0.50", "CHF": "0.50", "COP": "0.50", "CZK": "15.00", "DKK": "2.50", "EUR": "0.50",
    "GBP": "0.30", "HKD": "4.00", "HUF": "175.00", "IDR": "0.50", "ILS": "0.50", "INR": "0.50",
    "JPY": "50", "KRW": "50", "MXN": "10", "MYR": "2.00", "NOK": "3.00", "NZD": "0.50",
    "PHP": "0.50", "PLN": "2.00", "RON": "2.00", "RUB": "0.50", "SEK": "3.00", "SGD": "0.50",
    "THB": "10", "ZAR": "0.50",
}  # fmt: skip

# Stripe lists none for these and asks for the minimum of the currency it converts to: our own
# figures, a little above 0.50 USD. Too high only carries a small debt a little longer.
_OUR_MINIMUM = {"BHD": "0.200", "JOD": "0.400", "KWD": "0.200", "OMR": "0.200", "TND": "2.000"}
_OTHER_MINIMUM = "1"

_SYMBOLS = {"USD": "$", "EUR": "\u20ac", "GBP": "\u00a3", "JPY": "\u00a5", "INR": "\u20b9"}


def round_fee(exact: Decimal | Fraction) -> Decimal:
    """Round an exact amount, once, to 10 decimals, halves away from 0 (money.md, Numbers).

    PostgreSQL's `round(numeric, 10)` does the same. Zero comes without a sign.

    Raises:
        ValueError: not a number, or infinite.
    """
    if not isinstance(exact, Decimal):
        scaled = abs(exact) * 10**FEE_PLACES
        whole = (scaled.numerator * 2 + scaled.denominator) // (scaled.denominator * 2)
        return Decimal(whole if exact > 0 else -whole).scaleb(-FEE_PLACES, context=_EXACT)
    if not exact.is_finite():
        raise ValueError(f"{exact} is no amount")
    rounded = exact.quantize(_FEE_QUANTUM, rounding=ROUND_HALF_UP, context=_ROUNDING)
    return _EXACT.plus(rounded)


def exact() -> AbstractContextManager[Context]:
    """Decimal arithmetic within is exact to 60 digits; a lost digit raises `decimal.Inexact`."""
    return localcontext(_EXACT)


def allocate(cumulative: Sequence[Decimal | Fraction]) -> list[Decimal]:
    """Round parts so that they add up to the rounded whole.

    `cumulative` are the exact running sums of the parts; each part is the difference of two
    rounded running sums, so the parts telescope.
    """
    parts: list[Decimal] = []
    before = Decimal(0)
    for running in cumulative:
        upto = round_fee(running)
        parts.append(_EXACT.subtract(upto, before))
        before = upto
    return parts


def minor_units(currency: str) -> int:
    """How many decimals a card amount is sent with: JPY 0, USD 2, KWD 3 (UGX and ISK: 2)."""
    return _MINOR_UNITS.get(currency, 2)


def known_currency(text: str, *, param: str = "currency") -> str:
    """A currency's ISO code.

    Raises:
        billing.errors.Invalid: no such currency.
    """
    try:
        return str(get_currency(text).code)
    except CurrencyDoesNotExist as error:
        raise errors.Invalid("Use an ISO 4217 currency such as USD.", param=param) from error


def to_minor(amount: Money) -> int:
    """A card amount in its minor unit, e.g. 2500 for 25.00 USD.

    Raises:
        ValueError: the amount is not whole minor units; a card cannot pay it.
    """
    scaled = amount.amount.scaleb(minor_units(str(amount.currency)), context=_EXACT)
    if not scaled.is_finite() or scaled != scaled.to_integral_value():
        raise ValueError(f"{amount} is not whole minor units")
    return int(scaled)


def from_minor(amount: int, currency: str) -> Money:
    """The money of an amount in minor units."""
    return Money(Decimal(amount).scaleb(-minor_units(currency), context=_EXACT), currency)


def floor_minor(amount: Decimal, currency: str) -> Decimal:
    """What of an amount a card can pay: whole minor units, towards 0; the rest is carried.

    5.124 KWD gives 5.120, and 5.50 UGX gives 5.00: the network refuses anything finer.
    """
    places, step = minor_units(currency), _STEP.get(currency, 1)
    minor = int(amount.scaleb(places, context=_EXACT))
    whole = abs(minor) // step * step
    return Decimal(whole if minor > 0 else -whole).scaleb(-places, context=_EXACT)


def is_whole_minor(amount: Decimal, currency: str) -> bool:
    """Whether a card can pay exactly this amount."""
    return floor_minor(amount, currency) == amount


def minimum_charge(currency: str) -> Decimal:
    """The least the card network charges in a currency."""
    return Decimal(_MINIMUM.get(currency) or _OUR_MINIMUM.get(currency, _OTHER_MINIMUM))


def parse_amount(value: Any, *, param: str) -> Decimal:
    """An amount as clients may write it: up to 12 digits, up to 10 decimals, nothing else.

    Raises:
        billing.errors.Invalid: a float, a sign, an exponent, NaN, other digits, too many digits.
    """
    if type(value) is int and 0 <= value < 10**12:
        value = str(value)
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise errors.Invalid(
            f'`{param}` must be an amount as a string such as "12.50": at most 12 digits and 10 '
            "decimals, not negative.",
            param=param,
        )
    return Decimal(value)


# Most amounts of an answer, and of the next ones, are the same few: zeros, rates, fees.
@lru_cache(maxsize=4096)
def wire(amount: Decimal) -> str:
    """An amount for clients: a string with 10 decimals."""
    return f"{round_fee(amount):f}"


def places(amount: Decimal, currency: str) -> int:
    """How many decimals an amount needs: those of its currency, more only if it has them."""
    exponent = amount.normalize(_EXACT).as_tuple().exponent
    assert isinstance(exponent, int)
    return max(_fewest_places(currency), -exponent)


def display(amount: Decimal, currency: str, *, sign: bool = False) -> str:
    """An amount for people: $25.00, $0.0045, \u2212$1.20; with `sign` also +$10.00."""
    return "".join(pieces(amount, currency, sign=sign))


def show(price: Money) -> str:
    """An amount of money for people, as `display`."""
    return display(price.amount, str(price.currency))


def parts(amount: Decimal, currency: str, *, sign: bool = False) -> tuple[str, str]:
    """`display` in two where the currency stands first: up to the minor unit, and the digits past
    it (shown muted)."""
    main, past, tail = pieces(amount, currency, sign=sign)
    return main, past + tail


def pieces(amount: Decimal, currency: str, *, sign: bool = False) -> tuple[str, str, str]:
    """`display` in three: up to the minor unit, the digits past it, the currency where the language
    writes it last (25,00 \u20ac)."""
    digits = places(amount, currency)
    text = f"{amount.copy_abs():,.{digits}f}"
    lead = MINUS if amount < 0 else "+" if sign and amount > 0 else ""
    fewest = _fewest_places(currency)
    cut = len(text) - (digits - fewest)
    if not fewest and digits:
        cut -= 1  # the point goes with what it introduces
    form = _form(language.get(), currency)
    text = text.translate(form.marks)
    return f"{lead}{form.before}{text[:cut]}", text[cut:], form.after


@dataclass(frozen=True, slots=True)
class _Form:
    """How a language writes amounts of a currency."""

    before: str
    after: str
    # From our own point and comma to the language's.
    marks: dict[int, str]


@cache
def _form(spoken: str, currency: str) -> _Form:
    if spoken == "en":
        return _Form(_SYMBOLS.get(currency, f"{currency}\u00a0"), "", {})
    locale = Locale.parse(spoken)
    symbol = babel_numbers.get_currency_symbol(currency, locale)
    marks = {
        ord("."): babel_numbers.get_decimal_symbol(locale),
        ord(","): babel_numbers.get_group_symbol(locale),
    }
    before, _, after = locale.currency_formats["standard"].pattern.partition("#,##0.00")
    if "\u00a4" in before:
        gap = "\u00a0" if symbol[-1:].isalpha() else ""
        return _Form(before.replace("\u00a4", symbol) + gap, "", marks)
    return _Form("", after.replace("\u00a4", symbol), marks)


def _fewest_places(currency: str) -> int:
    return 0 if currency in _WHOLE_ONLY else minor_units(currency)
