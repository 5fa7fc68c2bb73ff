"""Disputes: opened they take the credits back, won they give them back, lost they keep them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError, transaction
from moneyed import Money

from billing import (
    audit,
    clock,
    credits,
    disputes,
    errors,
    ledger,
    refunds,
    statements,
    subscriptions,
)
from billing.models import (
    Connection,
    CreditGrant,
    Dispute,
    Event,
    LedgerEntry,
    Payment,
    Refund,
)
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(card_network: CardNetwork) -> cn.Shop:
    return cn.Shop(when_depleted="block")


def bought(shop: cn.Shop, connection: Connection) -> Payment:
    return cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)


def opened(network: CardNetwork, payment: Payment, **order: Any) -> str:
    order = {"payment_intent": payment.intent_id} | order
    return str(network.control("disputes/open", order)["id"])


def balance(shop: cn.Shop, connection: Connection) -> Decimal:
    return credits.balance(connection, now=shop.now).total


def clawbacks(connection: Connection) -> list[Decimal]:
    rows = LedgerEntry.objects.filter(connection=connection, kind="clawback").order_by("seq")
    return [row.amount for row in rows]


def test_opened_it_takes_the_credits_and_makes_debt_of_the_spent(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    shop.use(connection, "r1", "29")
    opened(card_network, payment)
    for _ in range(3):
        cn.deliver_all(card_network, "charge.dispute.created", merchant=shop.merchant)
    row = Dispute.objects.get()
    assert (row.status, row.credits_taken, row.debt_made) == ("open", 6, 4)
    connection.refresh_from_db()
    assert (connection.debt, connection.balance) == (4, -4)
    payment.refresh_from_db()
    assert payment.dispute_flag.startswith("Disputed by the cardholder")
    event = Event.objects.get(name="payment.disputed")
    assert (event.data["credits_taken"], event.data["debt_made"]) == (
        "6.0000000000",
        "4.0000000000",
    )


def test_won_everything_comes_back(card_network: CardNetwork, shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    shop.use(connection, "r1", "29")
    dispute = opened(card_network, payment)
    cn.deliver_all(card_network, "charge.dispute.created", merchant=shop.merchant)
    card_network.control("disputes/close", {"dispute": dispute, "status": "won"})
    for _ in range(2):
        cn.deliver_all(card_network, merchant=shop.merchant)
    row = Dispute.objects.get()
    assert (row.status, row.credits_taken, row.closed_at is not None) == ("won", 0, True)
    assert balance(shop, connection) == Decimal(6)
    assert clawbacks(connection) == [-6, -4, 6, 4]
    payment.refresh_from_db()
    assert payment.dispute_flag == ""
    assert Event.objects.filter(name="payment.dispute_closed").count() == 1


def test_won_debt_that_was_paid_meanwhile_is_returned_and_nobody_gave_it(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    shop.use(connection, "r1", "29")
    dispute = opened(card_network, payment)
    cn.deliver_all(card_network, "charge.dispute.created", merchant=shop.merchant)
    with transaction.atomic():
        locked = ledger.lock(connection.pk)
        credits.give(locked, amount=Decimal(10), reason="Sorry", actor="Ana", now=shop.now)
    card_network.control("disputes/close", {"dispute": dispute, "status": "won"})
    cn.deliver_all(card_network, merchant=shop.merchant)
    assert balance(shop, connection) == Decimal(16)
    grants = CreditGrant.objects.filter(connection=connection).exclude(reason="")
    assert [(row.source, row.amount) for row in grants.order_by("pk")] == [
        ("manual", 10),
        ("returned", 4),
    ]


def test_lost_the_credits_stay_taken(card_network: CardNetwork, shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    dispute = opened(card_network, payment)
    cn.deliver_all(card_network, "charge.dispute.created", merchant=shop.merchant)
    card_network.control("disputes/close", {"dispute": dispute, "status": "lost"})
    cn.deliver_all(card_network, merchant=shop.merchant)
    assert Dispute.objects.get().status == "lost"
    assert balance(shop, connection) == Decimal(25)
    assert clawbacks(connection) == [-10]


@pytest.mark.parametrize(("end", "left"), [("won", 35), ("lost", 25)])
def test_the_end_heard_before_the_beginning(
    card_network: CardNetwork, shop: cn.Shop, end: str, left: int
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    dispute = opened(card_network, payment)
    card_network.control("disputes/close", {"dispute": dispute, "status": end})
    for kind in ("charge.dispute.closed", "charge.dispute.created", "charge.dispute.closed"):
        cn.deliver_all(card_network, kind, merchant=shop.merchant)
    assert Dispute.objects.get().status == end
    assert balance(shop, connection) == Decimal(left)


def test_a_disputed_payment_is_not_refunded(card_network: CardNetwork, shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    opened(card_network, payment)
    cn.deliver_all(card_network, "charge.dispute.created", merchant=shop.merchant)
    with pytest.raises(errors.Refused) as refusal:
        refunds.refund(payment, reason="x", actor="Ana", key="k", now=shop.now)
    assert refusal.value.code == "payment_disputed"


def test_a_dispute_after_a_part_refund_takes_no_more_than_was_granted(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    from moneyed import Money

    connection = shop.subscribe()
    payment = bought(shop, connection)
    refunds.refund(payment, amount=Money(4, "USD"), reason="x", actor="Ana", key="k", now=shop.now)
    opened(card_network, payment)
    cn.deliver_all(card_network, "charge.dispute.created", merchant=shop.merchant)
    row = Dispute.objects.get()
    assert (row.credits_taken, row.debt_made) == (6, 0)
    assert balance(shop, connection) == Decimal(25)


def test_won_after_the_subscription_ended_plan_credits_end_at_once(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = Payment.objects.get(connection=connection)
    dispute = opened(card_network, payment)
    cn.deliver_all(card_network, "charge.dispute.created", merchant=shop.merchant)
    subscriptions.cancel(connection.subscription, now=shop.now)
    clock.advance(shop.merchant, to=clock.next_renewal(shop.merchant))
    assert connection.subscription is None
    card_network.control("disputes/close", {"dispute": dispute, "status": "won"})
    cn.deliver_all(card_network, merchant=shop.merchant)
    assert balance(shop, connection) == 0


def test_won_after_another_subscription_began_plan_credits_end_at_once(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = Payment.objects.get(connection=connection)
    dispute = opened(card_network, payment)
    disputes.sync(payment, dispute, now=shop.now)
    subscriptions.cancel(connection.subscription, now=shop.now)
    clock.advance(shop.merchant, to=connection.subscription.cycle_end)
    other = factories.make_plan(shop.merchant, price="0", credit="5", name="Free")
    subscriptions.open(connection, plan=other, now=shop.now)
    card_network.control("disputes/close", {"dispute": dispute, "status": "won"})
    disputes.sync(payment, dispute, now=shop.now)
    assert balance(shop, connection) == Decimal(5)


def test_won_after_the_end_of_its_credits_the_balance_between_is_proven(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(when_depleted="block", rollover_type="none")
    connection = shop.subscribe()
    payment = Payment.objects.get(connection=connection)
    dispute = opened(card_network, payment)
    disputes.sync(payment, dispute, now=shop.now)
    subscriptions.cancel(connection.subscription, now=shop.now)
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end + timedelta(days=3))
    card_network.control("disputes/close", {"dispute": dispute, "status": "won"})
    disputes.sync(payment, dispute, now=shop.now)
    between = statements.explain(connection, at=end + timedelta(days=1))
    assert (between.balance.total, between.ended, between.lots) == (0, 0, [])
    assert clawbacks(connection) == [-25, 25] and balance(shop, connection) == 0


@pytest.mark.django_db(transaction=True)
def test_twenty_deliveries_at_once_take_once(card_network: CardNetwork) -> None:
    shop = cn.Shop(when_depleted="block")
    connection = shop.subscribe()
    payment = bought(shop, connection)
    dispute = opened(card_network, payment)
    answers = cn.at_once(20, lambda: disputes.sync(payment, dispute, now=shop.now))
    # On a busy machine some wait in vain for the lock; the network would deliver again.
    assert {type(answer) for answer in answers} <= {Dispute, OperationalError}, answers
    assert clawbacks(connection) == [-10]


def test_disputed_under_a_refund_that_fails_the_dispute_takes_what_the_refund_gave_back(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    part = Money(4, "USD")
    row = refunds.intend(payment, amount=part, reason="x", actor="Ana", key="k", now=shop.now)
    assert clawbacks(connection) == [-4]
    dispute = opened(card_network, payment)
    disputes.sync(payment, dispute, now=shop.now)
    assert clawbacks(connection) == [-4, -6]
    assert refunds.send(row, now=shop.now).status == "failed"
    assert clawbacks(connection) == [-4, -6, 4, -4]
    found = Dispute.objects.get()
    assert (found.credits_taken, found.debt_made) == (10, 0)
    assert balance(shop, connection) == Decimal(25)
    card_network.control("disputes/close", {"dispute": dispute, "status": "won"})
    disputes.sync(payment, dispute, now=shop.now)
    assert balance(shop, connection) == Decimal(35)
    assert not [rule.name for rule in audit.RULES if rule.rows(1)]


@pytest.mark.parametrize(("part", "left"), [("10", "25"), ("3.33", "30.3363335")])
def test_won_because_the_money_went_back_already_the_credits_do_not_come_back(
    card_network: CardNetwork, shop: cn.Shop, part: str, left: str
) -> None:
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan, cost="10", credit="8.0005")
    payment = cn.buy(connection, bundle, now=shop.now)
    cents = str(int(Decimal(part) * 100))
    cn.post(shop.merchant, "refunds", payment_intent=payment.intent_id, amount=cents)
    dispute = opened(card_network, payment)
    # The word of the bank comes before that of the refund made in the dashboard.
    for _ in range(2):
        disputes.sync(payment, dispute, now=shop.now)
        refunds.sync(payment, now=shop.now)
    assert balance(shop, connection) == Decimal(25)
    card_network.control("disputes/close", {"dispute": dispute, "status": "won"})
    for _ in range(2):
        disputes.sync(payment, dispute, now=shop.now)
        refunds.sync(payment, now=shop.now)
    row = Refund.objects.get()
    assert balance(shop, connection) == Decimal(left)
    assert row.credits_taken == Decimal("33.0005") - balance(shop, connection)
    assert not [rule.name for rule in audit.RULES if rule.rows(1)]


@pytest.mark.django_db(transaction=True)
def test_refunded_and_disputed_at_once_no_more_is_taken_than_was_granted(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(when_depleted="block")
    connection = shop.subscribe()
    payment = bought(shop, connection)
    dispute = opened(card_network, payment)
    turn = iter(range(20))

    def act() -> Any:
        number = next(turn)
        if number % 2:
            return disputes.sync(payment, dispute, now=shop.now)
        return refunds.refund(
            payment, reason="asked", actor="Ana", key=f"k{number}", now=shop.now, force=True
        )

    answers = cn.at_once(20, act)
    assert any(isinstance(answer, Dispute) for answer in answers), answers
    assert sum(clawbacks(connection)) == -10
    assert not [rule.name for rule in audit.RULES if rule.rows(1)]
