"""What a card does: test numbers, their tokens, checks of a card's details, minimums of a charge.
Pure.

The numbers, tokens and outcomes are those of docs.stripe.com/testing; messages and codes those of
docs.stripe.com/declines/codes. Called by the payment methods and by `charging`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lava.demo.card_network.errors import ApiError

OffSession = Literal["passes", "passes_when_set_up", "asks"]


@dataclass(frozen=True)
class Decline:
    """Why a charge is refused: Stripe's `code` and `decline_code`, and the words for the
    cardholder."""

    code: str
    message: str
    decline_code: str | None = None
    param: str | None = None
    advice: str | None = None


@dataclass(frozen=True)
class Card:
    """The behaviour of one test number.

    `declines` is the outcome of a charge; with `declines_to_save` attaching and setting up fail
    too. `asks_on_session`: the cardholder must approve (3-D Secure) while present. `off_session`:
    what happens when nobody is there to approve.
    """

    number: str
    declines: Decline | None = None
    declines_to_save: bool = True
    asks_on_session: bool = False
    off_session: OffSession = "passes"
    disputed: bool = False
    funding: str = "credit"

    def asks(self, *, off_session: bool, set_up: bool) -> bool:
        """Whether a payment needs the cardholder's approval."""
        if not off_session:
            return self.asks_on_session
        if self.off_session == "passes_when_set_up":
            return not set_up
        return self.off_session == "asks"


def _declined(decline_code: str, advice: str = "do_not_try_again") -> Decline:
    return Decline("card_declined", "Your card was declined.", decline_code, advice=advice)


GENERIC = _declined("generic_decline", "try_again_later")
INSUFFICIENT = Decline(
    "card_declined",
    "Your card has insufficient funds.",
    "insufficient_funds",
    advice="try_again_later",
)
EXPIRED = Decline(
    "expired_card", "Your card has expired.", param="exp_month", advice="do_not_try_again"
)
INCORRECT_CVC = Decline(
    "incorrect_cvc",
    "Your card's security code is incorrect.",
    param="cvc",
    advice="confirm_card_data",
)
PROCESSING = Decline(
    "processing_error",
    "An error occurred while processing your card. Try again in a little bit.",
    advice="try_again_later",
)
AUTHENTICATION_REQUIRED = Decline(
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
    "authentication_required",
)

CARDS = {
    card.number: card
    for card in (
        Card("4242424242424242"),
        Card("4012888888881881"),
        Card("4000056655665556", funding="debit"),
        Card("5555555555554444"),
        Card("5200828282828210", funding="debit"),
        Card("2223003122003222"),
        Card("378282246310005"),
        Card("6011111111111117"),
        Card("3056930009020004"),
        Card("3566002020360505"),
        Card("6200000000000005"),
        Card("4000000000000002", GENERIC),
        Card("4000000000009995", INSUFFICIENT),
        Card("4000000000009987", _declined("lost_card")),
        Card("4000000000009979", _declined("stolen_card")),
        Card("4000000000000069", EXPIRED),
        Card("4000000000000127", INCORRECT_CVC),
        Card("4000000000000119", PROCESSING),
        Card("4000000000006975", _declined("card_velocity_exceeded", "try_again_later")),
        Card("4000000000000341", GENERIC, declines_to_save=False),
        Card("4000000000000259", disputed=True),
        Card("4000002500003155", asks_on_session=True, off_session="passes_when_set_up"),
        Card("4000002760003184", asks_on_session=True, off_session="asks"),
        Card("4000000000003220", asks_on_session=True, off_session="asks"),
        Card("4000003800000446", asks_on_session=True, off_session="passes"),
        Card(
            "4000008260003178",
            INSUFFICIENT,
            declines_to_save=False,
            asks_on_session=True,
            off_session="passes_when_set_up",
        ),
    )
}

TOKENS = {
    "pm_card_visa": "4242424242424242",
    "pm_card_visa_debit": "4000056655665556",
    "pm_card_mastercard": "5555555555554444",
    "pm_card_mastercard_debit": "5200828282828210",
    "pm_card_amex": "378282246310005",
    "pm_card_discover": "6011111111111117",
    "pm_card_diners": "3056930009020004",
    "pm_card_jcb": "3566002020360505",
    "pm_card_unionpay": "6200000000000005",
    "pm_card_visa_chargeDeclined": "4000000000000002",
    "pm_card_chargeDeclined": "4000000000000002",
    "pm_card_visa_chargeDeclinedInsufficientFunds": "4000000000009995",
    "pm_card_chargeDeclinedInsufficientFunds": "4000000000009995",
    "pm_card_visa_chargeDeclinedLostCard": "4000000000009987",
    "pm_card_visa_chargeDeclinedStolenCard": "4000000000009979",
    "pm_card_chargeDeclinedExpiredCard": "4000000000000069",
    "pm_card_chargeDeclinedIncorrectCvc": "4000000000000127",
    "pm_card_chargeDeclinedProcessingError": "4000000000000119",
    "pm_card_visa_chargeDeclinedVelocityLimitExceeded": "4000000000006975",
    "pm_card_chargeCustomerFail": "4000000000000341",
    "pm_card_createDispute": "4000000000000259",
    "pm_card_authenticationRequiredOnSetup": "4000002500003155",
    "pm_card_authenticationRequired": "4000002760003184",
    "pm_card_threeDSecure2Required": "4000000000003220",
    "pm_card_authenticationRequiredSetupForOffSession": "4000003800000446",
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": "4000008260003178",
}

_BRANDS = (
    ("amex", re.compile(r"^3[47]")),
    ("diners", re.compile(r"^3(?:0[0-5]|[689])")),
    ("jcb", re.compile(r"^35(?:2[89]|[3-8])")),
    ("discover", re.compile(r"^6(?:011|5|4[4-9])")),
    ("unionpay", re.compile(r"^62")),
    ("mastercard", re.compile(r"^(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)")),
    ("visa", re.compile(r"^4")),
)

# docs.stripe.com/currencies, minimum charge amounts, in minor units. For currencies that the table
# does not list Stripe asks for the worth of 0.50 USD: three-decimal ones stand here at about that,
# all others at 50 minor units.
_MINIMUMS = {
    "aed": 200, "bgn": 100, "czk": 1500, "dkk": 250, "gbp": 30, "hkd": 400, "huf": 17500,
    "mxn": 1000, "myr": 200, "nok": 300, "pln": 200, "ron": 200, "sek": 300, "thb": 1000,
    "bhd": 190, "jod": 360, "kwd": 160, "omr": 200, "tnd": 1600,
}  # fmt: skip
_ZERO = "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"
_THREE = "bhd jod kwd omr tnd"
_TWO = """
aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad cdf chf
cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl htg huf idr ils
inr isk jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mur mvr mwk mxn myr mzn
nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sek sgd shp sle sos srd
std szl thb tjs top try ttd twd tzs uah usd uyu uzs wst xcd yer zar zmw
"""
_ZERO_DECIMALS, _TWO_DECIMALS, _THREE_DECIMALS = (
    frozenset(names.split()) for names in (_ZERO, _TWO, _THREE)
)
_SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}
_LARGEST = 99_999_999


def brand_of(number: str) -> str:
    """The card's brand by its first digits, in Stripe's spelling; `unknown` when none fits."""
    return next((brand for brand, pattern in _BRANDS if pattern.match(number)), "unknown")


def fingerprint(number: str, mode: str) -> str:
    """A stable name of the number within one mode, as Stripe's `card.fingerprint`."""
    return hashlib.sha256(f"{mode}:{number}".encode()).hexdigest()[:16]


def check_number(number: str, mode: str) -> Card:
    """The behaviour of a typed number.

    Raises ApiError 402: `invalid_number` (no digits or an impossible length), `incorrect_number`
    (Luhn), `card_declined` (a number that is not one of the test cards: no real card is ever
    accepted).
    """
    digits = re.sub(r"[\s-]", "", number)
    if not re.fullmatch(r"[0-9]{12,19}", digits):
        raise _card_error("invalid_number", "Your card number is invalid.", "number")
    if not luhn(digits):
        raise _card_error("incorrect_number", "Your card number is incorrect.", "number")
    card = CARDS.get(digits)
    if card is None:
        raise ApiError(
            402,
            f"Your card was declined. Your request was in {mode} mode, but used a non test card. "
            "For a list of valid test cards, visit: https://stripe.com/docs/testing.",
            type="card_error",
            code="card_declined",
            decline_code="test_mode_live_card",
            param="number",
        )
    return card


def luhn(digits: str) -> bool:
    """ISO/IEC 7812's check digit."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def check_expiry(month: int, year: int, *, now: int) -> tuple[int, int]:
    """Month and four-digit year. Raises ApiError 402 `invalid_expiry_month` or
    `invalid_expiry_year`."""
    if 0 <= year < 100:
        year += 2000
    if not 1 <= month <= 12:
        message = "Your card's expiration month is invalid."
        raise _card_error("invalid_expiry_month", message, "exp_month")
    today = datetime.fromtimestamp(now, UTC)
    if not today.year <= year <= today.year + 50:
        message = "Your card's expiration year is invalid."
        raise _card_error("invalid_expiry_year", message, "exp_year")
    if expired(month, year, now=now):
        message = "Your card's expiration month is invalid."
        raise _card_error("invalid_expiry_month", message, "exp_month")
    return month, year


def expired(month: int, year: int, *, now: int) -> bool:
    """A card is good through the last day of its month."""
    today = datetime.fromtimestamp(now, UTC)
    return (year, month) < (today.year, today.month)


def check_cvc(cvc: str, brand: str) -> None:
    """Raises ApiError 402 `invalid_cvc` unless it has three digits, or for American Express three
    or four."""
    if not re.fullmatch(r"[0-9]{3,4}" if brand == "amex" else r"[0-9]{3}", cvc):
        raise _card_error("invalid_cvc", "Your card's security code is invalid.", "cvc")


def check_amount(amount: int, currency: str) -> None:
    """Raises ApiError 400 for an unknown currency and for an amount that Stripe would not
    charge."""
    if currency not in _TWO_DECIMALS | _ZERO_DECIMALS | _THREE_DECIMALS:
        raise ApiError(400, f"Invalid currency: {currency}.", param="currency")
    if amount < 1:
        raise ApiError(
            400,
            "This value must be greater than or equal to 1.",
            code="parameter_invalid_integer",
            param="amount",
        )
    minimum = _MINIMUMS.get(currency, 50)
    if amount < minimum:
        raise ApiError(
            400,
            f"Amount must be at least {money(minimum, currency)} {currency}",
            code="amount_too_small",
            param="amount",
        )
    if amount > _LARGEST:
        raise ApiError(
            400,
            f"Amount must be no more than {money(_LARGEST, currency)} {currency}",
            code="amount_too_large",
            param="amount",
        )
    if currency in _THREE_DECIMALS and amount % 10:
        raise ApiError(
            400,
            "Amounts in three-decimal currencies must be rounded to the nearest ten.",
            code="parameter_invalid_integer",
            param="amount",
        )


def money(amount: int, currency: str) -> str:
    """Minor units as Stripe's messages print them: `$25.00`."""
    places = 0 if currency in _ZERO_DECIMALS else 3 if currency in _THREE_DECIMALS else 2
    digits = str(amount).rjust(places + 1, "0")
    text = digits if places == 0 else f"{digits[:-places]}.{digits[-places:]}"
    return _SYMBOLS.get(currency, "") + text


def _card_error(code: str, message: str, param: str) -> ApiError:
    return ApiError(402, message, type="card_error", code=code, param=param)
