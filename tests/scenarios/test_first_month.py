"""A month of one subscriber: paid, used, past the credits, charged once, renewed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing import clock, credits, overage, payments, renewals
from billing.models import LedgerEntry, Payment
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


def test_the_first_subscription_is_paid_and_gives_its_credits(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    assert credits.balance(connection, now=shop.now).total == Decimal(25)
    payment = Payment.objects.get()
    assert (payment.amount.amount, payment.status) == (Decimal(25), "succeeded")
    assert payment.receipt_number.endswith("-3001")
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant) == [(payment.public_id, 2500, "USD")]


def test_a_month_of_usage_past_the_credits_is_explained_to_the_cent(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "r1", "24")
    shop.use(connection, "r2", "12")
    paid = overage.collect(connection.pk, now=shop.now)
    assert paid is not None and paid.amount.amount == Decimal(11)
    shop.use(connection, "r3", "1.5")
    clock.advance(shop.merchant, to=clock.next_renewal(shop.merchant))
    connection.refresh_from_db()
    assert (connection.debt, connection.balance) == (Decimal(0), Decimal(25))
    lines = LedgerEntry.objects.filter(connection=connection).order_by("seq")
    assert [(line.kind, line.amount) for line in lines] == [
        ("grant", Decimal(25)),
        ("usage", Decimal(-24)),
        ("usage", Decimal(-1)),
        ("usage", Decimal(-11)),
        ("overage_charged", Decimal(11)),
        ("usage", Decimal("-1.5")),
        ("overage_charged", Decimal("1.5")),
        ("grant", Decimal(25)),
    ]
    assert [minor for _, minor, _ in cn.taken(shop.merchant)].count(2500) == 2
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


@pytest.mark.parametrize(("rollover", "left"), [("full", 35), ("none", 25)])
def test_twenty_five_with_fifteen_used(card_network: CardNetwork, rollover: str, left: int) -> None:
    shop = cn.Shop(rollover_type=rollover)
    connection = shop.subscribe()
    shop.use(connection, "r1", "15")
    clock.advance(shop.merchant, to=clock.next_renewal(shop.merchant))
    assert credits.balance(connection, now=shop.now).total == Decimal(left)
    expired = LedgerEntry.objects.filter(connection=connection, kind="expire")
    assert [line.amount for line in expired] == ([] if rollover == "full" else [Decimal(-10)])


def test_twenty_five_and_a_bundle_of_ten_with_thirty_used_leave_five_and_twenty_five(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    assert cn.buy(connection, bundle, now=shop.now).status == "succeeded"
    shop.use(connection, "r1", "30")
    clock.advance(shop.merchant, to=clock.next_renewal(shop.merchant))
    left = credits.balance(connection, now=shop.now)
    assert (left.bundle, left.cycle) == (Decimal(5), Decimal(25))


def test_three_months_asleep_renew_once_and_record_the_skipped(card_network: CardNetwork) -> None:
    shop = cn.Shop(rollover_type="none")
    connection = shop.subscribe()
    began = connection.subscription.cycle_start
    clock.advance(shop.merchant, to=shop.now + timedelta(days=100), run=False)
    for _ in range(3):
        renewals.renew(connection.subscription.pk, now=shop.now)
    cycles = connection.subscription.cycles.order_by("index")
    assert [cycle.state for cycle in cycles] == ["granted", "skipped", "skipped", "granted"]
    assert cycles[0].start == began
    assert len(cn.taken(shop.merchant)) == 2
    assert credits.balance(connection, now=shop.now).total == Decimal(25)


def test_a_free_plan_renews_without_a_card(card_network: CardNetwork) -> None:
    shop = cn.Shop(price="0", credit="5", when_depleted="block")
    connection = factories.make_subscription(shop.plan, now=shop.now).connection
    for _ in range(2):
        clock.advance(shop.merchant, to=clock.next_renewal(shop.merchant))
    assert credits.balance(connection, now=shop.now).total == Decimal(15)
    assert cn.taken(shop.merchant) == []


def test_a_bundle_on_a_blocking_plan_pays_the_debt_first(card_network: CardNetwork) -> None:
    shop = cn.Shop(when_depleted="block")
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    shop.use(connection, "r1", "28.5")
    cn.buy(connection, bundle, now=shop.now)
    connection.refresh_from_db()
    assert (connection.debt, connection.balance) == (Decimal(0), Decimal("6.5"))
    last = LedgerEntry.objects.filter(connection=connection).order_by("-seq")[:3]
    assert [(line.kind, line.amount) for line in last] == [
        ("debt", Decimal("3.5")),
        ("debt", Decimal("-3.5")),
        ("grant", Decimal(10)),
    ]


def test_a_bundle_bought_while_the_card_is_charged_leaves_that_debt_to_the_card(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    shop.use(connection, "r1", "37")
    cn.fault(card_network, "drop", times=1)
    open_charge = overage.collect(connection.pk, now=shop.now)
    assert open_charge is not None and open_charge.status == "unknown"
    cn.buy(connection, bundle, now=shop.now)
    connection.refresh_from_db()
    assert (connection.debt, connection.collecting) == (Decimal(12), Decimal(12))
    assert credits.balance(connection, now=shop.now).bundle == Decimal(10)
    payments.refresh(open_charge, now=shop.now)
    connection.refresh_from_db()
    assert (connection.debt, connection.balance) == (Decimal(0), Decimal(10))
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


def test_parts_of_a_cent_and_of_the_least_charge_are_carried(card_network: CardNetwork) -> None:
    shop = cn.Shop(overage_threshold=Decimal("0.2"))
    connection = shop.subscribe()
    shop.use(connection, "r1", "25.300004")
    assert overage.collect(connection.pk, now=shop.now) is None
    shop.use(connection, "r2", "0.217")
    paid = overage.collect(connection.pk, now=shop.now)
    assert paid is not None and paid.amount.amount == Decimal("0.51")
    connection.refresh_from_db()
    assert connection.debt == Decimal("0.007004")
