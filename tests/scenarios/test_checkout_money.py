"""A customer's own payments: two tabs, a late confirmation, an amount that is not ours."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing import cards, connections, credits, errors, payments, settlement, stripe
from billing.models import Connection, LedgerEntry, Payment
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.scenarios.test_overage import deliver, event_of

pytestmark = pytest.mark.django_db


class Tab:
    """One open checkout of a plan."""

    def __init__(self, shop: cn.Shop, connection: Connection, key: str) -> None:
        self.shop = shop
        self.payment = payments.intend(
            connection,
            purpose=Payment.Purpose.SUBSCRIPTION,
            amount=shop.plan.price,
            plan=shop.plan,
            key=key,
            now=shop.now,
        )

    def show(self) -> Any:
        return payments.present(self.payment, now=self.shop.now)

    def pay_at_the_page(self, card: str = cn.GOOD) -> None:
        """The network is paid; we have not heard of it."""
        self.payment.refresh_from_db()
        card_id = cards.from_test_card(self.shop.merchant, card)
        stripe.confirm_intent(self.payment, card_id=card_id)


@pytest.fixture
def shop(card_network: CardNetwork) -> cn.Shop:
    return cn.Shop()


@pytest.fixture
def connection(shop: cn.Shop) -> Connection:
    return factories.make_connection(shop.merchant, now=shop.now)


def test_the_newest_of_two_tabs_pays_and_the_other_cannot(
    shop: cn.Shop, connection: Connection
) -> None:
    first, second = Tab(shop, connection, "one"), Tab(shop, connection, "two")
    first.show()
    second.show()
    with pytest.raises(errors.Refused):
        first.pay_at_the_page()
    second.pay_at_the_page()
    payments.refresh(second.payment, now=shop.now)
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)
    assert credits.balance(connection, now=shop.now).total == Decimal(25)


def test_an_older_tab_does_not_withdraw_a_newer_one(shop: cn.Shop, connection: Connection) -> None:
    first, second = Tab(shop, connection, "one"), Tab(shop, connection, "two")
    second.show()
    with pytest.raises(errors.Conflict) as refused:
        first.show()
    assert refused.value.code == "withdrawn"
    second.pay_at_the_page()
    assert payments.refresh(second.payment, now=shop.now).status == "succeeded"


def test_a_tab_withdrawn_while_the_network_makes_its_intent_gets_no_secret(
    shop: cn.Shop, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = Tab(shop, connection, "one")
    really = stripe.create_intent

    def slowly(payment: Payment, **words: Any) -> Any:
        made = really(payment, **words)
        settlement.cancel(payment.pk, now=shop.now)
        return made

    monkeypatch.setattr(stripe, "create_intent", slowly)
    with pytest.raises(errors.Conflict):
        tab.show()
    assert cn.taken(shop.merchant) == []


def test_money_taken_for_a_payment_we_gave_up_is_settled(
    shop: cn.Shop, connection: Connection
) -> None:
    tab = Tab(shop, connection, "one")
    tab.show()
    tab.pay_at_the_page()
    Payment.objects.update(status=Payment.Status.CANCELLED)
    body, signature = event_of(Payment.objects.get())
    assert deliver(body, signature).status_code == 200
    assert Payment.objects.get().status == "succeeded"
    assert credits.balance(connection, now=shop.now).total == Decimal(25)


def test_overage_paid_after_it_was_given_up_pays_the_debt_or_is_flagged(
    shop: cn.Shop, card_network: CardNetwork
) -> None:
    from billing import overage

    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    cn.fault(card_network, "drop", times=1)
    first = overage.collect(connection.pk, now=shop.now)
    assert first is not None
    settlement.fail(first.pk, code="never_reached", message="", now=shop.now)
    intent = stripe.find_intent(first, customer_id=cards.customer_id(connection))
    assert intent is not None
    settled = settlement.apply(first.pk, intent=intent, card=None, now=shop.now)
    connection.refresh_from_db()
    assert (settled.status, connection.debt, connection.collecting) == ("succeeded", 0, 0)


def test_overage_paid_twice_over_is_flagged_and_taken_from_nobody(
    shop: cn.Shop, card_network: CardNetwork
) -> None:
    from billing import overage

    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    cn.fault(card_network, "drop", times=1)
    first = overage.collect(connection.pk, now=shop.now)
    assert first is not None
    settlement.fail(first.pk, code="never_reached", message="", now=shop.now)
    factories.give(connection, "20", now=shop.now)
    intent = stripe.find_intent(first, customer_id=cards.customer_id(connection))
    assert intent is not None
    settled = settlement.apply(first.pk, intent=intent, card=None, now=shop.now)
    connection.refresh_from_db()
    assert settled.flag and (connection.debt, connection.balance) == (0, Decimal(8))


def test_another_amount_than_ours_grants_nothing_and_is_flagged(
    shop: cn.Shop, connection: Connection
) -> None:
    tab = Tab(shop, connection, "one")
    tab.show()
    tab.pay_at_the_page()
    tab.payment.refresh_from_db()
    told = stripe.retrieve_intent(shop.merchant, tab.payment.intent_id)
    other = stripe.Intent(
        **{name: getattr(told, name) for name in told.__slots__} | {"amount_minor": 1}
    )
    settled = settlement.apply(tab.payment.pk, intent=other, card=None, now=shop.now)
    assert settled.status == "succeeded" and "0.01" in settled.flag
    assert not LedgerEntry.objects.exists()


def test_paid_for_a_connection_deleted_meanwhile_opens_nothing(
    shop: cn.Shop, connection: Connection
) -> None:
    tab = Tab(shop, connection, "one")
    tab.show()
    tab.pay_at_the_page()
    connections.delete(connection, now=shop.now)
    settled = payments.refresh(tab.payment, now=shop.now)
    assert settled.status == "succeeded" and settled.flag
    assert connection.subscription is None


def test_a_deleted_connection_begins_no_payment(shop: cn.Shop, connection: Connection) -> None:
    connections.delete(connection, now=shop.now)
    with pytest.raises(errors.Conflict):
        Tab(shop, connection, "one")


def test_the_answer_to_the_first_payment_lost_on_the_way_is_found(
    shop: cn.Shop, connection: Connection, card_network: CardNetwork
) -> None:
    tab = Tab(shop, connection, "one")
    cn.fault(card_network, "drop", times=1)
    with pytest.raises(errors.CardUnknown):
        tab.show()
    tab.show()
    tab.payment.refresh_from_db()
    cn.fault(card_network, "drop", path="/v1/payment_intents/*/confirm", times=1)
    with pytest.raises(errors.CardUnknown):
        tab.pay_at_the_page()
    assert payments.refresh(tab.payment, now=shop.now).status == "succeeded"
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


def test_a_key_the_network_knows_with_other_words_is_asked_about_never_failed(
    shop: cn.Shop, card_network: CardNetwork
) -> None:
    from billing import overage

    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    cn.fault(card_network, "drop", times=1)
    payment = overage.collect(connection.pk, now=shop.now)
    assert payment is not None
    shop.merchant.organization.name = "Another Name"
    shop.merchant.organization.save()
    again = payments.charge(Payment.objects.get(pk=payment.pk), now=shop.now)
    assert again.status == "unknown"
    assert payments.refresh(again, now=shop.now).status == "succeeded"
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


def test_a_declined_card_charges_nothing_and_the_next_one_may_pay(
    shop: cn.Shop, connection: Connection
) -> None:
    tab = Tab(shop, connection, "one")
    tab.show()
    bad = cards.from_test_card(shop.merchant, cn.DECLINES)
    declined = payments.confirm(tab.payment, card_id=bad, now=shop.now)
    assert (declined.status, declined.failure_code) == ("pending", "generic_decline")
    good = cards.from_test_card(shop.merchant, cn.GOOD)
    assert payments.confirm(declined, card_id=good, now=shop.now).status == "succeeded"
    assert credits.balance(connection, now=shop.now).total == Decimal(25)


def test_a_plan_in_another_currency_is_refused(shop: cn.Shop, connection: Connection) -> None:
    from billing import subscriptions

    Connection.objects.filter(pk=connection.pk).update(currency="EUR")
    connection.refresh_from_db()
    with pytest.raises(errors.Conflict):
        subscriptions.open(connection, plan=shop.plan, now=shop.now)
    with pytest.raises(errors.Invalid):
        Tab(shop, connection, "one")


@pytest.mark.django_db(transaction=True)
def test_a_bundle_confirmed_twenty_times_at_once_is_paid_and_given_once(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.BUNDLE,
        amount=bundle.cost,
        bundle=bundle,
        key="pack",
        now=shop.now,
    )
    payments.present(payment, now=shop.now)
    card_id, now = connection.card.card_id, shop.now
    answers = cn.at_once(20, lambda: payments.confirm(payment, card_id=card_id, now=now))
    paid = [answer for answer in answers if isinstance(answer, Payment)]
    assert paid and {answer.status for answer in paid} <= {"succeeded", "unknown"}, answers
    payments.refresh(payment, now=now)
    assert credits.balance(connection, now=now).total == 35
    assert LedgerEntry.objects.filter(payment=payment, kind="grant").count() == 1
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)
