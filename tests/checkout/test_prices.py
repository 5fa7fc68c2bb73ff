"""Every model of a price is told whole, in each language, with money in its form."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing import locales
from checkout import prices
from meters.prices import Terms
from meters.pricing import Tier


def tier(start: str, rate: str, flat: str = "0", kind: str = "") -> Tier:
    return Tier(Decimal(start), Decimal(rate), Decimal(flat), kind)


def terms(*tiers: Tier, **said: Any) -> Terms:
    counts = {"free_allowance", "package_size"} & said.keys()
    return Terms(tiers=tiers, **said | {name: Decimal(said[name]) for name in counts})


STEPS = (tier("0", "3"), tier("10000000", "2"))
KINDS = (
    tier("0", "3", kind="input"), tier("0", "15", kind="output"),
    tier("0", "0.3", kind="cache_read"), tier("0", "3.75", kind="cache_write"),
)  # fmt: skip
ALL = terms(
    tier("0", "3", "1"), tier("1000000", "2", "5"), token_basis="output", tier_window="cycle",
    base_cost_payer="wallet", free_allowance="500000", package_size="1000",
)  # fmt: skip


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (terms(tier("0", "1.2")), "$1.20 a million tokens"),
        (terms(tier("0", "0.0045"), unit="minutes"), "$0.0045 a minute"),
        (terms(tier("0", "0.1"), unit="requests"), "$0.10 a request"),
        (terms(tier("0", "4"), unit="characters_1m"), "$4.00 a million characters"),
        (terms(tier("0", "4"), token_basis="output"), "$4.00 a million output tokens"),
        (
            terms(tier("0", "4"), base_cost_payer="wallet"),
            "$4.00 a million tokens; plus the provider’s price",
        ),
        (
            terms(*STEPS),
            "$3.00 a million tokens, $2.00 after 10 million tokens; the count never starts again",
        ),
        (
            terms(*STEPS, token_basis="output", tier_window="cycle"),
            "$3.00 a million output tokens, $2.00 after 10 million output tokens; "
            "the count starts again every month",
        ),
        (
            terms(*STEPS, tier_mode="volume", tier_window="cycle"),
            "$3.00 a million tokens, $2.00 for all once past 10 million tokens; "
            "the count starts again every month; "
            "then what you paid above the price you reach comes back",
        ),
        (
            terms(tier("0", "20"), tier("1500", "15"), rate_type="percentage", unit="requests"),
            "20% of the provider’s price, 15% after 1,500 requests; the count never starts again",
        ),
        (
            terms(tier("0", "20"), rate_type="percentage", base_cost_payer="wallet"),
            "the provider’s price plus 20%",
        ),
        (
            terms(*KINDS),
            "input $3.00, output $15.00, cached input $0.30, input written to the cache $3.75 "
            "a million tokens",
        ),
        (
            terms(*KINDS[:2], base_cost_payer="wallet", tier_window="cycle"),
            "input $3.00, output $15.00 a million tokens; plus the provider’s price",
        ),
        (
            terms(tier("0", "0.1"), unit="requests", free_allowance="1"),
            "$0.10 a request; the first 1 request is free; the count never starts again",
        ),
        (
            terms(tier("0", "0.1", "2"), unit="minutes", free_allowance="60"),
            "$0.10 a minute; the first 60 minutes are free; "
            "plus $2.00 with the first use that is paid; the count never starts again",
        ),
        (
            terms(tier("0", "3"), package_size="1000", package_rounding="down"),
            "$3.00 a million tokens; sold in packages of 1,000 tokens; "
            "each is paid once it is used up; the count never starts again",
        ),
        (
            terms(tier("0", "3", "0.5"), package_size="1000"),
            "$3.00 a million tokens; sold in packages of 1,000 tokens; "
            "a package you begin is paid whole; plus $0.50 with the first use; "
            "the count never starts again",
        ),
        (
            ALL,
            "$3.00 a million output tokens, $2.00 after 1 million output tokens; "
            "plus the provider’s price; "
            "the first 500,000 output tokens are free and not counted; "
            "sold in packages of 1,000 output tokens; a package you begin is paid whole; "
            "plus $1.00 with the first use that is paid; "
            "plus $5.00 once you pass 1 million output tokens; "
            "the count starts again every month",
        ),
    ],
)  # fmt: skip
def test_a_price_is_told_whole(price: Terms, said: str) -> None:
    assert prices.tell(price, "USD", interval="month") == said


@pytest.mark.parametrize(
    ("language", "said"),
    [
        (
            "de",
            "3,00 $ pro Million Ausgabe-Tokens, 2,00 $ nach 1 Million Ausgabe-Tokens; "
            "zuzüglich des Anbieterpreises; "
            "die ersten 500.000 Ausgabe-Tokens sind kostenlos und zählen nicht mit; "
            "abgerechnet in Blöcken zu 1.000 Ausgabe-Tokens; "
            "ein angefangener Block wird ganz bezahlt; "
            "zuzüglich 1,00 $ bei der ersten Nutzung, die etwas kostet; "
            "zuzüglich 5,00 $, sobald Sie 1 Million Ausgabe-Tokens überschreiten; "
            "die Zählung beginnt jede Woche neu",
        ),
        (
            "es",
            "3,00 US$ por millón de tokens de salida, "
            "2,00 US$ después de 1 millón de tokens de salida; más el precio del proveedor; "
            "500.000 tokens de salida al principio son gratis y no cuentan; "
            "se cobra por bloques de 1.000 tokens de salida; un bloque empezado se paga entero; "
            "más 1,00 US$ con el primer uso que se paga; "
            "más 5,00 US$ al superar 1 millón de tokens de salida; "
            "la cuenta empieza de nuevo cada semana",
        ),
    ],
    ids=["de", "es"],
)
def test_it_is_told_in_the_customers_language_and_their_form_of_money(
    language: str, said: str
) -> None:
    with locales.speak(language):
        assert prices.tell(ALL, "USD", interval="week").replace("\u00a0", " ") == said


def test_without_a_plan_it_says_when_the_count_starts_again_in_general() -> None:
    told = prices.tell(terms(*STEPS, tier_window="cycle"), "USD")
    assert told.endswith("; the count starts again each billing period")


@pytest.mark.parametrize(
    ("price", "said", "is_plain"),
    [
        (terms(tier("0", "1.2")), "$1.20 a million", True),
        (terms(tier("0", "0.009"), unit="minutes"), "$0.009 a minute", True),
        (terms(tier("0", "20"), rate_type="percentage"), "20% of the provider’s price", True),
        (terms(tier("0", "1.2"), base_cost_payer="wallet"), "$1.20 a million", False),
        (terms(tier("0", "1.2"), free_allowance="5"), "$1.20 a million", False),
        (terms(*STEPS), "$2.00 to $3.00 a million", False),
        (terms(*KINDS), "$0.30 to $15.00 a million", False),
        (
            terms(tier("0", "20"), tier("9", "15"), rate_type="percentage"),
            "15% to 20% of the provider’s price",
            False,
        ),
    ],
)
def test_a_few_words_say_the_rate_or_its_range(price: Terms, said: str, is_plain: bool) -> None:
    assert prices.brief(price, "USD") == said
    assert prices.is_plain(price) is is_plain
    assert is_plain == (prices.tell(price, "USD").startswith(said) and not prices.beside(price, ""))


def test_a_list_of_prices_has_a_line_for_each_rate_and_one_for_the_rest() -> None:
    found = prices.lines("Chat", ALL, "USD", interval="month")
    assert [(line.label, line.rate) for line in found[:2]] == [
        ("Chat, per million output tokens", Decimal(3)),
        ("after 1 million output tokens", Decimal(2)),
    ]
    assert [line.is_note for line in found] == [False, False, True]
    assert found[2].label.startswith("Plus the provider’s price; the first 500,000 output")


@pytest.mark.parametrize(
    ("name", "price", "label"),
    [
        ("Chat tokens", terms(tier("0", "1")), "Chat tokens, per million"),
        ("Minutes", terms(tier("0", "1"), unit="minutes"), "Minutes"),
        ("Speech", terms(tier("0", "1"), unit="minutes"), "Speech, per minute"),
        (
            "Tokens", terms(tier("0", "1"), token_basis="output"),
            "Tokens, per million output tokens",
        ),
        (
            "Chat", terms(tier("0", "1"), rate_type="percentage", base_cost_payer="wallet"),
            "Chat, on top of the provider’s price",
        ),
    ],
)  # fmt: skip
def test_a_name_that_says_its_unit_is_not_told_it_again(
    name: str, price: Terms, label: str
) -> None:
    assert prices.lines(name, price, "USD", interval="month")[0].label == label


@pytest.mark.parametrize(
    ("unit", "amount", "said"),
    [
        ("minutes", "30", "30 s"),
        ("minutes", "1890", "31 min 30 s"),
        ("minutes", "97440", "1,624 min"),
        ("minutes", "0.5", "0.5 s"),
        ("tokens_1m", "12480", "12,480 tokens"),
        ("tokens_1m", "2000000", "2,000,000 tokens"),
        ("requests", "1", "1 request"),
        ("characters_1m", "2000", "2,000 characters"),
    ],
)
def test_quantities_are_said_as_people_say_them(unit: str, amount: str, said: str) -> None:
    assert prices.used(unit, Decimal(amount).quantize(Decimal("0.000001"))) == said
