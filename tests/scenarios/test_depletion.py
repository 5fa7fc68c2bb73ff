"""Credits that run low and run out: told once a fall, not once a request."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from billing import clock, deliveries, depletion, plans, subscriptions, sweep, webhooks
from billing.models import Connection, Event, OutboxMessage
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


class Watched:
    """A subscriber of a plan of 25 that tells below 5."""

    def __init__(self, **plan: Any) -> None:
        self.shop = cn.Shop(**({"when_depleted": "block"} | plan))
        plans.set_limits(self.shop.plan, low_credit_threshold=Decimal(5), grace_days=3)
        self.connection: Connection = self.shop.subscribe()
        customer = self.connection.customer
        customer.email = "kim@customer.example"
        customer.save()

    def use(self, name: str, amount: str) -> None:
        self.shop.use(self.connection, name, amount)
        depletion.tell(self.connection.pk, now=self.shop.now)

    @property
    def events(self) -> int:
        return Event.objects.filter(name="connection.depleted").count()

    @property
    def mails(self) -> list[str]:
        words = ("run low", "run out")
        rows = OutboxMessage.objects.order_by("pk").values_list("subject", flat=True)
        return [next(word for word in words if word in row) for row in rows if "credits at" in row]


def test_low_then_empty_is_told_once_each_whatever_follows(card_network: CardNetwork) -> None:
    it = Watched()
    it.use("r1", "20")
    assert (it.events, it.mails) == (0, [])
    it.use("r2", "1")
    it.use("r3", "1")
    assert (it.events, it.mails) == (0, ["run low"])
    for number in range(4, 9):
        it.use(f"r{number}", "3")
    assert (it.events, it.mails) == (1, ["run low", "run out"])
    told = Event.objects.get(name="connection.depleted")
    assert (told.data["when_depleted"], told.data["balance"]) == ("block", "0.0000000000")


def test_exactly_at_zero_is_empty(card_network: CardNetwork) -> None:
    it = Watched()
    it.use("r1", "25")
    assert (it.events, it.mails) == (1, ["run out"])


def test_after_new_credits_the_next_fall_is_told_again(card_network: CardNetwork) -> None:
    it = Watched()
    it.use("r1", "30")
    factories.give(it.connection, "15", now=it.shop.now)
    it.connection.refresh_from_db()
    assert it.connection.depleted_at is None
    it.use("r2", "11")
    assert it.events == 2


def test_credits_that_end_with_their_cycle_are_told_too(card_network: CardNetwork) -> None:
    it = Watched(rollover_type="none")
    cn.behave_as(card_network, it.connection, cn.DECLINES_LATER)
    end = it.connection.subscription.cycle_end
    clock.advance(it.shop.merchant, to=end + timedelta(hours=1))
    assert it.events == 1


def test_a_renewal_is_no_fall(card_network: CardNetwork) -> None:
    it = Watched(rollover_type="none")
    it.shop.renew(it.connection)
    assert (it.events, it.mails) == (0, [])


def test_one_debt_after_another_of_a_plan_that_charges_on_is_one_fall(
    card_network: CardNetwork,
) -> None:
    from billing import overage

    it = Watched(when_depleted="overage")
    it.use("r1", "36")
    assert overage.collect(it.connection.pk, now=it.shop.now) is not None
    it.use("r2", "12")
    assert overage.collect(it.connection.pk, now=it.shop.now) is not None
    assert it.events == 1


def test_the_sweep_finds_a_fall_and_a_mended_one_is_told_no_more(card_network: CardNetwork) -> None:
    it = Watched()
    it.shop.use(it.connection, "r1", "26")
    assert sweep.falls_to_tell(it.shop.now, it.shop.merchant) == [it.connection.pk]
    factories.give(it.connection, "20", now=it.shop.now)
    assert sweep.falls_to_tell(it.shop.now, it.shop.merchant) == []
    assert depletion.tell(it.connection.pk, now=it.shop.now) == []


def test_who_has_no_plan_any_more_is_not_told(card_network: CardNetwork) -> None:
    it = Watched()
    subscriptions.end(it.connection.subscription, now=it.shop.now)
    assert depletion.tell(it.connection.pk, now=it.shop.now) == []
    assert (it.events, sweep.falls_to_tell(it.shop.now, it.shop.merchant)) == (0, [])


def test_the_balance_is_told_by_one_rule_whatever_moved_it_not_on_each_request(
    card_network: CardNetwork,
) -> None:
    it = Watched()
    webhooks.create(
        it.shop.merchant, name="x", url="https://hooks.example.com/", now=timezone.now()
    )
    for number in range(6):
        it.use(f"r{number}", "5")
    factories.give(it.connection, "12", now=it.shop.now)
    rows = Event.objects.filter(name="connection.wallet.balance.updated").order_by("pk")
    assert not rows.exists()
    assert deliveries.note_balances() == 1
    it.use("r6", "2")
    it.use("r7", "1")
    assert deliveries.note_balances() == 1
    assert [(row.data["causes"], row.data["balance"]["total_remaining"]) for row in rows] == [
        (["debt", "grant", "usage"], "7.0000000000"),
        (["usage"], "4.0000000000"),
    ]


def test_who_pays_as_they_go_gets_no_mail(card_network: CardNetwork) -> None:
    it = Watched(when_depleted="overage", credit="0")
    it.use("r1", "1")
    assert (it.events, it.mails) == (1, [])


@pytest.mark.django_db(transaction=True)
def test_twenty_tellers_at_once_tell_once(card_network: CardNetwork) -> None:
    it = Watched()
    it.shop.use(it.connection, "r1", "26")
    now = it.shop.now
    answers = cn.at_once(20, lambda: depletion.tell(it.connection.pk, now=now))
    assert sorted(answers) == [[]] * 19 + [["depleted"]]
    assert (it.events, it.mails) == (1, ["run out"])
