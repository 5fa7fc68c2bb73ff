"""Worked examples that others published, where their rules are ours: `published.json` names each
source."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from moneyed import Money

from billing import clock, credits, money, periods
from billing.models import LedgerEntry
from meters import pricing
from tests import factories
from tests.meters.test_charge import report

CASES = json.loads(Path(__file__).with_name("published.json").read_text())


def cases(*models: str) -> Any:
    found = [case for case in CASES if case["model"] in models]
    assert found
    return pytest.mark.parametrize("case", found, ids=[case["id"] for case in found])


def test_every_published_example_is_tried() -> None:
    tried = {
        "unit", "graduated", "percent_of_cost", "rollover", "credit_then_charge",
        "anchor_sequence", "period_at", "minor_units", "credit_draw", "ledger_as_of",
    }  # fmt: skip
    assert {case["model"] for case in CASES} == tried


@cases("unit", "graduated")
def test_fees(case: dict[str, Any]) -> None:
    asked = case["inputs"]
    tiers = asked.get("tiers") or [{"up_to": None, "unit": asked["rate"]}]
    unit = "tokens_1m" if asked.get("per") == "1000000" else "requests"
    # Ours counts one a request; a meter of tokens at a million times the rate counts many.
    scale = Decimal(1) if unit == "tokens_1m" else Decimal(1_000_000)
    starts = [Decimal(0), *(Decimal(tier["up_to"]) for tier in tiers[:-1])]
    price = pricing.Price(
        rate_type="fixed",
        unit="tokens_1m",
        token_basis="input+output",
        tiers=tuple(
            pricing.Tier(start, Decimal(tier["unit"]) * scale, Decimal(tier.get("flat", "0")))
            for start, tier in zip(starts, tiers, strict=True)
        ),
    )
    used = pricing.Usage(input_tokens=int(asked["quantity"]))
    fee = pricing.price(price, used, before=Decimal(asked.get("prior", "0")))
    assert fee.amount == Decimal(case["expected"]["fee"])


@cases("percent_of_cost")
def test_a_share_of_the_cost(case: dict[str, Any]) -> None:
    cost = Decimal(case["inputs"]["provider_cost"])
    price = pricing.Price(
        rate_type="percentage",
        unit="requests",
        token_basis="input+output",
        tiers=(pricing.Tier(Decimal(0), Decimal(case["inputs"]["rate"]) * 100),),
    )
    fee = pricing.price(price, pricing.Usage(provider_cost=cost), before=Decimal(0)).amount
    assert fee == Decimal(case["expected"]["fee"])
    assert cost + fee == Decimal(case["expected"]["total_request_cost"])


@pytest.mark.django_db
@cases("rollover")
def test_what_rolls_over(case: dict[str, Any]) -> None:
    asked, expected = case["inputs"], case["expected"]
    merchant = factories.make_merchant()
    plan = factories.make_plan(
        merchant, price="0", credit=asked["included"], rollover_type=asked["rollover_type"]
    )
    factories.make_meter(merchant, plan, tiers=[("0", "1")])
    connection = factories.make_subscription(plan, now=merchant.now()).connection
    report(factories.make_key(merchant), connection, input_tokens=int(asked["used"]) * 1_000_000)
    clock.advance(merchant, to=clock.next_renewal(merchant))
    left = credits.balance(connection, now=merchant.now()).total
    assert left == Decimal(expected["available"])
    ended = LedgerEntry.objects.filter(connection=connection, kind="expire")
    assert -sum(line.amount for line in ended) == Decimal(expected["forfeited"])


@pytest.mark.django_db
@cases("credit_then_charge")
def test_credits_first_and_the_rest_is_owed(case: dict[str, Any]) -> None:
    asked, expected = case["inputs"], case["expected"]
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant, credit=asked["balance"])
    factories.make_meter(merchant, plan, tiers=[("0", "1")])
    connection = factories.make_subscription(plan, now=timezone.now()).connection
    charged = report(
        factories.make_key(merchant), connection, input_tokens=int(asked["charge"]) * 1_000_000
    )
    drawn = [Decimal(amount) for _, amount in charged.request.draws]
    assert drawn == [Decimal(expected["consumed"]), Decimal(expected["remainder"])]


@cases("anchor_sequence")
def test_anchors(case: dict[str, Any]) -> None:
    asked = case["inputs"]
    anchor = datetime.fromisoformat(asked["anchor"] + "T00:00:00+00:00")
    starts = [
        periods.cycle(anchor, asked["interval"], index, "UTC").start
        for index in range(int(asked["count"]))
    ]
    assert [f"{start:%Y-%m-%d}" for start in starts] == case["expected"]["dates"]


@cases("period_at")
def test_the_cycle_of_an_instant(case: dict[str, Any]) -> None:
    asked = case["inputs"]
    anchor, at = (datetime.fromisoformat(asked[name]) for name in ("anchor", "at"))
    index = periods.index_at(anchor, asked["interval"], "UTC", at)
    found = periods.cycle(anchor, asked["interval"], index, "UTC")
    assert found.start == datetime.fromisoformat(case["expected"]["start"])
    assert found.end == datetime.fromisoformat(case["expected"]["end"])


@cases("minor_units")
def test_minor_units(case: dict[str, Any]) -> None:
    currency = case["inputs"]["currency"]
    amount = money.floor_minor(Decimal(case["inputs"]["amount"]), currency)
    assert money.to_minor(Money(amount, currency)) == int(case["expected"]["minor"])


@pytest.mark.django_db
@cases("credit_draw")
def test_what_rolled_over_is_drawn_first(case: dict[str, Any]) -> None:
    asked, expected = case["inputs"], case["expected"]
    merchant = factories.make_merchant()
    old, new = asked["grants"]
    plan = factories.make_plan(merchant, price="0", credit=old["amount"])
    factories.make_meter(merchant, plan, tiers=[("0", "1")])
    connection = factories.make_subscription(plan, now=merchant.now()).connection
    plan.included_credit = Decimal(new["amount"])
    plan.save()
    clock.advance(merchant, to=clock.next_renewal(merchant))
    report(factories.make_key(merchant), connection, input_tokens=int(asked["debit"]) * 1_000_000)
    left = connection.grants.filter(is_spent=False).order_by("origin_at")
    assert [(lot.source, lot.remaining) for lot in left] == [
        ("rollover", Decimal(expected["remaining"]["rollover"])),
        ("cycle", Decimal(expected["remaining"]["monthly"])),
    ]


@pytest.mark.django_db
@cases("ledger_as_of")
def test_the_running_balance(case: dict[str, Any]) -> None:
    given, used = (entry[1] for entry in case["inputs"]["entries"][:2])
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant, credit=given, rollover_type="none")
    factories.make_meter(merchant, plan, tiers=[("0", "1")])
    subscription = factories.make_subscription(plan, now=merchant.now())
    report(
        factories.make_key(merchant),
        subscription.connection,
        input_tokens=-int(used) * 1_000_000,
    )
    from billing import subscriptions

    subscriptions.end(subscription, now=merchant.now())
    lines = LedgerEntry.objects.filter(connection=subscription.connection).order_by("seq")
    expected = case["expected"]["balance_at"].values()
    assert [line.balance_after for line in lines] == [Decimal(value) for value in expected]
