from __future__ import annotations

import pytest

from billing import errors
from checkout import dialing


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("(415) 555-0142", "US", "+14155550142"),
        ("+1 415 555 0142", "GB", "+14155550142"),
        ("06 12345678", "NL", "+31612345678"),
        ("020 7946 0958", "GB", "+442079460958"),
    ],
)
def test_a_number_is_read_as_people_type_it(text: str, region: str, number: str) -> None:
    assert dialing.e164(text, region=region, strict=False) == number


@pytest.mark.parametrize("text", ["", "12", "call me", "+", "+1415555014299999", "4155550142 x5"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(errors.Invalid) as refusal:
        dialing.e164(text, region="US", strict=False)
    assert refusal.value.param == "phone"


def test_live_numbers_must_be_in_use_by_the_plan() -> None:
    assert dialing.e164("+15555550100", region="US", strict=False) == "+15555550100"
    with pytest.raises(errors.Invalid):
        dialing.e164("+15555550100", region="US", strict=True)


def test_a_number_is_shown_with_its_last_four_digits() -> None:
    assert dialing.masked("+14155550142").replace("\u00a0", " ") == "+1 ••• ••• 0142"
    assert dialing.masked("+31612345678").endswith("5678")


def test_the_list_has_every_country_once_by_name() -> None:
    listed = dialing.countries()
    assert len(listed) > 200
    assert len({country.region for country in listed}) == len(listed)
    assert dialing.Country("GB", 44, "United Kingdom") in listed


@pytest.mark.parametrize(
    ("header", "region"),
    [("en-GB,en;q=0.9", "GB"), ("de", "US"), ("zh-Hant-TW", "TW"), ("", "US"), ("*;q=1", "US")],
)
def test_the_country_is_guessed_from_the_browser(header: str, region: str) -> None:
    assert dialing.region_of(header) == region
