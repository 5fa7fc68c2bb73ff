"""Languages: which one is spoken, and how its people write money, dates and numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.utils.translation import gettext

from billing import locales, money

LATE = datetime(2026, 10, 14, 19, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr,es-MX;q=0.9,de;q=0.5", "es"),
        ("de;q=0.2,es;q=0.7", "es"),
        ("en-GB,de;q=0.9", "en"),
        ("xx,;q=,de;q=nonsense,*", "en"),
        ("de" * 3000, "en"),
    ],
)
def test_the_browsers_first_language_of_ours_is_spoken(header: str, language: str) -> None:
    assert locales.of_browser(header) == language


@pytest.mark.parametrize(
    ("tag", "language"),
    [("de", "de"), ("DE-ch", "de"), ("es-419", "es"), ("en-us", "en"), ("", ""), ("../de", "")],
)
def test_a_tag_names_a_language_of_ours_or_none(tag: str, language: str) -> None:
    assert locales.known(tag) == language


@pytest.mark.parametrize(
    ("language", "amount", "currency", "shown"),
    [
        ("en", "1234.5", "USD", "$1,234.50"),
        ("de", "1234.5", "USD", "1.234,50\u00a0$"),
        ("es", "1234.5", "USD", "1.234,50\u00a0US$"),
        ("de", "-0.0045", "EUR", "\u22120,0045\u00a0€"),
        ("de", "500", "JPY", "500\u00a0¥"),
        ("de", "12.3", "CHF", "12,30\u00a0CHF"),
    ],
)
def test_money_is_written_in_the_customers_form(
    language: str, amount: str, currency: str, shown: str
) -> None:
    with locales.speak(language):
        assert money.display(Decimal(amount), currency) == shown


def test_the_digits_past_the_cent_stand_before_the_currency() -> None:
    with locales.speak("de"):
        assert money.pieces(Decimal("14.616"), "EUR") == ("14,61", "6", "\u00a0€")


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ["October 14", "October 14, 2026", "Oct 14, 2026", "9:05 PM", "14th", "2.5%"]),
        ("de", ["14. Oktober", "14. Oktober 2026", "14.10.2026", "21:05", "14.", "2,5\u00a0%"]),
        (
            "es",
            ["14 de octubre", "14 de octubre de 2026", "14 oct 2026", "21:05", "14", "2,5\u00a0%"],
        ),
    ],
)
def test_dates_and_numbers_are_written_in_the_customers_form(
    language: str, words: list[str]
) -> None:
    local = datetime(2026, 10, 14, 21, 5)
    with locales.speak(language):
        assert [
            locales.day(LATE, "Europe/Berlin"),
            locales.day(LATE, "Europe/Berlin", year=True),
            locales.short_day(LATE, "Europe/Berlin"),
            locales.clock(local),
            locales.ordinal(14),
            locales.percent(Decimal("2.5")),
        ] == words


def test_an_amount_is_typed_as_it_is_written() -> None:
    with locales.speak("de"):
        assert locales.typed_amount(" 30,50 ") == "30.50"
        assert locales.plain_amount(Decimal("30.5"), "EUR") == "30,50"
        # What no German types is left to the strict reader, which refuses it.
        assert locales.typed_amount("1,5,0") == "1,5,0"
    assert locales.typed_amount("30.50") == "30.50"


def test_outside_of_it_all_is_english() -> None:
    with locales.speak("de"):
        assert gettext("Credits left") == "Verfügbares Guthaben"
        with locales.speak("tlh"):
            assert gettext("Credits left") == "Credits left"
        assert locales.current() == "de"
    assert (locales.current(), gettext("Credits left")) == ("en", "Credits left")


def test_a_file_sent_in_pieces_keeps_its_language_and_leaves_the_threads() -> None:
    def lines():  # type: ignore[no-untyped-def]
        yield gettext("Usage")
        yield gettext("Usage")

    with locales.speak("es"):
        written = locales.aloud(lines())
    # The generator begins where it is first asked: that is the server's, after the view.
    assert list(written) == ["Uso", "Uso"]
    assert locales.current() == "en"
