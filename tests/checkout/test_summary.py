from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.template.loader import render_to_string

from billing import locales, plans
from checkout import summary
from tests import factories

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 9, 14, 10, tzinfo=UTC)


def sentences(plan: Any, now: datetime = NOW) -> dict[str, str]:
    return {row.label: row.text for row in summary.of_plan(plan, now=now, zone="UTC").rows}


def test_a_plan_says_what_it_gives_costs_and_when_it_renews() -> None:
    plan = factories.make_plan(factories.make_merchant(), when_depleted="block")
    factories.make_bundle(plan)
    found = summary.of_plan(plan, now=NOW, zone="UTC")
    assert (found.name, found.price, found.per) == ("Studio", "$25.00", "a month")
    assert sentences(plan) == {
        "You get": "$25.00 of credits every month",
        "You pay": "$25.00 today, September 14, 2026",
        "Renews": "October 14, then every month",
        "Unused credits": "Roll over to the next month",
        "If they run out": "Requests pause until you add credits; Pack 10 is $10.00",
    }


def test_a_plan_that_goes_on_says_what_the_card_pays() -> None:
    plan = factories.make_plan(
        factories.make_merchant(), rollover_type="none", overage_cap=Decimal(50)
    )
    found = sentences(plan)
    assert found["Unused credits"] == "End with the month"
    assert found["If they run out"] == (
        "Requests go on; your card is charged at each $10.00 and at the month\u2019s end, "
        "at most $50.00 a month"
    )


def test_a_yearly_plan_names_the_year() -> None:
    plan = factories.make_plan(factories.make_merchant(), billing_interval="year")
    assert sentences(plan)["Renews"] == "September 14, 2027, then every year"


def test_prices_show_every_digit_and_line_up() -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant)
    minutes = factories.make_meter(
        merchant, plan, slug="speech", tiers=[("0", "0.009")], unit="minutes"
    )
    minutes.name = "Transcription minutes"
    minutes.save()
    factories.make_meter(merchant, plan, slug="chat", tiers=[("0", "3"), ("10000000", "2")])
    assert [(r.label, r.amount.main, r.amount.pad) for r in summary.rates(plan)[0]] == [
        ("Chat, per million tokens", "$3.00", "0"),
        ("after 10 million tokens", "$2.00", "0"),
        ("The count never starts again", "", ""),
        ("Transcription minutes", "$0.009", ""),
    ]


def test_rates_by_kind_of_token_name_their_kind() -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant)
    factories.make_meter(
        merchant,
        plan,
        tiers=[("0", "3"), ("0", "15"), ("0", "0.3")],
        tier_kinds=["input", "output", "cache_read"],
    )
    assert [(rate.label, rate.amount.main) for rate in summary.rates(plan)[0]] == [
        ("Chat, per million tokens, input", "$3.00"),
        ("output", "$15.00"),
        ("cached input", "$0.30"),
    ]
    with locales.speak("de"):
        labels = [rate.label for rate in summary.rates(plan)[0]]
    assert labels[1:] == ["Ausgabe", "zwischengespeicherte Eingabe"]


def test_what_is_free_packages_and_flat_amounts_are_said() -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant)
    factories.make_meter(
        merchant,
        plan,
        tiers=[("0", "3"), ("10000000", "2")],
        tier_flats=[Decimal(0), Decimal(5)],
        free_allowance=Decimal(100_000),
        package_size=Decimal(1000),
    )
    assert [rate.label for rate in summary.rates(plan)[0]] == [
        "Chat, per million tokens",
        "after 10 million tokens",
        "The first 100,000 tokens are free and not counted; sold in packages of 1,000 tokens; "
        "a package you begin is paid whole; plus $5.00 once you pass 10 million tokens; "
        "the count never starts again",
    ]
    assert [bool(rate.amount.main) for rate in summary.rates(plan)[0]] == [True, True, False]


def test_prices_past_the_first_few_are_folded_away_and_none_is_left_out() -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant)
    for number in range(11):
        factories.make_meter(merchant, plan, slug=f"meter-{number:02}", tiers=[("0", "3")])
    rows = {row.label: row for row in summary.of_plan(plan, now=NOW, zone="UTC").rows}
    shown, more = rows["Credits buy"].rates, rows["Credits buy"].more
    assert (len(shown), len(more)) == (8, 3)
    factories.make_meter(merchant, plan, slug="long", tiers=[(str(n), "3") for n in range(9)])
    assert [len(part) for part in summary.rates(plan)] == [10, 11]
    page = render_to_string(
        "checkout/_rows.html", {"summary": summary.of_plan(plan, now=NOW, zone="UTC")}
    )
    assert "and 11 more" in page and page.count("per million tokens") == 12


def test_a_share_of_the_providers_price_is_said_as_such() -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant)
    factories.make_meter(merchant, plan, tiers=[("0", "20")], rate_type="percentage")
    (rate,) = summary.rates(plan)[0]
    assert (rate.label, rate.amount.main) == ("Chat, of the provider\u2019s price", "20%")


def test_digits_past_the_cent_are_muted_from_one_up() -> None:
    found = summary.column(
        [(Decimal("12.0764"), "USD"), (Decimal(10), "USD"), (Decimal("0.0045"), "USD")],
        signs=(False, True, False),
    )
    assert [(a.main, a.past, a.pad) for a in found] == [
        ("$12.07", "64", ""),
        ("+$10.00", "", "00"),
        ("$0.0045", "", ""),
    ]


@pytest.mark.parametrize(
    ("interval", "now", "words"),
    [
        ("month", NOW, "on the 14th of every month"),
        (
            "month",
            datetime(2026, 1, 31, tzinfo=UTC),
            "on the 31st of every month (or its last day)",
        ),
        ("month", datetime(2026, 1, 2, tzinfo=UTC), "on the 2nd of every month"),
        ("month", datetime(2026, 1, 11, tzinfo=UTC), "on the 11th of every month"),
        ("week", NOW, "every Monday"),
        ("day", NOW, "every day"),
        ("year", NOW, "on September 14 of every year"),
    ],
)
def test_consent_names_amount_and_day(interval: str, now: datetime, words: str) -> None:
    plan = factories.make_plan(
        factories.make_merchant(), billing_interval=interval, when_depleted="block"
    )
    text = summary.consent_to_plan(plan, merchant="Northwind Voice", now=now, zone="UTC")
    assert text == (
        "By paying you let Northwind Voice save this card and charge it $25.00 "
        f"{words} until you cancel."
    )


def test_consent_names_all_the_card_may_be_charged_for() -> None:
    plan = factories.make_plan(factories.make_merchant(), price="0")
    factories.make_bundle(plan)
    text = summary.consent_to_plan(plan, merchant="Northwind Voice", now=NOW, zone="UTC")
    assert "charge it for packs you buy and use past your credits. Nothing is charged" in text


def test_dates_are_the_merchants() -> None:
    late = datetime(2026, 9, 14, 23, 30, tzinfo=UTC)
    assert summary.day(late, "Europe/Amsterdam", year=True) == "September 15, 2026"


def test_a_pack_for_one_who_owes_says_so() -> None:
    bundle = factories.make_bundle(factories.make_plan(factories.make_merchant()))
    found = summary.of_bundle_for(bundle, balance=Decimal("-2.5"))
    assert [line.amount.main for line in found.sum] == ["\u2212$2.50", "+$10.00", "$7.50"]
    assert found.sum[0].label == "You owe for past use"
    assert found.note.startswith("What you owe is paid first.")


def test_a_plan_that_tops_up_from_the_start_says_what_is_bought_and_when() -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant)
    bundle = factories.make_bundle(plan)
    plans.set_default_top_up(plan, bundle)
    plan.refresh_from_db()
    told = summary.consent_to_plan(plan, merchant="Northwind", now=NOW, zone="UTC")
    assert "each time your credits run out, Pack 10 is bought with this card for $10.00" in told
    assert "without a monthly limit" in told
    rows = {row.label: row.text for row in summary.of_plan(plan, now=NOW, zone="UTC").rows}
    assert (
        rows["If they run out"] == "Pack 10 is bought by itself for $10.00; you can switch it off"
    )
    plans.set_default_top_up(plan, None)
    plan.refresh_from_db()
    told = summary.consent_to_plan(plan, merchant="Northwind", now=NOW, zone="UTC")
    assert "bought with this card" not in told
