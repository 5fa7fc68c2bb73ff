"""Tiers by volume: every request pays the first tier's rate, and when the cycle is over what it
costs less at the rate of the tier reached is given back, once, whoever ends the cycle and how."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from billing import (
    clock,
    connections,
    credits,
    errors,
    forecast,
    ids,
    payments,
    prepared,
    renewals,
    sweep,
    upgrades,
)
from billing.models import Connection, CreditGrant, Event, LedgerEntry, Payment, Plan
from lava.demo.card_network.process import CardNetwork
from meters import batch, prices, pricing, usage, volume
from meters.gateway import store
from meters.gateway import sweep as sweep_of_calls
from meters.gateway.models import GatewayCall
from meters.models import Meter, MeterPosition, UsageRequest, VolumeSettlement
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db

MILLION = 1_000_000


def tiers(*pairs: tuple[int, str]) -> list[pricing.Tier]:
    return [pricing.Tier(start=Decimal(start), rate=Decimal(rate)) for start, rate in pairs]


class Shop(cn.Shop):
    """With a meter at 1 a million, 0.50 from 10 million, 0.20 from 100 million, by volume."""

    def __init__(self, **plan: Any) -> None:
        super().__init__(**plan)
        self.by_volume = publish(self, (0, "1"), (10 * MILLION, "0.5"), (100 * MILLION, "0.2"))


def publish(shop: cn.Shop, *pairs: tuple[int, str], **more: Any) -> Meter:
    """Another version of the shop's price, by volume unless `more` says otherwise."""
    terms = {"tier_mode": "volume", "tier_window": "cycle"} | more
    prices.publish(
        shop.meter,
        terms=prices.Terms(tiers=tiers(*pairs), **terms),
        actor="ana",
        now=shop.now,
    )
    return Meter.objects.get(pk=shop.meter.pk)


def given(connection: Connection) -> list[Decimal]:
    rows = CreditGrant.objects.filter(connection=connection, source="volume").order_by("pk")
    return [row.amount for row in rows]


def total(shop: cn.Shop, connection: Connection) -> Decimal:
    return credits.balance(connection, now=shop.now).total


def test_the_difference_is_given_back_when_the_cycle_is_over(card_network: CardNetwork) -> None:
    shop = Shop(rollover_type="none")
    connection = shop.subscribe()
    shop.use(connection, "a", "8")
    shop.use(connection, "b", "4")
    # While it runs each million costs 1, whatever came before.
    assert total(shop, connection) == Decimal(25 - 12)
    assert [row.charged for row in UsageRequest.objects.order_by("pk")] == [8, 4]

    shop.renew(connection)
    row = VolumeSettlement.objects.get()
    assert (row.total, row.charged, row.fee, row.amount) == (12 * MILLION, 12, 6, 6)
    # Given after the old cycle ended, so that it does not end with it.
    assert total(shop, connection) == Decimal(25 + 6)
    event = Event.objects.get(name="volume.settled")
    assert (event.data["amount"], event.data["rate"]) == ("6.0000000000", "0.5000000000")
    line = LedgerEntry.objects.get(grant__source="volume", kind="grant")
    assert line.grant is not None
    assert line.grant.reason == (
        "Chat, cycle 1: 12,000,000 tokens, so the rate is $0.50: $6.00 instead of $12.00"
    )
    shop.renew(connection)
    assert VolumeSettlement.objects.count() == 1


def free() -> tuple[Shop, Connection]:
    """A customer of a plan that costs nothing: no card has a part in it."""
    shop = Shop(price="0", when_depleted="block")
    return shop, factories.make_subscription(shop.plan, now=shop.now).connection


def test_a_count_on_the_boundary_is_still_in_the_lower_tier() -> None:
    shop, connection = free()
    shop.use(connection, "a", "10")
    shop.renew(connection)
    assert VolumeSettlement.objects.get().amount == 0 and given(connection) == []
    shop.use(connection, "b", "10.000001")
    shop.renew(connection)
    assert given(connection) == [Decimal("5.0000005")]


def test_what_is_owed_is_less_before_the_card_is_charged(card_network: CardNetwork) -> None:
    """The usage past credits that the cycle ends with is charged at the rate reached."""
    shop = Shop(overage_threshold=Decimal(1000))
    connection = shop.subscribe()
    shop.use(connection, "a", "60")
    connection.refresh_from_db()
    assert connection.debt == Decimal(35)
    shop.renew(connection)
    assert given(connection) == [Decimal(30)]
    charged = Payment.objects.get(purpose="overage", status="succeeded")
    assert charged.amount.amount == Decimal(5)
    connection.refresh_from_db()
    assert (connection.debt, total(shop, connection)) == (0, Decimal(25))


def test_a_cycle_in_which_nothing_was_counted_gives_nothing_back() -> None:
    """A request of no tokens has no slices; the audit after the story adds them up."""
    shop, connection = free()
    shop.use(connection, "a", "0")
    shop.renew(connection)
    assert VolumeSettlement.objects.get().amount == 0 and given(connection) == []


def test_settled_early_the_rest_is_given_at_the_end() -> None:
    shop, connection = free()
    subscription = connection.subscription
    shop.use(connection, "a", "12")
    for _ in range(2):
        volume.settle(subscription.pk, now=shop.now, early=True)
    shop.use(connection, "b", "2")
    assert volume.settle(subscription.pk, now=shop.now) == []
    shop.renew(connection)
    assert given(connection) == [Decimal(6), Decimal(1)]


def test_free_plans_that_renew_in_sets_are_settled_too() -> None:
    shop, connection = free()
    shop.use(connection, "a", "20")
    shop.renew(connection)
    assert given(connection) == [Decimal(10)]
    assert not MeterPosition.objects.filter(unsettled=True).exists()


def test_usage_that_comes_while_the_renewal_waits_for_its_card(card_network: CardNetwork) -> None:
    shop = Shop(rollover_type="none", when_depleted="block")
    connection = shop.subscribe()
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    shop.use(connection, "a", "12")
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end)
    assert given(connection) == [Decimal(6)]
    # Still of the old cycle: its rest is settled when that is over at last, and no more than that.
    shop.use(connection, "b", "2")
    cn.behave_as(card_network, connection, cn.GOOD)
    clock.advance(shop.merchant, to=end + timedelta(days=2))
    assert connection.subscription.cycle_index == 1
    assert given(connection) == [Decimal(6), Decimal(1)]
    assert [row.charged - row.fee for row in VolumeSettlement.objects.order_by("pk")] == [6, 7]


def test_while_a_renewal_is_declined_only_its_tries_settle(card_network: CardNetwork) -> None:
    """Else each look of a worker would make a grant of the few requests since the last."""
    shop = Shop(when_depleted="block")
    connection = shop.subscribe()
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    shop.use(connection, "a", "12")
    shop.renew(connection)
    for name in ("b", "c", "d"):
        shop.use(connection, name, "1")
        sweep.run(shop.merchant, now=shop.now)
    assert given(connection) == [Decimal(6)]
    clock.advance(shop.merchant, to=shop.now + timedelta(days=1))
    assert connection.subscription.status == "past_due"
    assert given(connection) == [Decimal(6), Decimal("1.5")]


def test_a_disabled_connection_is_settled_though_it_does_not_renew(
    card_network: CardNetwork,
) -> None:
    shop = Shop()
    connection = shop.subscribe()
    shop.use(connection, "a", "12")
    connections.set_enabled(connection, enabled=False, now=shop.now)
    shop.renew(connection)
    assert (connection.subscription.cycle_index, given(connection)) == (0, [Decimal(6)])


def test_an_upgrade_ends_the_cycle_and_settles_it(card_network: CardNetwork) -> None:
    shop = Shop()
    connection = shop.subscribe()
    pro = factories.make_plan(shop.merchant, price="100", credit="120", name="Pro")
    prices.attach(shop.meter, pro)
    shop.use(connection, "a", "20")
    upgrades.switch(connection.subscription, plan=pro, now=shop.now)
    assert given(connection) == [Decimal(10)]
    assert connection.subscription.cycle_index == 1
    # The next cycle counts from nothing.
    shop.use(connection, "b", "5")
    shop.renew(connection)
    assert given(connection) == [Decimal(10)]


def make_pro(shop: Shop) -> Plan:
    pro = factories.make_plan(shop.merchant, price="100", credit="120", name="Pro")
    prices.attach(shop.meter, pro)
    return pro


def test_an_upgrade_that_is_refused_settles_and_charges_nothing(card_network: CardNetwork) -> None:
    shop = Shop()
    connection = shop.subscribe()
    theirs = factories.make_plan(factories.make_merchant(), price="100")
    shop.use(connection, "a", "60")
    with pytest.raises(errors.NotFound):
        upgrades.switch(connection.subscription, plan=theirs, now=shop.now)
    assert given(connection) == []
    assert not Payment.objects.filter(purpose="overage").exists()


def test_an_upgrade_that_is_declined_ends_no_cycle(card_network: CardNetwork) -> None:
    """Given then, it would end with the running cycle, on a plan whose bundles do."""
    shop = Shop(rollover_type="none", bundle_rollover_type="none")
    connection = shop.subscribe()
    shop.use(connection, "a", "20")
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    made = upgrades.switch(connection.subscription, plan=make_pro(shop), now=shop.now)
    assert made.payment is not None and made.payment.status == "failed"
    assert given(connection) == []
    cn.behave_as(card_network, connection, cn.GOOD)
    shop.renew(connection)
    assert (given(connection), total(shop, connection)) == ([Decimal(10)], Decimal(25 + 10))


def test_an_upgrade_charges_of_what_is_owed_only_what_stays_owed(
    card_network: CardNetwork,
) -> None:
    shop = Shop(overage_threshold=Decimal(1000))
    connection = shop.subscribe()
    shop.use(connection, "a", "60")
    upgrades.switch(connection.subscription, plan=make_pro(shop), now=shop.now)
    assert Payment.objects.get(purpose="overage").amount.amount == Decimal(5)
    assert given(connection) == [Decimal(30)]
    connection.refresh_from_db()
    assert (connection.debt, total(shop, connection)) == (0, Decimal(120))


def test_an_upgrade_paid_at_the_page_settles_what_was_used_until_then(
    card_network: CardNetwork,
) -> None:
    shop = Shop()
    connection = shop.subscribe()
    shop.use(connection, "a", "12")
    payment = upgrades.begin(connection.subscription, plan=make_pro(shop), key="k", now=shop.now)
    assert payment is not None
    payments.present(payment, now=shop.now)
    shop.use(connection, "b", "8")
    assert given(connection) == []
    payments.confirm(payment, card_id=connection.card.card_id, now=shop.now)
    assert given(connection) == [Decimal(10)]


def test_a_plan_that_is_cancelled_is_settled_when_it_ends(card_network: CardNetwork) -> None:
    from billing import subscriptions

    shop = Shop()
    connection = shop.subscribe()
    shop.use(connection, "a", "20")
    subscriptions.cancel(connection.subscription, now=shop.now)
    clock.advance(shop.merchant, to=clock.next_renewal(shop.merchant))
    assert connection.subscription is None
    assert given(connection) == [Decimal(10)]
    assert total(shop, connection) == Decimal(10)


def test_who_is_deleted_is_given_nothing_more(card_network: CardNetwork) -> None:
    shop = Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    shop.use(connection, "a", "20")
    connections.delete(connection, now=shop.now)
    clock.advance(shop.merchant, to=end + timedelta(days=1))
    assert given(connection) == []
    assert not MeterPosition.objects.filter(unsettled=True).exists()


def test_each_version_of_a_price_is_settled_at_its_own_rates(card_network: CardNetwork) -> None:
    """The tier is that of all the cycle counted; what was charged by a graduated version stays."""
    shop = cn.Shop()
    connection = shop.subscribe()
    publish(shop, (0, "1"), tier_mode="graduated")
    shop.use(connection, "graduated", "6")
    publish(shop, (0, "2"), (10 * MILLION, "1"))
    shop.use(connection, "first", "3")
    publish(shop, (0, "4"), (10 * MILLION, "1"))
    shop.use(connection, "second", "3")
    assert [row.charged for row in UsageRequest.objects.order_by("pk")] == [6, 6, 12]
    shop.renew(connection)
    rows = VolumeSettlement.objects.order_by("price__version")
    assert [(row.charged, row.fee, row.amount) for row in rows] == [(6, 3, 3), (12, 3, 9)]
    assert {row.total for row in rows} == {Decimal(12 * MILLION)}


def test_what_was_taken_back_counts_no_more_and_nothing_is_taken_back_after(
    card_network: CardNetwork,
) -> None:
    shop = Shop()
    connection = shop.subscribe()
    shop.use(connection, "a", "12")
    shop.use(connection, "b", "4")
    usage.void(UsageRequest.objects.get(request_id="b"), reason="double", actor="ana", now=shop.now)
    shop.renew(connection)
    assert given(connection) == [Decimal(6)]
    with pytest.raises(errors.Conflict) as refusal:
        usage.void(
            UsageRequest.objects.get(request_id="a"), reason="late", actor="ana", now=shop.now
        )
    assert refusal.value.code == "cycle_settled"
    assert total(shop, connection) == Decimal(25 - 12 + 6 + 25)


def test_what_made_the_tier_is_not_taken_back_after_whatever_its_version(
    card_network: CardNetwork,
) -> None:
    shop = Shop(rollover_type="none")
    connection = shop.subscribe()
    shop.use(connection, "a", "8")
    publish(shop, (0, "1"), tier_mode="graduated")
    shop.use(connection, "b", "4")
    shop.renew(connection)
    assert given(connection) == [Decimal(4)]
    for name in "ab":
        with pytest.raises(errors.Conflict) as refusal:
            usage.void(
                UsageRequest.objects.get(request_id=name), reason="late", actor="ana", now=shop.now
            )
        assert refusal.value.code == "cycle_settled"
    assert total(shop, connection) == Decimal(25 + 4)


def test_allowance_and_packages_come_before_the_tiers(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    publish(
        shop,
        (0, "2"),
        (5 * MILLION, "1"),
        free_allowance=Decimal(MILLION),
        package_size=Decimal(MILLION),
    )
    connection = shop.subscribe()
    shop.use(connection, "a", "5.5")
    shop.use(connection, "b", "1")
    # One million is free; of the other 5.5 six packages were begun.
    assert [row.charged for row in UsageRequest.objects.order_by("pk")] == [10, 2]
    shop.renew(connection)
    row = VolumeSettlement.objects.get()
    assert (row.billed, row.charged, row.fee, row.amount) == (6 * MILLION, 12, 6, 6)


def test_what_the_running_cycle_would_come_to(card_network: CardNetwork) -> None:
    shop = Shop()
    connection = shop.subscribe()
    shop.use(connection, "a", "12")
    (outcome,) = volume.outcomes([connection.subscription.pk])
    assert (outcome.tier, outcome.charged, outcome.fee, outcome.due) == (1, 12, 6, 6)
    assert given(connection) == []
    # The clock says it before it moves.
    end = connection.subscription.cycle_end
    told = forecast.ahead(shop.merchant, until=end, now=shop.now)
    assert [(row.what, row.granted, row.asked) for row in told.rows] == [
        ("volume", 6, 0), ("renewal", 25, 25),
    ]  # fmt: skip


def test_a_settlement_reads_requests_from_the_first_of_its_cycle_on() -> None:
    shop, connection = free()
    for number in range(3):
        shop.use(connection, f"r{number}", "12")
        shop.renew(connection)
    # Months ahead of real time by now.
    assert given(connection) == [6, 6, 6]
    rows = UsageRequest.objects.order_by("pk").values_list("pk", flat=True)
    places = MeterPosition.objects.order_by("window").values_list("first_request", flat=True)
    assert list(rows) == list(places)
    shop.use(connection, "a", "6")
    shop.use(connection, "b", "6")
    with transaction.atomic():
        second = UsageRequest.objects.get(request_id="b").pk
        MeterPosition.objects.filter(window=3).update(first_request=second)
        (outcome,) = volume.outcomes([connection.subscription.pk])
        transaction.set_rollback(True)
    assert outcome.billed == 6 * MILLION


def test_a_first_request_that_nobody_noted_is_looked_for_everywhere() -> None:
    shop, connection = free()
    shop.use(connection, "a", "6")
    MeterPosition.objects.update(first_request=None)
    shop.use(connection, "b", "6")
    assert MeterPosition.objects.get().first_request is None
    (outcome,) = volume.outcomes([connection.subscription.pk])
    assert outcome.billed == 12 * MILLION


@pytest.mark.parametrize("interval", ["month", "day"])
def test_a_call_that_began_cycles_before_it_was_charged_counts_where_it_is(interval: str) -> None:
    """The power was away over the end of a cycle: its key is of then, its charge of now."""
    shop = Shop(price="0", credit="1000", when_depleted="block", billing_interval=interval)
    now = timezone.now()
    began = now - timedelta(days=31 if interval == "month" else 3, hours=6)
    connection = factories.make_subscription(shop.plan, now=began).connection
    at = now - timedelta(days=3)
    call = ids.new(sandbox=True, at=at)
    (outcome, *_) = store.HOLD.row(
        prepared.params(
            call, shop.merchant.pk, None, connection.pk, shop.meter.pk, at, "openai", False,
            "POST", "/v1/chat/completions", "gpt-4o-mini", True, False, True, 6 * MILLION, 0, 0,
            Decimal(0), Decimal("0.001"), Decimal("0.0005"), None, False, timedelta(hours=1),
            "{}", None, None, False,
        )
    )  # fmt: skip
    assert outcome == "held"
    GatewayCall.objects.filter(pk=call).update(seen_bytes=100, seen_at=now - timedelta(minutes=2))
    renewals.renew_set(now, merchant=shop.merchant)
    sweep_of_calls.settle(call, now=now)
    assert UsageRequest.objects.get(pk=call).cycle_index >= 1
    shop.use(connection, "b", "6")
    assert volume.expected([connection.subscription.pk]) == {connection.subscription.pk: 6}
    clock.advance(shop.merchant, to=connection.subscription.cycle_end)
    assert given(connection) == [6]


def test_a_batch_notes_its_first_request() -> None:
    shop, connection = free()
    told = [
        usage.Report(
            request_id=f"b{number}", connection=connection.pk, meter_slug="chat", meter=None,
            usage=pricing.Usage(input_tokens=1000), model="", metadata={}, timestamp=None,
            enforce=False,
        )
        for number in range(3)
    ]  # fmt: skip
    for _ in range(2):
        batch.report(factories.make_key(shop.merchant), sandbox=True, told=told)
        told = [dataclasses.replace(row, request_id=f"{row.request_id} again") for row in told]
    rows = UsageRequest.objects.order_by("pk").values_list("pk", flat=True)
    assert len(rows) == 6 and MeterPosition.objects.get().first_request == rows[0]


def test_minutes_are_told_as_minutes() -> None:
    """They are counted in seconds, and their rate is for a minute."""
    from tests.meters.test_charge import report

    shop, connection = free()
    factories.make_meter(
        shop.merchant, shop.plan, slug="calls", unit="minutes", tiers=[("0", "0.02")],
        tier_window="cycle", volume_starts=[Decimal(100)], volume_rates=[Decimal("0.01")],
    )  # fmt: skip
    report(shop.key, connection, "c", meter_slug="calls", input_seconds=Decimal(120_030))
    shop.renew(connection)
    grant = CreditGrant.objects.get(source="volume")
    assert grant.reason == (
        "Calls, cycle 1: 2,000.50 minutes, so the rate is $0.01: $20.005 instead of $40.01"
    )


@pytest.mark.django_db(transaction=True)
def test_charges_settlements_and_a_renewal_at_once_lose_nothing(card_network: CardNetwork) -> None:
    shop = Shop(when_depleted="block")
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    subscription = connection.subscription.pk
    shop.use(connection, "first", "12")
    clock.advance(shop.merchant, to=end, run=False)
    numbers = iter(range(12))

    def act() -> Any:
        number = next(numbers)
        if number % 3 == 0:
            return volume.settle(subscription, now=end)
        if number == 1:
            return renewals.renew(subscription, now=end)
        return shop.use(connection, f"u{number}", "1")

    answers = cn.at_once(12, act)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    sweep.run(shop.merchant, now=shop.now)
    counted = [Decimal(12), Decimal(0)]
    for row in UsageRequest.objects.exclude(request_id="first"):
        counted[row.cycle_index] += row.charged
    assert sum(counted) == 12 + 7
    # The old cycle is past its tenth million whatever fell into it: half of it came back.
    assert sum(given(connection)) == counted[0] / 2


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_give_once(card_network: CardNetwork) -> None:
    shop = Shop()
    connection = shop.subscribe()
    shop.use(connection, "a", "12")
    subscription = connection.subscription
    after = subscription.cycle_end
    answers = cn.at_once(20, lambda: volume.settle(subscription.pk, now=after))
    assert sum(len(answer) for answer in answers if isinstance(answer, list)) == 1, answers
    assert given(connection) == [Decimal(6)]


@pytest.mark.parametrize(
    ("pairs", "more", "param"),
    [
        (((0, "1"),), {}, "tiers"),
        (((0, "1"), (10, "2")), {}, "tiers[1].rate"),
        (((0, "1"), (10, "0.5")), {"rate_type": "percentage"}, "tier_mode"),
        (((0, "1"), (10, "0.5")), {"tier_window": "lifetime"}, "tier_window"),
        (((0, "1"), (10, "0.5")), {"tier_mode": "stairs"}, "tier_mode"),
    ],
)
def test_what_cannot_be_settled_is_refused(
    pairs: tuple[tuple[int, str], ...], more: dict[str, Any], param: str
) -> None:
    terms = {"tier_mode": "volume", "tier_window": "cycle"} | more
    with pytest.raises(errors.Invalid) as refusal:
        prices.validate(prices.Terms(tiers=tiers(*pairs), **terms))
    assert refusal.value.param == param


def test_a_flat_amount_is_refused() -> None:
    two = [
        pricing.Tier(start=Decimal(0), rate=Decimal(2)),
        pricing.Tier(start=Decimal(9), rate=Decimal(1), flat=Decimal(5)),
    ]
    with pytest.raises(errors.Invalid) as refusal:
        prices.validate(prices.Terms(tiers=two, tier_mode="volume", tier_window="cycle"))
    assert refusal.value.param == "tiers[1].flat"
