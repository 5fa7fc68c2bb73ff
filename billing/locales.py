"""Languages: which one a customer is spoken to in, and how its people write dates and numbers.

`speak` is entered at the edge (a hosted page for its browser, a mail for its customer) and nowhere
else; within it `gettext` and everything here answer in that language, and `billing.money` writes
amounts in its form. Outside it all is English: the console, the API, the commands.

A further language is one line of `settings.LANGUAGES` and its two catalogues, made by
`manage.py messages`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from babel import Locale, dates, numbers
from django.utils import translation

from billing import money
from billing.models import Customer

DEFAULT = "en"


@contextmanager
def speak(language: str) -> Iterator[None]:
    """Within, people are spoken to in `language`; one we do not have is English."""
    language = known(language) or DEFAULT
    token = money.language.set(language)
    try:
        with translation.override(language):
            yield
    finally:
        money.language.reset(token)


def aloud(lines: Iterator[str]) -> Iterator[str]:
    """Lines of a file that is written while it is sent, after `speak` is over: each in the language
    of now."""
    return _aloud(lines, current())


def _aloud(lines: Iterator[str], language: str) -> Iterator[str]:
    while True:
        # Not around the `yield`: others are spoken to in between.
        with speak(language):
            line = next(lines, None)
        if line is None:
            return
        yield line


def known(text: str) -> str:
    """The language of ours that a tag names (`de-AT`: de); empty: none."""
    try:
        found = translation.get_supported_language_variant(text[:35].lower())
    except LookupError:
        return ""
    return DEFAULT if found.startswith("en") else found


def of_browser(accept_language: str) -> str:
    """The first of a browser's languages that is ours."""
    ranked = []
    for place, part in enumerate(accept_language[:500].split(",")):
        tag, _, rest = part.strip().partition(";")
        try:
            weight = float(rest.strip().removeprefix("q=")) if rest else 1.0
        except ValueError:
            continue
        ranked.append((-weight, place, tag.strip()))
    return next((ours for _, _, tag in sorted(ranked) if (ours := known(tag))), DEFAULT)


def of_customer(customer: Customer) -> str:
    """The language a customer was last seen in; English where they never were."""
    return known(customer.locale) or DEFAULT


def current() -> str:
    """The language of now."""
    return money.language.get()


def day(moment: datetime, zone: str, *, year: bool = False) -> str:
    """A date of a sentence in the merchant's zone: October 14, or October 14, 2026."""
    local = moment.astimezone(ZoneInfo(zone))
    if year:
        return dates.format_date(local, format="long", locale=_locale())
    return dates.format_skeleton("MMMMd", local, locale=_locale())


def short_day(moment: datetime, zone: str) -> str:
    """A date of a list, e.g. Nov 25, 2026."""
    return dates.format_date(moment.astimezone(ZoneInfo(zone)), format="medium", locale=_locale())


def instant(moment: datetime, zone: str) -> str:
    """A moment in full, e.g. October 14, 2026, 09:30 CEST."""
    local = moment.astimezone(ZoneInfo(zone))
    return f"{day(moment, zone, year=True)}, {local:%H:%M} {local.tzname()}"


def clock(local: datetime) -> str:
    """A time of day as people read it off: 9:30 PM, 21:30."""
    # CLDR's narrow space is a hole in some fonts.
    return dates.format_time(local, format="short", locale=_locale()).replace("\u202f", " ")


def weekday(local: datetime) -> str:
    """Monday."""
    return dates.format_date(local, format="EEEE", locale=_locale())


def ordinal(number: int) -> str:
    """A day of the month in a sentence: 14th, 14., 14."""
    if current() == "de":
        return f"{number}."
    if current() != DEFAULT:
        return str(number)
    if 10 < number < 14:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def number(count: Decimal | int) -> str:
    """A count with all its digits: 12,480 or 0.5."""
    return str(numbers.format_decimal(count, locale=_locale(), decimal_quantization=False))


def percent(rate: Decimal) -> str:
    """A rate in per cent with all its digits: 2.5%."""
    return str(numbers.format_percent(rate / 100, locale=_locale(), decimal_quantization=False))


def typed_amount(text: str) -> str:
    """An amount as this language types it, as `money.parse_amount` reads it: 30,00 is 30.00."""
    point = numbers.get_decimal_symbol(_locale())
    plain = text.strip()
    return plain.replace(point, ".") if point != "." and plain.count(point) == 1 else plain


def plain_amount(amount: Decimal, currency: str) -> str:
    """An amount for a field of a form: 30.00, 30,00."""
    digits = f"{amount:.{money.minor_units(currency)}f}"
    return digits.replace(".", numbers.get_decimal_symbol(_locale()))


def _locale() -> Locale:
    return Locale.parse(current())
