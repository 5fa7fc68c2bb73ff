"""What a provider's model costs: whose word counts, and what nobody knows."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import data_snapshot

from billing import errors
from meters import costs
from meters.gateway import keyring
from meters.gateway.readers import Usage
from meters.models import RequestCost
from tests import factories
from tests.meters.test_charge import Setting, report

NOW = datetime(2026, 11, 25, tzinfo=UTC)
USED = Usage(input=1_000_000, output=1_000_000)


def find(
    used: Usage = USED, *models: str, provider: str = "openai", **kwargs: Any
) -> costs.Cost | None:
    values: dict[str, Any] = {"prices": "openai", "currency": "USD", "now": NOW}
    return costs.find(provider, models or ("gpt-4o-mini",), used, **(values | kwargs))


def price(model: str, provider: str = "*", *, days: int = 1, **rates: str) -> costs.Override:
    return costs.Override(
        provider=provider,
        model=model,
        valid_from=NOW - timedelta(days=days),
        rates={f"{name}_rate": Decimal(rate) for name, rate in rates.items()},
    )


def test_the_library_prices_what_it_knows_and_says_its_rates() -> None:
    found = find()
    assert found is not None
    assert (found.amount, found.source, found.model) == (Decimal("0.75"), "library", "gpt-4o-mini")
    assert (found.rates["input_mtok"], found.rates["output_mtok"]) == ("0.15", "0.6")


def test_a_cost_that_no_column_holds_is_none() -> None:
    rows = [price("*", output="999999999999.9999999999")]
    assert find(Usage(output=1_000_000), overrides=rows) is not None
    assert find(Usage(output=1_000_001), overrides=rows) is None


def test_cached_tokens_are_not_paid_in_full() -> None:
    """LiteLLM #11789."""
    found = find(Usage(input=1_000_000, cache_read=1_000_000))
    assert found is not None and found.amount == Decimal("0.075")


def test_counts_that_contradict_each_other_are_priced_by_what_cannot() -> None:
    found = find(Usage(input=10, output=10, cache_read=10**6, cache_write=10**6))
    assert found is not None and 0 < found.amount < Decimal("0.001")


def test_an_unknown_model_or_provider_has_no_cost() -> None:
    assert find(USED, "no-such-model") is None
    assert find(prices="") is None
    assert find(USED, "") is None


def test_the_answers_name_is_tried_before_the_asked_one() -> None:
    found = find(USED, "a-snapshot-nobody-knows", "gpt-4o-mini")
    assert found is not None and found.model == "gpt-4o-mini"


def test_a_stated_cost_is_the_providers_word() -> None:
    found = find(Usage(input=1, cost=Decimal("0.00031413")))
    assert found is not None
    assert (found.amount, found.source) == (Decimal("0.00031413"), "provider")


def test_an_override_wins_over_both_and_the_closest_over_the_rest() -> None:
    rows = [
        price("*", input="1"),
        price("gpt-4o*", input="2"),
        price("gpt-4o-mini", input="3"),
        price("gpt-4o-mini", "groq", input="9"),
        price("gpt-4o-mini", "openai", input="4", days=5),
        price("gpt-4o-mini", "openai", input="5", output="10", cache_read="1"),
        price("gpt-4o-mini", "openai", input="8", days=-1),
    ]
    stated = Usage(input=1_000_000, output=500_000, cache_read=400_000, cost=Decimal(7))
    found = find(stated, overrides=rows)
    assert found is not None
    assert found.source == "override"
    assert found.amount == Decimal("0.6") * 5 + Decimal("0.4") * 1 + 5
    assert found.rates == {"input": "5", "output": "10", "cache_read": "1"}
    other = find(USED, "gpt-4o", overrides=rows)
    assert other is not None and other.amount == 2


def test_pictures_seconds_and_characters_have_rates_of_their_own() -> None:
    rows = [price("*", image="0.04", second="0.0001", character="0.00001")]
    used = Usage(images=2, input_seconds=Decimal("1.5"))
    found = find(used, overrides=rows, characters=100)
    assert found is not None and found.amount == Decimal("0.08115")


def test_dollars_are_no_other_currency_without_a_rate(settings: Any) -> None:
    assert find(currency="EUR") is None
    settings.LAVA_USD_RATES = {"EUR": "0.5"}
    found = find(currency="EUR")
    assert found is not None and found.amount == Decimal("0.375")
    rows = [price("*", input="1")]
    own = find(Usage(input=1_000_000), currency="JPY", overrides=rows)
    assert own is not None and own.amount == 1


def test_a_flat_price_says_what_the_library_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each model that the library knows, at random counts, some of which cannot be."""
    chance = random.Random(20261129)
    models = [
        (provider.id, model.id)
        for provider in data_snapshot.get_snapshot().providers
        for model in provider.models
    ]
    asked = [
        (
            place,
            Usage(
                input=(most := chance.choice([0, 1, chance.randrange(3_000_000)])),
                output=chance.choice([0, chance.randrange(200_000)]),
                cache_read=chance.choice([0, chance.randrange(most + 9)]),
                cache_write=chance.choice([0, chance.randrange(most + 9)]),
                cache_write_1h=chance.choice([0, 0, 5]),
                output_audio=chance.choice([0, 0, 5]),
            ),
        )
        for place in models
        for _ in range(2)
    ]

    def all_of_them() -> list[costs.Cost | None]:
        return [
            costs.find(provider, (model,), used, prices=provider, currency="USD", now=NOW)
            for (provider, model), used in asked
        ]

    quick = all_of_them()
    flat = [found for _, found in costs._FLATS.values() if found is not None]
    assert 1000 < len(flat) < len(costs._FLATS)
    monkeypatch.setattr(costs, "_flat", lambda price: None)
    assert quick == all_of_them()


def test_a_model_without_any_price_has_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    _, known = data_snapshot.get_snapshot().find_provider_model("gpt-4o-mini", None, "openai", None)
    monkeypatch.setattr(known, "prices", [])
    assert find() is None


@pytest.mark.django_db
def test_a_reported_request_of_a_percentage_meter_is_priced_by_its_model() -> None:
    it = Setting()
    factories.make_meter(
        it.merchant, it.plan, slug="share", rate_type="percentage", tiers=[("0", "20")]
    )
    used = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
    told = {"meter_slug": "share", "model": "gpt-4o-mini"}
    charged = report(it.key, it.connection, "r1", **told, **used)
    assert (charged.request.provider_cost, charged.request.fee) == (
        Decimal("0.75"),
        Decimal("0.15"),
    )
    stored = RequestCost.objects.get(pk=charged.request.pk)
    assert (stored.source, stored.rates["input_mtok"]) == ("library", "0.15")
    assert report(it.key, it.connection, "r1", **told, **used).replayed
    assert RequestCost.objects.count() == 1
    rates = {"input": Decimal(1), "output": Decimal(1)}
    keyring.set_price(
        it.merchant, provider="*", model="gpt-4o*", rates=rates, actor="t", now=it.now
    )
    assert report(it.key, it.connection, "r2", **told, **used).request.fee == Decimal("0.4")
    with pytest.raises(errors.Refused) as refused:
        report(it.key, it.connection, "r3", meter_slug="share", model="nobody-knows", **used)
    assert refused.value.code == "cost_unknown"
