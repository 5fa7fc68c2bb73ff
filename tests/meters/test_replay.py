"""A replayed draft against the charge itself and against the pure pricing code."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import errors
from meters import prices, pricing, replay
from meters.models import UsageRequest
from tests import factories
from tests.meters.test_charge import Setting, report

pytestmark = pytest.mark.django_db

TIERS = (pricing.Tier(Decimal(0), Decimal("2.5")), pricing.Tier(Decimal(7_000_000), Decimal("4")))


def use(setting: Setting, *amounts: tuple[int, int]) -> list[Any]:
    """Requests of two customers in turn: (input, output) tokens each."""
    now = setting.merchant.now()
    people = [factories.make_subscription(setting.plan, now=now).connection for _ in range(2)]
    for number, (sent, made) in enumerate(amounts):
        report(
            setting.key, people[number % 2], f"use-{number}", input_tokens=sent,
            output_tokens=made, provider_cost=Decimal("0.125"),
        )  # fmt: skip
    return people


AMOUNTS = [(1, 2), (3_000_000, 1_000_000), (5_000_000, 0), (4_000_001, 3), (0, 0), (2, 9_000_000)]


def run(setting: Setting, terms: prices.Terms, *, since: Any = None) -> dict[Any, replay.Bill]:
    now = setting.merchant.now() + timedelta(seconds=1)
    setting.meter.refresh_from_db()
    found = replay.replay(
        setting.meter, terms=terms, since=since or now - timedelta(days=30), until=now
    )
    return {bill.connection_id: bill for bill in found}


def by_hand(terms: prices.Terms) -> dict[Any, Decimal]:
    """The same by the pure code, request by request in the order they came."""
    position: dict[Any, Decimal] = defaultdict(Decimal)
    total: dict[Any, Decimal] = defaultdict(Decimal)
    for row in UsageRequest.objects.order_by("pk"):
        usage = pricing.Usage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            provider_cost=row.provider_cost,
        )
        fee = pricing.price(terms.price, usage, before=position[row.connection_id])
        position[row.connection_id] += fee.quantity
        total[row.connection_id] += fee.amount
        if terms.base_cost_payer == "wallet":
            total[row.connection_id] += row.provider_cost or 0
    return total


def test_the_price_in_force_replays_to_what_was_charged() -> None:
    setting = Setting()
    use(setting, *AMOUNTS)
    setting.meter.refresh_from_db()
    assert setting.meter.price is not None
    for bill in run(setting, prices.of(setting.meter.price)).values():
        rows = UsageRequest.objects.filter(connection=bill.connection_id)
        assert bill.draft == bill.charged == sum(row.charged for row in rows)
        assert (bill.count, bill.unpriced) == (rows.count(), 0)
        assert bill.cost == rows.count() * Decimal("0.125")


@pytest.mark.parametrize(
    "terms",
    [
        prices.Terms(tiers=TIERS),
        prices.Terms(tiers=TIERS, token_basis="output"),
        prices.Terms(tiers=TIERS, base_cost_payer="wallet"),
        prices.Terms(tiers=TIERS, tier_window="cycle"),
        prices.Terms(tiers=TIERS, rate_type="percentage"),
        prices.Terms(tiers=TIERS[:1], rate_type="percentage", base_cost_payer="wallet"),
        prices.Terms(tiers=TIERS, free_allowance=Decimal(1_000_000)),
        prices.Terms(tiers=TIERS, package_size=Decimal(1_000_000), package_rounding="down"),
    ],
    ids=lambda terms: (
        f"{terms.rate_type} {terms.token_basis} {terms.tier_window} "
        f"{terms.free_allowance} {terms.package_size}"
    ),
)
def test_a_draft_is_what_the_pure_code_says(terms: prices.Terms) -> None:
    setting = Setting()
    use(setting, *AMOUNTS)
    hand = by_hand(terms)
    found = run(setting, terms)
    assert {key: bill.draft for key, bill in found.items()} == hand
    assert any(bill.change for bill in found.values())


FALLING = (pricing.Tier(Decimal(0), Decimal(4)), pricing.Tier(Decimal(7_000_000), Decimal("2.5")))


@pytest.mark.parametrize("basis", ["input+output", "output"])
@pytest.mark.parametrize("package", [0, 1_000_000])
def test_a_draft_by_volume_is_at_the_rate_its_cycles_reach(basis: str, package: int) -> None:
    setting = Setting()
    use(setting, *AMOUNTS)
    terms = prices.Terms(
        tiers=FALLING, tier_mode="volume", tier_window="cycle", token_basis=basis,
        package_size=Decimal(package),
    )  # fmt: skip
    totals: dict[Any, Decimal] = defaultdict(Decimal)
    for row in UsageRequest.objects.order_by("pk"):
        spent = pricing.Usage(input_tokens=row.input_tokens, output_tokens=row.output_tokens)
        totals[row.connection_id] += pricing.quantity(terms.price, spent)
    expected = {
        key: pricing.volume_fee(
            terms.price, billed=pricing.billable(terms.price, total), total=total
        )
        for key, total in totals.items()
    }
    reached = {pricing.volume_tier(terms.price, total) for total in totals.values()}
    assert reached == {0, 1} or basis == "input+output"
    found = {key: bill.draft for key, bill in run(setting, terms).items()}
    assert found.keys() == expected.keys()
    for key, draft in found.items():
        assert abs(draft - expected[key]) <= Decimal("1e-9")


def test_what_was_charged_by_volume_is_what_it_comes_to() -> None:
    setting = Setting()
    terms = prices.Terms(tiers=FALLING, tier_mode="volume", tier_window="cycle")
    prices.publish(setting.meter, terms=terms, actor="ana", now=setting.merchant.now())
    use(setting, *AMOUNTS)
    for draft in (terms, prices.Terms(tiers=FALLING[:1])):
        for bill in run(setting, draft).values():
            live = sum(
                row.charged for row in UsageRequest.objects.filter(connection=bill.connection_id)
            )
            # Past the seventh million all of it is at 2.5 in place of 4.
            reached = live > 28
            assert bill.charged == (live * Decimal("2.5") / 4 if reached else live)
            assert bill.draft == (bill.charged if draft is terms else live)


def test_what_counted_for_ever_reaches_no_tier_of_a_cycle() -> None:
    setting = Setting()
    person, _ = use(setting, (6_000_000, 0))
    terms = prices.Terms(tiers=FALLING, tier_mode="volume", tier_window="cycle")
    prices.publish(setting.meter, terms=terms, actor="ana", now=setting.merchant.now())
    report(setting.key, person, "by-volume", input_tokens=5_000_000)
    live = sum(row.charged for row in UsageRequest.objects.all())
    assert run(setting, prices.Terms(tiers=FALLING[:1]))[person.pk].charged == live


def test_usage_before_the_window_counts_for_the_tiers_and_not_for_the_bill() -> None:
    setting = Setting()
    (person, _) = use(setting, (8_000_000, 0))
    since = setting.merchant.now()
    report(setting.key, person, "later", input_tokens=1_000_000)
    for terms in (prices.Terms(tiers=TIERS), prices.Terms(tiers=TIERS, token_basis="output")):
        bill = run(setting, terms, since=since)[person.pk]
        assert bill.count == 1
    (whole,) = run(setting, prices.Terms(tiers=TIERS), since=since).values()
    # All of it stands past the seventh million.
    assert whole.draft == Decimal(4)


def test_a_request_without_a_cost_keeps_its_charge_under_a_share_of_cost() -> None:
    setting = Setting()
    person = factories.make_subscription(setting.plan, now=setting.merchant.now()).connection
    charged = report(setting.key, person, "no-cost", input_tokens=1_000_000).request.charged
    bill = run(setting, prices.Terms(tiers=TIERS[:1], rate_type="percentage"))[person.pk]
    assert (bill.draft, bill.unpriced) == (charged, 1)


def test_another_merchants_usage_is_not_replayed() -> None:
    setting, other = Setting(), Setting()
    use(other, *AMOUNTS)
    assert run(setting, prices.Terms(tiers=TIERS)) == {}


def test_a_draft_that_could_not_be_published_is_refused() -> None:
    setting = Setting()
    with pytest.raises(errors.Invalid):
        run(setting, prices.Terms(tiers=[pricing.Tier(Decimal(5), Decimal(1))]))
