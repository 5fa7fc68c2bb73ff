"""Automatic top-ups: one purchase for a shortfall, within the cap, whoever looks how often."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import clock, connections, credits, errors, overage, payments, plans, sweep, topups
from billing.models import Connection, CreditBundle, Event, OutboxMessage, Payment, Subscription
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


class Topped:
    """A subscriber of a plan of 25 whose credits are topped up with bundles of 10."""

    def __init__(
        self,
        *,
        threshold: str = "0",
        cap: str | None = None,
        shop: cn.Shop | None = None,
        **plan: Any,
    ) -> None:
        self.shop = shop or cn.Shop(**plan)
        self.bundle: CreditBundle = factories.make_bundle(self.shop.plan)
        self.connection: Connection = self.shop.subscribe()
        customer = self.connection.customer
        customer.email = "kim@customer.example"
        customer.save()
        topups.configure(
            self.connection.subscription,
            bundle=self.bundle,
            threshold=Decimal(threshold),
            monthly_cap=None if cap is None else Decimal(cap),
            now=self.shop.now,
        )

    def look(self) -> Payment | None:
        return topups.top_up(self.connection.pk, now=self.shop.now)

    @property
    def rows(self) -> list[tuple[str, int]]:
        found = Payment.objects.filter(purpose="top_up").order_by("pk")
        return [(row.status, row.quantity) for row in found]

    @property
    def balance(self) -> Decimal:
        return credits.balance(self.connection, now=self.shop.now).total


@pytest.mark.parametrize("mode", ["overage", "block"])
def test_a_shortfall_of_45_buys_five_bundles_in_one_charge(
    card_network: CardNetwork, mode: str
) -> None:
    it = Topped(when_depleted=mode)
    it.shop.use(it.connection, "r1", "70")
    paid = it.look()
    assert paid is not None and (paid.status, paid.quantity) == ("succeeded", 5)
    assert paid.amount.amount == Decimal(50)
    assert it.balance == Decimal(5)
    assert it.look() is None
    assert cn.taken(it.shop.merchant) == cn.ours(it.shop.merchant)


def test_nothing_is_bought_while_enough_is_there(card_network: CardNetwork) -> None:
    it = Topped(threshold="5")
    it.shop.use(it.connection, "r1", "20")
    assert it.look() is None
    it.shop.use(it.connection, "r2", "0.000001")
    assert it.look() is not None
    assert it.rows == [("succeeded", 1)]


def test_credits_that_are_just_used_up_are_topped_up(card_network: CardNetwork) -> None:
    it = Topped(when_depleted="block")
    it.shop.use(it.connection, "r1", "25")
    it.look()
    assert (it.rows, it.balance) == ([("succeeded", 1)], Decimal(10))


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_buy_once(card_network: CardNetwork) -> None:
    it = Topped()
    it.shop.use(it.connection, "r1", "70")
    now = it.shop.now
    answers = cn.at_once(20, lambda: topups.top_up(it.connection.pk, now=now))
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert it.rows == [("succeeded", 5)]
    assert cn.taken(it.shop.merchant) == cn.ours(it.shop.merchant)


def test_while_one_is_pending_no_other_is_bought_and_overage_waits(
    card_network: CardNetwork,
) -> None:
    it = Topped()
    it.shop.use(it.connection, "r1", "70")
    cn.fault(card_network, "drop", times=1)
    first = it.look()
    assert first is not None and first.status == "unknown"
    it.shop.use(it.connection, "r2", "20")
    assert it.look() is None
    assert overage.collect(it.connection.pk, now=it.shop.now) is None
    assert overage.collect(it.connection.pk, now=it.shop.now, cycle_ends=True) is None
    assert payments.refresh(first, now=it.shop.now).status == "succeeded"
    # 90 used of 25 + 50: the next look buys what is missing still.
    assert it.balance == Decimal(-15)
    it.look()
    assert it.rows == [("succeeded", 5), ("succeeded", 2)]
    assert cn.taken(it.shop.merchant) == cn.ours(it.shop.merchant)


def test_a_top_up_and_the_plans_credits_leave_each_other_alone(card_network: CardNetwork) -> None:
    it = Topped(rollover_type="none", threshold="30")
    it.look()
    balance = credits.balance(it.connection, now=it.shop.now)
    assert (balance.cycle, balance.bundle) == (Decimal(25), Decimal(10))
    it.shop.use(it.connection, "r1", "5")
    it.shop.renew(it.connection)
    balance = credits.balance(it.connection, now=it.shop.now)
    assert (balance.cycle, balance.bundle) == (Decimal(25), Decimal(10))


def test_at_the_cap_the_customer_is_told_once_and_nothing_is_charged(
    card_network: CardNetwork,
) -> None:
    it = Topped(cap="25", when_depleted="block")
    it.shop.use(it.connection, "r1", "70")
    it.look()
    assert it.rows == [("succeeded", 2)]
    for _ in range(3):
        assert it.look() is None
    assert it.rows == [("succeeded", 2)]
    assert Event.objects.filter(name="topup.capped").count() == 1
    capped = OutboxMessage.objects.filter(subject__contains="reached its limit")
    assert [mail.to for mail in capped] == ["kim@customer.example"]
    assert "$25.00 a month" in capped[0].body


def test_the_next_month_buys_again_in_the_merchants_zone(card_network: CardNetwork) -> None:
    shop = cn.Shop(zone="Asia/Kolkata", when_depleted="block", billing_interval="year")
    it = Topped(cap="10", shop=shop)
    it.shop.use(it.connection, "r1", "50")
    it.look()
    it.look()
    until = it.connection.subscription.top_up_next_attempt_at
    assert until is not None and (until.hour, until.minute) == (18, 30)
    clock.advance(it.shop.merchant, to=until - timedelta(seconds=1))
    assert it.rows == [("succeeded", 1)]
    clock.advance(it.shop.merchant, to=until)
    assert it.rows == [("succeeded", 1), ("succeeded", 1)]


def test_raising_the_cap_buys_at_the_next_look(card_network: CardNetwork) -> None:
    it = Topped(cap="10")
    it.shop.use(it.connection, "r1", "70")
    it.look()
    assert it.look() is None
    topups.configure(
        it.connection.subscription, bundle=it.bundle, monthly_cap=Decimal(100), now=it.shop.now
    )
    it.look()
    assert it.rows == [("succeeded", 1), ("succeeded", 4)]


def test_declined_it_waits_for_its_days_and_the_overage_is_collected(
    card_network: CardNetwork,
) -> None:
    it = Topped()
    cn.behave_as(card_network, it.connection, cn.DECLINES_LATER)
    it.shop.use(it.connection, "r1", "37")
    for _ in range(3):
        it.look()
    assert it.rows == [("failed", 1 + 1)]
    subscription = Subscription.objects.get()
    assert subscription.top_up_next_attempt_at is not None
    told = OutboxMessage.objects.filter(subject__contains="could not charge")
    assert told.count() == 1
    cn.behave_as(card_network, it.connection, cn.GOOD)
    collected = overage.collect(it.connection.pk, now=it.shop.now)
    assert collected is not None and collected.amount.amount == Decimal(12)
    clock.advance(it.shop.merchant, to=subscription.top_up_next_attempt_at + timedelta(minutes=1))
    assert it.balance == Decimal(10)
    assert cn.taken(it.shop.merchant) == cn.ours(it.shop.merchant)


def test_retried_after_a_failed_first_try_it_is_charged_and_once(card_network: CardNetwork) -> None:
    it = Topped()
    it.shop.use(it.connection, "r1", "30")
    cn.fault(card_network, "drop_before", times=1)
    first = it.look()
    assert first is not None and first.status == "unknown"
    for _ in range(3):
        assert payments.refresh(first, now=it.shop.now).status == "succeeded"
    assert it.rows == [("succeeded", 1)]
    assert len(cn.taken(it.shop.merchant)) == 2


def test_the_sweep_finds_what_a_lost_message_left(card_network: CardNetwork) -> None:
    it = Topped()
    real = it.shop.now - it.shop.merchant.clock_offset
    assert sweep.top_ups_due(real, it.shop.merchant) == []
    it.shop.use(it.connection, "r1", "37")
    assert sweep.top_ups_due(real, it.shop.merchant) == [it.connection.pk]
    assert sweep.overage_due(real, it.shop.merchant) == []
    sweep.run(it.shop.merchant, now=it.shop.now)
    assert it.rows == [("succeeded", 2)]
    assert sweep.top_ups_due(real, it.shop.merchant) == []


def test_a_charge_that_falls_below_the_threshold_wakes_a_worker_once(
    card_network: CardNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    from billing import tasks

    woken: list[Any] = []
    monkeypatch.setattr(tasks, "hint_fall", woken.append)
    it = Topped(threshold="5")
    for number, amount in enumerate(("19", "2", "1", "3", "1")):
        it.shop.use(it.connection, f"r{number}", amount)
    # Below 5 with the second, to 0 with the fourth; the others change nothing.
    assert woken == [it.connection.pk] * 2


def test_a_refused_request_buys_one_bundle_and_no_more_than_a_bundles_worth(
    card_network: CardNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    from billing import tasks
    from tests.meters.test_charge import report

    woken: list[Any] = []
    monkeypatch.setattr(tasks, "hint_fall", lambda *row, **words: woken.append((row, words)))
    it = Topped(when_depleted="block")
    it.shop.use(it.connection, "r1", "24.6")
    for number in range(3):
        with pytest.raises(errors.PaymentRequired):
            report(it.shop.key, it.connection, f"e{number}", input_tokens=50_000_000, enforce=True)
        topups.top_up(it.connection.pk, now=it.shop.now, refused=True)
    assert woken == [((it.connection.pk,), {"refused": True})] * 3
    assert (it.rows, it.balance) == ([("succeeded", 1)], Decimal("10.4"))


@pytest.mark.parametrize("how", ["disabled", "deleted", "cancelled", "off", "bundle removed"])
def test_nothing_is_bought_for_who_is_gone(card_network: CardNetwork, how: str) -> None:
    it = Topped()
    it.shop.use(it.connection, "r1", "37")
    now: datetime = it.shop.now
    if how == "disabled":
        connections.set_enabled(it.connection, enabled=False, now=now)
    elif how == "deleted":
        connections.delete(it.connection, now=now)
    elif how == "cancelled":
        from billing import subscriptions

        subscriptions.end(it.connection.subscription, now=now)
    elif how == "off":
        topups.configure(it.connection.subscription, bundle=None, now=now)
    else:
        plans.remove_bundle(it.bundle, now=now)
    assert it.look() is None
    assert it.rows == []


def test_bad_settings_are_refused_with_the_fields_name(card_network: CardNetwork) -> None:
    it = Topped()
    subscription = it.connection.subscription
    other = factories.make_bundle(factories.make_plan(it.shop.merchant, name="Other"))
    for words, field in (
        ({"bundle": other}, "auto_top_up_bundle_id"),
        ({"bundle": it.bundle, "threshold": Decimal(-1)}, "top_up_threshold"),
        ({"bundle": it.bundle, "threshold": Decimal("NaN")}, "top_up_threshold"),
        ({"bundle": it.bundle, "monthly_cap": Decimal("9.99")}, "top_up_monthly_cap"),
        ({"bundle": it.bundle, "monthly_cap": Decimal("Infinity")}, "top_up_monthly_cap"),
    ):
        with pytest.raises(errors.Invalid) as refused:
            topups.configure(subscription, now=it.shop.now, **words)
        assert refused.value.param == field
    assert Subscription.objects.get().auto_top_up_bundle == it.bundle
