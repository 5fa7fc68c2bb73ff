"""A subscription checkout of somebody who is on another plan: you are on X; switch to Y?"""

from __future__ import annotations

from datetime import datetime

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext

from billing import changes, subscriptions
from billing.models import Merchant, Payment, Plan, Subscription
from checkout import sessions
from lava.demo.card_network.process import CardNetwork
from tests import factories
from tests.checkout.visitor import DECLINED, PHONE, Visitor, make_session

pytestmark = pytest.mark.django_db
# Of the page of a switch, its preview among them.
MOST_QUERIES = 21


@pytest.fixture
def merchant(network: CardNetwork) -> Merchant:
    return factories.make_merchant()


@pytest.fixture
def current(merchant: Merchant) -> Subscription:
    """On Studio: 25.00 for 25 of credits; nothing is paid yet, so unused credits are worth none."""
    now = merchant.now()
    known = factories.make_connection(merchant, phone=PHONE, now=now)
    return factories.make_subscription(factories.make_plan(merchant), connection=known, now=now)


@pytest.fixture
def pro(merchant: Merchant) -> Plan:
    return factories.make_plan(merchant, name="Pro", price="79", credit="90")


def visitor_for(plan: Plan) -> Visitor:
    visitor = Visitor(make_session(plan.merchant, plan=plan))
    visitor.confirm_phone()
    return visitor


def test_nothing_of_their_plan_is_told_before_the_phone_is_confirmed(
    current: Subscription, pro: Plan
) -> None:
    visitor = Visitor(make_session(pro.merchant, plan=pro))
    visitor.send()
    assert "Studio" not in visitor.get().content.decode()


def test_an_upgrade_is_paid_at_the_page_once(
    network: CardNetwork, current: Subscription, pro: Plan
) -> None:
    visitor = visitor_for(pro)
    html = visitor.get().content.decode()
    assert "You are on Studio. Switch to Pro?" in html and "Pay $79.00 and switch" in html
    assert "charge this card $79.00 now" in html
    assert visitor.pay(network.url).json() == {"status": "done"}
    assert visitor.complete().json() == {"status": "done"}
    current.refresh_from_db()
    assert current.plan_id == pro.pk
    assert Subscription.objects.count() == 1
    paid = Payment.objects.get()
    assert (paid.purpose, paid.status, paid.amount.amount) == ("upgrade", "succeeded", 79)
    assert "Pro is active" in visitor.get().content.decode()


def test_the_page_reckons_the_change_once(
    network: CardNetwork, current: Subscription, pro: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = visitor_for(pro)
    reckoned: list[Plan] = []
    quote = changes.quote

    def count(subscription: Subscription, *, plan: Plan, now: datetime) -> changes.Quote:
        reckoned.append(plan)
        return quote(subscription, plan=plan, now=now)

    monkeypatch.setattr(changes, "quote", count)
    with CaptureQueriesContext(database) as found:
        html = visitor.get().content.decode()
    assert html.count("$79.00") >= 3 and reckoned == [pro]
    assert len(found) <= MOST_QUERIES, [row["sql"][:120] for row in found.captured_queries]


def test_a_declined_upgrade_leaves_the_plan(
    network: CardNetwork, current: Subscription, pro: Plan
) -> None:
    visitor = visitor_for(pro)
    assert visitor.pay(network.url, DECLINED).json()["status"] == "declined"
    current.refresh_from_db()
    assert current.plan_id != pro.pk
    assert visitor.pay(network.url).json() == {"status": "done"}
    current.refresh_from_db()
    assert current.plan_id == pro.pk
    assert Payment.objects.filter(status="succeeded").count() == 1


def test_a_smaller_plan_waits_for_the_cycles_end(merchant: Merchant, current: Subscription) -> None:
    starter = factories.make_plan(merchant, name="Starter", price="9", credit="9")
    visitor = visitor_for(starter)
    html = visitor.get().content.decode()
    assert "You are on Studio. Switch to Starter?" in html
    assert "Nothing is charged today" in html and "Card number" not in html
    for _ in range(2):
        answer = visitor.post("complete", name="Mara Lindqvist", email="mara@tallgrass.example")
        assert answer.status_code == 303, answer.content.decode()
    current.refresh_from_db()
    assert (current.pending_change, current.pending_plan_id) == ("downgrade", starter.pk)
    assert not Payment.objects.exists()
    assert "You switch to Starter on" in visitor.get().content.decode()


def test_a_page_that_said_start_does_not_switch(
    network: CardNetwork, merchant: Merchant, pro: Plan
) -> None:
    visitor = visitor_for(pro)
    shown = visitor.nonce
    assert "." not in shown
    connection = visitor.session.buyer
    subscriptions.open(connection, plan=factories.make_plan(merchant), now=merchant.now())
    answer = visitor.press_pay(nonce=shown)
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_page")
    assert not Payment.objects.exists()
    assert "You are on Studio. Switch to Pro?" in visitor.get().content.decode()


def test_a_page_that_said_switch_does_not_start(
    network: CardNetwork, merchant: Merchant, current: Subscription, pro: Plan
) -> None:
    visitor = visitor_for(pro)
    shown = visitor.nonce
    subscriptions.end(current, now=merchant.now())
    assert visitor.press_pay(nonce=shown).json()["code"] == "stale_page"
    assert not Payment.objects.exists()
    assert "Pay $79.00" in visitor.get().content.decode()


def test_the_integrators_helper_switches_too(
    network: CardNetwork, current: Subscription, pro: Plan
) -> None:
    session = make_session(pro.merchant, plan=pro)
    done = sessions.complete_with_test_card(
        session, phone=PHONE, card="4242424242424242", now=pro.merchant.now()
    )
    assert done.state == "completed"
    current.refresh_from_db()
    assert current.plan_id == pro.pk


def test_a_difference_too_small_for_a_card_is_not_charged(
    network: CardNetwork, merchant: Merchant
) -> None:
    first = visitor_for(factories.make_plan(merchant))
    assert first.pay(network.url).json() == {"status": "done"}
    little_more = factories.make_plan(merchant, name="Studio+", price="25.30", credit="30")
    visitor = visitor_for(little_more)
    html = visitor.get().content.decode()
    assert "Too little for a card" in html and "Switch to Studio+" in html
    assert visitor.press_pay(card="saved").json() == {"reload": True}
    visitor.session.refresh_from_db()
    assert visitor.session.state == "completed"
    current = visitor.session.buyer.subscription
    assert current is not None and current.plan_id == little_more.pk
    assert Payment.objects.count() == 1
    assert "You have $29.70 of credits" in visitor.get().content.decode()
