"""A card whose holder disputes what it paid is not charged without them, whatever falls due: that
counts as declined, with a mail of its own, until another card takes its place or they lose."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing import cards, clock, credits, overage, topups, upgrades
from billing.models import Connection, OutboxMessage, Payment, Subscription
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db

OTHER = "5555555555554444"


def subscribed(shop: cn.Shop) -> Connection:
    connection = shop.subscribe()
    connection.customer.email = "kim@customer.example"
    connection.customer.save()
    return connection


def dispute(network: CardNetwork, payment: Payment, shop: cn.Shop) -> str:
    made = network.control("disputes/open", {"payment_intent": payment.intent_id})
    cn.deliver_all(network, "charge.dispute.created", merchant=shop.merchant)
    return str(made["id"])


def mails(words: str) -> int:
    return OutboxMessage.objects.filter(subject__contains=words).count()


def at_the_network(shop: cn.Shop) -> int:
    return len(cn.at_network(shop.merchant, "payment_intents"))


def test_a_renewal_is_past_due_until_another_card_pays_it(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscribed(shop)
    end = connection.subscription.cycle_end
    dispute(card_network, Payment.objects.get(), shop)
    clock.advance(shop.merchant, to=end + timedelta(days=1, hours=1))

    subscription = connection.subscription
    assert (subscription.status, subscription.cycle_index) == ("past_due", 0)
    tried = Payment.objects.filter(purpose="renewal")
    assert [row.failure_code for row in tried] == ["card_disputed"] * 2
    # Nobody was asked for money, and the customer was told once.
    assert at_the_network(shop) == 1
    assert (mails("needs another card"), mails("could not charge")) == (1, 0)

    cn.save_card(connection, OTHER, now=shop.now)
    clock.advance(shop.merchant, to=shop.now + timedelta(minutes=1))
    subscription = connection.subscription
    assert (subscription.status, subscription.cycle_index) == ("active", 1)
    # What the dispute took back of the first cycle's credits was all there, so nothing is owed.
    assert credits.balance(connection, now=shop.now).total == Decimal(25)


def test_a_renewal_that_no_other_card_pays_ends_unpaid(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscribed(shop)
    end = connection.subscription.cycle_end
    dispute(card_network, Payment.objects.get(), shop)
    clock.advance(shop.merchant, to=end + timedelta(days=8))
    assert Subscription.objects.get().status == "cancelled"
    assert at_the_network(shop) == 1
    assert (mails("needs another card"), mails("Last try"), mails("has ended")) == (1, 1, 1)


def test_a_dispute_that_was_won_lets_the_next_try_charge(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscribed(shop)
    end = connection.subscription.cycle_end
    name = dispute(card_network, Payment.objects.get(), shop)
    clock.advance(shop.merchant, to=end)
    card_network.control("disputes/close", {"dispute": name, "status": "won"})
    cn.deliver_all(card_network, merchant=shop.merchant)
    assert not cards.is_disputed(connection.card)
    clock.advance(shop.merchant, to=end + timedelta(days=1, minutes=1))
    assert connection.subscription.status == "active"
    assert at_the_network(shop) == 2


def test_what_is_owed_waits_for_another_card(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscribed(shop)
    shop.use(connection, "r1", "37")
    payment = overage.collect(connection.pk, now=shop.now)
    assert payment is not None
    dispute(card_network, payment, shop)
    connection.refresh_from_db()
    # What the card had paid is owed again.
    assert connection.debt == Decimal(12)
    refused = overage.collect(connection.pk, now=shop.now)
    assert refused is not None and refused.failure_code == "card_disputed"
    connection.refresh_from_db()
    assert (connection.debt, connection.collecting) == (Decimal(12), Decimal(0))
    assert mails("needs another card") == 1
    cn.save_card(connection, OTHER, now=shop.now)
    again = overage.collect(connection.pk, now=shop.now)
    assert again is not None and again.status == "succeeded"
    assert again.amount.amount == Decimal(12)


def test_a_top_up_waits_for_another_card_and_then_buys_at_once(card_network: CardNetwork) -> None:
    shop = cn.Shop(when_depleted="block")
    connection = subscribed(shop)
    bundle = factories.make_bundle(shop.plan)
    bought = cn.buy(connection, bundle, now=shop.now)
    topups.configure(connection.subscription, bundle=bundle, threshold=Decimal(5), now=shop.now)
    dispute(card_network, bought, shop)
    shop.use(connection, "low", "22")
    refused = topups.top_up(connection.pk, now=shop.now)
    assert refused is not None and refused.failure_code == "card_disputed"
    assert topups.top_up(connection.pk, now=shop.now) is None
    assert mails("needs another card") == 1
    cn.save_card(connection, OTHER, now=shop.now)
    made = topups.top_up(connection.pk, now=shop.now)
    assert made is not None and made.status == "succeeded"
    assert credits.balance(connection, now=shop.now).total == Decimal(13)


def test_an_upgrade_by_the_saved_card_changes_nothing(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscribed(shop)
    pro = factories.make_plan(shop.merchant, price="100", credit="120", name="Pro")
    dispute(card_network, Payment.objects.get(), shop)
    made = upgrades.switch(connection.subscription, plan=pro, now=shop.now)
    assert made.payment is not None and made.payment.failure_code == "card_disputed"
    assert connection.subscription.plan == shop.plan
    assert at_the_network(shop) == 1


def test_whoever_is_there_may_pay_with_it(card_network: CardNetwork) -> None:
    """At the page it is the customer and their bank who decide."""
    shop = cn.Shop()
    connection = subscribed(shop)
    dispute(card_network, Payment.objects.get(), shop)
    bundle = factories.make_bundle(shop.plan)
    assert cn.buy(connection, bundle, now=shop.now).status == "succeeded"


def test_a_card_that_another_connection_saved_too_is_disputed_there_as_well(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection, other = subscribed(shop), shop.subscribe()
    kept = other.card
    kept.card_id = connection.card.card_id
    kept.save()
    elsewhere = cn.Shop().subscribe().card
    elsewhere.card_id = kept.card_id
    elsewhere.save()
    dispute(card_network, Payment.objects.get(connection=connection), shop)
    assert cards.is_disputed(kept)
    # Ids are of one merchant's mode at the network; another's books say nothing of it.
    assert not cards.is_disputed(elsewhere)
