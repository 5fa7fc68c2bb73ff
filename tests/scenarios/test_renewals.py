"""Renewals: once a cycle whoever asks, retried on their days, never for what nobody wants."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import clock, connections, credits, overage, payments, renewals, subscriptions
from billing.models import Connection, Event, Payment, Subscription
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


def renewal_rows(shop: cn.Shop) -> list[str]:
    rows = Payment.objects.of(shop.merchant).filter(purpose="renewal").order_by("pk")
    return [row.status for row in rows]


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_renew_once(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    subscription = connection.subscription
    clock.advance(shop.merchant, to=subscription.cycle_end, run=False)
    now = shop.now
    answers = cn.at_once(20, lambda: renewals.renew(subscription.pk, now=now))
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert renewal_rows(shop) == ["succeeded"]
    assert credits.balance(connection, now=now).total == Decimal(50)
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


@pytest.mark.django_db(transaction=True)
def test_a_card_that_declines_is_asked_once_by_twenty(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    subscription = connection.subscription
    clock.advance(shop.merchant, to=subscription.cycle_end, run=False)
    now = shop.now
    cn.at_once(20, lambda: renewals.renew(subscription.pk, now=now))
    assert renewal_rows(shop) == ["failed"]
    assert connection.subscription.attempts == 1


def test_declined_four_more_times_on_days_one_three_five_seven_it_ends_unpaid(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(rollover_type="none")
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    clock.advance(shop.merchant, to=end)
    subscription = Subscription.objects.get()
    assert (subscription.status, subscription.next_attempt_at) == (
        "past_due",
        end + timedelta(days=1),
    )
    tried = []
    for day in range(8):
        clock.advance(shop.merchant, to=end + timedelta(days=day, hours=1))
        tried.append(len(renewal_rows(shop)))
    assert tried == [1, 2, 2, 3, 3, 4, 4, 5]
    subscription.refresh_from_db()
    assert (subscription.status, subscription.ended_at) == ("cancelled", end + timedelta(days=7))
    assert Event.objects.filter(name="subscription.cancelled", data__unpaid=True).count() == 1
    assert credits.balance(connection, now=shop.now).total == Decimal(0)
    assert len(cn.taken(shop.merchant)) == 1


def test_paid_on_the_third_day_it_goes_on_in_the_same_cycle(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    clock.advance(shop.merchant, to=end + timedelta(days=2))
    cn.behave_as(card_network, connection, cn.GOOD)
    clock.advance(shop.merchant, to=end + timedelta(days=3))
    subscription = Subscription.objects.get()
    assert (subscription.status, subscription.cycle_start) == ("active", end)
    assert renewal_rows(shop) == ["failed", "failed", "succeeded"]
    assert credits.balance(connection, now=shop.now).total == Decimal(50)


def test_a_late_decline_does_not_bring_an_ended_subscription_back(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    cn.fault(card_network, "drop", times=1)
    payment = renewals.renew(connection.subscription.pk, now=end)
    assert payment is not None and payment.status == "unknown"
    connections.delete(connection, now=end)
    payments.refresh(payment, now=end)
    assert renewal_rows(shop) == ["failed"]
    assert Subscription.objects.get().status == "cancelled"


def dies_before_the_network(shop: cn.Shop, connection: Connection, now: Any) -> Payment:
    """The intent is committed; the process ends before the network is asked."""
    payment = renewals._begin(connection.subscription.pk, now=now)
    assert payment is not None and payment.asked_at is None
    return payment


def test_a_process_that_dies_before_the_network_is_taken_up_again(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    payment = dies_before_the_network(shop, connection, end)
    assert renewals.renew(connection.subscription.pk, now=end) is None
    assert payments.refresh(payment, now=end).status == "succeeded"
    assert payments.refresh(payment, now=end).status == "succeeded"
    assert len(cn.taken(shop.merchant)) == 2


def test_a_process_that_dies_after_the_network_finds_the_charge_and_charges_once(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    cn.fault(card_network, "drop", times=1)
    payment = renewals.renew(connection.subscription.pk, now=end)
    assert payment is not None and payment.status == "unknown"
    assert len(cn.taken(shop.merchant)) == 2
    for _ in range(2):
        assert payments.refresh(payment, now=end).status == "succeeded"
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)
    assert credits.balance(connection, now=end).total == Decimal(50)


def test_what_the_network_never_got_is_asked_for_again_with_its_key(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    cn.fault(card_network, "drop_before", times=2)
    payment = renewals.renew(connection.subscription.pk, now=end)
    assert payment is not None
    assert [payments.refresh(payment, now=end).status for _ in range(2)] == ["unknown", "succeeded"]
    assert len(cn.taken(shop.merchant)) == 2


def test_a_day_later_a_charge_the_network_never_saw_is_given_up(
    card_network: CardNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    cn.fault(card_network, "drop_before", times=1)
    payment = renewals.renew(connection.subscription.pk, now=end)
    assert payment is not None
    monkeypatch.setattr(payments, "KEY_MEMORY", timedelta(0))
    assert payments.refresh(payment, now=end).failure_code == "never_reached"
    assert Subscription.objects.get().status == "past_due"


def test_a_charge_for_a_cycle_that_was_slept_through_is_withdrawn(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(rollover_type="none")
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    payment = dies_before_the_network(shop, connection, end)
    later = end + timedelta(days=65)
    assert payments.refresh(payment, now=later).status == "cancelled"
    paid = renewals.renew(connection.subscription.pk, now=later)
    assert paid is not None and paid.status == "succeeded" and paid.cycle_index == 3
    assert len(cn.taken(shop.merchant)) == 2
    assert credits.balance(connection, now=later).total == Decimal(25)
    clock.advance(shop.merchant, to=later, run=False)


def test_a_charge_of_a_deleted_connection_is_withdrawn(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    payment = dies_before_the_network(shop, connection, end)
    connections.delete(connection, now=end)
    assert payments.refresh(payment, now=end).status == "cancelled"
    assert len(cn.taken(shop.merchant)) == 1


def test_a_renewal_paid_after_the_end_is_flagged_and_grants_nothing(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    cn.fault(card_network, "drop", times=1)
    payment = renewals.renew(connection.subscription.pk, now=end)
    assert payment is not None
    connections.delete(connection, now=end)
    settled = payments.refresh(payment, now=end)
    assert settled.status == "succeeded" and settled.flag
    assert credits.balance(connection, now=end).total == Decimal(0)


def test_a_disabled_connection_is_not_charged_until_it_is_enabled(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "r1", "40")
    connections.set_enabled(connection, enabled=False, now=shop.now)
    end = connection.subscription.cycle_end
    assert overage.collect(connection.pk, now=shop.now) is None
    clock.advance(shop.merchant, to=end + timedelta(days=3))
    assert len(cn.taken(shop.merchant)) == 1
    connections.set_enabled(connection, enabled=True, now=shop.now)
    renewals.renew(connection.subscription.pk, now=shop.now)
    assert sorted(minor for _, minor, _ in cn.taken(shop.merchant)) == [1500, 2500, 2500]


def test_cancelled_at_the_end_of_the_cycle_it_is_not_charged(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    subscriptions.cancel(connection.subscription, now=shop.now)
    shop.renew(connection)
    assert Subscription.objects.get().status == "cancelled"
    assert credits.balance(connection, now=shop.now).total == Decimal(0)
    assert len(cn.taken(shop.merchant)) == 1


def test_a_bundle_bought_while_the_renewal_is_late_lives_to_the_end_of_that_cycle(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(bundle_rollover_type="none")
    bundle = factories.make_bundle(shop.plan)
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    clock.advance(shop.merchant, to=end + timedelta(hours=2))
    cn.behave_as(card_network, connection, cn.GOOD)
    assert cn.buy(connection, bundle, now=shop.now).status == "succeeded"
    assert credits.balance(connection, now=shop.now).bundle == Decimal(10)
    clock.advance(shop.merchant, to=end + timedelta(days=2))
    assert Subscription.objects.get().status == "active"
    assert credits.balance(connection, now=shop.now).bundle == Decimal(10)
    shop.renew(connection)
    assert credits.balance(connection, now=shop.now).bundle == Decimal(0)


def test_one_cancelled_by_hand_at_the_network_counts_as_a_try(card_network: CardNetwork) -> None:
    from billing import settlement
    from billing.stripe import Intent

    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    payment = dies_before_the_network(shop, connection, end)
    gone = Intent("pi_gone", "canceled", "", 2500, "USD", "", "", "", "")
    assert settlement.apply(payment.pk, intent=gone, card=None, now=end).status == "failed"
    assert Subscription.objects.get().attempts == 1
    assert renewals.renew(connection.subscription.pk, now=end) is None
