"""Money: the only place that rounds, and the only words for amounts. Pure; anybody may call.

Credits and fees are `Decimal`s of 10 decimals; what a card pays is whole minor units of its
currency. Nothing here, or anywhere, passes through float.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from typing import Any

from moneyed import Money, get_currency
from moneyed.classes import CurrencyDoesNotExist

from billing import errors

FEE_PLACES = 10
MINUS = "\u2212"

# Wide enough for every sum and product of the product; nothing is ever lost to it.
_CONTEXT = Context(prec=60)
_FEE_QUANTUM = Decimal(1).scaleb(-FEE_PLACES)
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,10})?")

# ISO 4217 minor units that are not 2 (https://docs.stripe.com/currencies).
_MINOR_UNITS = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "UGX", "VND"), 0
    ),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3),
}

# The least a card is charged (https://docs.stripe.com/currencies, minimum charge amounts).
_MINIMUM = {
    "USD": "0.50", "AED": "2.00", "AUD": "0.50", "BGN": "1.00", "BRL": "0.50", "CAD": "0.50",
    "CHF": "0.50", "CZK": "15.00", "DKK": "2.50", "EUR": "0.50", "GBP": "0.30", "HKD": "4.00",
    "HUF": "175.00", "INR": "0.50", "JPY": "50", "MXN": "10", "MYR": "2", "NOK": "3.00",
    "NZD": "0.50", "PLN": "2.00", "RON": "2.00", "SEK": "3.00", "SGD": "0.50", "THB": "10",
    "KWD": "0.200",
}  # fmt: skip
_OTHER_MINIMUM = "1"

_SYMBOLS = {"USD": "$", "EUR": "\u20ac", "GBP": "\u00a3", "JPY": "\u00a5", "INR": "\u20b9"}


def round_fee(exact: Decimal | Fraction) -> Decimal:
    """Round an exact amount, once, to 10 decimals, halves up (money.md, Numbers)."""
    if isinstance(exact, Fraction):
        scaled = exact * 10**FEE_PLACES
        whole = (scaled.numerator * 2 + scaled.denominator) // (scaled.denominator * 2)
        return Decimal(whole).scaleb(-FEE_PLACES, context=_CONTEXT)
    return exact.quantize(_FEE_QUANTUM, rounding=ROUND_HALF_UP, context=_CONTEXT)


def allocate(cumulative: Sequence[Fraction]) -> list[Decimal]:
    """Round parts so that they add up to the rounded whole.

    `cumulative` are the exact running sums of the parts; each part is the difference of two
    rounded running sums, so the parts telescope.
    """
    parts: list[Decimal] = []
    before = Decimal(0)
    for exact in cumulative:
        upto = round_fee(exact)
        parts.append(upto - before)
        before = upto
    return parts


def minor_units(currency: str) -> int:
    """How many decimals a card amount has: JPY 0, USD 2, KWD 3."""
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
    scaled = amount.amount.scaleb(minor_units(str(amount.currency)), context=_CONTEXT)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{amount} is not whole minor units")
    return int(scaled)


def from_minor(amount: int, currency: str) -> Money:
    """The money of an amount in minor units."""
    return Money(Decimal(amount).scaleb(-minor_units(currency), context=_CONTEXT), currency)


def floor_minor(amount: Decimal, currency: str) -> Decimal:
    """What of an amount a card can pay: whole minor units, rounded down; the rest is carried."""
    quantum = Decimal(1).scaleb(-minor_units(currency))
    return amount.quantize(quantum, rounding=ROUND_DOWN, context=_CONTEXT)


def is_whole_minor(amount: Decimal, currency: str) -> bool:
    """Whether a card can pay exactly this amount."""
    return floor_minor(amount, currency) == amount


def minimum_charge(currency: str) -> Decimal:
    """The least the card network charges in a currency."""
    return Decimal(_MINIMUM.get(currency, _OTHER_MINIMUM))


def parse_amount(value: Any, *, param: str) -> Decimal:
    """An amount as clients may write it: up to 12 digits, up to 10 decimals, nothing else.

    Raises:
        billing.errors.Invalid: a float, a sign, an exponent, NaN, other digits, too many digits.
    """
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise errors.Invalid(
            f'`{param}` must be an amount as a string such as "12.50": at most 12 digits and 10 '
            "decimals, not negative.",
            param=param,
        )
    return Decimal(value)


def wire(amount: Decimal) -> str:
    """An amount for clients: a string with 10 decimals."""
    return f"{round_fee(amount):f}"


def places(amount: Decimal, currency: str) -> int:
    """How many decimals an amount needs: those of its currency, more only if it has them."""
    exponent = amount.normalize(_CONTEXT).as_tuple().exponent
    assert isinstance(exponent, int)
    return max(minor_units(currency), -exponent)


def display(amount: Decimal, currency: str, *, sign: bool = False) -> str:
    """An amount for people: $25.00, $0.0045, \u2212$1.20; with `sign` also +$10.00."""
    whole, beyond = parts(amount, currency, sign=sign)
    return whole + beyond


def parts(amount: Decimal, currency: str, *, sign: bool = False) -> tuple[str, str]:
    """`display` in two: up to the minor unit, and the digits past it (shown muted)."""
    digits = places(amount, currency)
    text = f"{abs(amount):,.{digits}f}"
    lead = MINUS if amount < 0 else "+" if sign and amount > 0 else ""
    symbol = _SYMBOLS.get(currency, f"{currency}\u00a0")
    extra = digits - minor_units(currency)
    cut = len(text) - extra
    return f"{lead}{symbol}{text[:cut]}", text[cut:]
