"""Phone numbers: read, mask, and list the countries one may choose from."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

import phonenumbers
from babel import Locale
from django.conf import settings
from django.utils.translation import gettext

from billing import errors, locales

DEFAULT_REGION = "US"


@dataclass(frozen=True, slots=True)
class Country:
    """A region of the list: `region` ISO 3166, `code` its calling code."""

    region: str
    code: int
    name: str


def countries() -> tuple[Country, ...]:
    """Every region that codes are texted to, by its name in the language of now."""
    found = _countries(locales.current())
    allowed = settings.PHONE_COUNTRIES
    return tuple(each for each in found if each.region in allowed) if allowed else found


@cache
def _countries(language: str) -> tuple[Country, ...]:
    names = Locale(language).territories
    found = (
        Country(
            region=region,
            code=phonenumbers.country_code_for_region(region),
            name=str(names.get(region, region)),
        )
        for region in phonenumbers.SUPPORTED_REGIONS
    )
    return tuple(sorted(found, key=lambda country: _plain(country.name)))


def _plain(name: str) -> str:
    """A name without its accents: \u00d6sterreich stands under O."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().casefold()


def country(region: str) -> Country:
    """The country of a region; an unknown one is the default."""
    by_region = {each.region: each for each in countries()}
    return by_region.get(region.upper()) or by_region.get(DEFAULT_REGION) or countries()[0]


def region_of(accept_language: str) -> str:
    """The region a browser's languages name first, e.g. GB of `en-GB,en;q=0.9`."""
    for part in accept_language[:200].split(","):
        for piece in part.partition(";")[0].strip().split("-")[1:]:
            if len(piece) == 2 and piece.upper() in phonenumbers.SUPPORTED_REGIONS:
                return piece.upper()
    return DEFAULT_REGION


def e164(text: str, *, region: str, strict: bool) -> str:
    """The number people typed, as E.164, e.g. +14155550142.

    `strict` asks for a number that is in use by the numbering plan; else only its length counts, so
    that a sandbox takes made-up numbers.

    Raises:
        billing.errors.Invalid: no phone number.
    """
    refusal = errors.Invalid(
        gettext("That is not a phone number of the chosen country. Check the digits."),
        param="phone",
    )
    try:
        number = phonenumbers.parse(text[:64], region)
    except phonenumbers.NumberParseException as error:
        raise refusal from error
    holds = phonenumbers.is_valid_number if strict else phonenumbers.is_possible_number
    if not holds(number) or number.extension or not _is_allowed(number):
        raise refusal
    found = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if len(found) > 16:
        raise refusal
    return found


def _is_allowed(number: phonenumbers.PhoneNumber) -> bool:
    """Whether codes are texted there (`settings.PHONE_COUNTRIES`; empty: everywhere). A made-up
    number of the sandbox has no region of its own: its calling code's first counts."""
    if not settings.PHONE_COUNTRIES:
        return True
    regions = phonenumbers.region_codes_for_country_code(number.country_code or 0)
    own = phonenumbers.region_code_for_number(number) or regions[0]
    return own in settings.PHONE_COUNTRIES


def masked(phone: str) -> str:
    """An E.164 number with its calling code and last four digits, as people are shown it."""
    code = phonenumbers.parse(phone, None).country_code
    dots = "\u2022" * 3
    return f"+{code}\u00a0{dots}\u00a0{dots}\u00a0{phone[-4:]}"


def region(phone: str) -> str:
    """The region of an E.164 number; the default where it has none."""
    return phonenumbers.region_code_for_number(phonenumbers.parse(phone, None)) or DEFAULT_REGION


def national(phone: str) -> str:
    """An E.164 number as its country writes it, e.g. (415) 555-0142."""
    return phonenumbers.format_number(
        phonenumbers.parse(phone, None), phonenumbers.PhoneNumberFormat.NATIONAL
    )
