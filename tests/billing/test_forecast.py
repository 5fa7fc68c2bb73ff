"""The forecast against what really runs: the same acts, the same sums, nothing written."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from billing import clock, connections, credits, forecast, ledger, subscriptions
from billing.forecast import What
from billing.models import CreditGrant, LedgerEntry, Merchant, Payment, Subscription
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


def happened(merchant: Merchant, *, since: datetime) -> dict[str, Decimal]:
    """What the books say was charged, granted by plans, rolled and ended since an instant."""
    paid = Payment.objects.of(merchant).filter(status="succeeded", settled_at__gt=since)
    grants = CreditGrant.objects.of(merchant).filter(created_at__gt=since)
    lines = LedgerEntry.objects.filter(merchant=merchant, occurred_at__gt=since)
    zero = Decimal(0)
    return {
        "charged": sum((row.amount.amount for row in paid), zero),
        "granted": sum((row.amount for row in grants.filter(source="cycle")), zero),
        "rolled": sum((row.amount for row in grants.filter(source="rollover")), zero),
        "ended": -sum((row.amount for row in lines.filter(kind="expire")), zero),
    }


def compare(merchant: Merchant, *, until: datetime) -> forecast.Forecast:
    """Forecast, then go there; the sums must be those that came."""
    now = merchant.now()
    before = LedgerEntry.objects.count(), Payment.objects.count()
    told = forecast.ahead(merchant, until=until, now=now)
    assert (LedgerEntry.objects.count(), Payment.objects.count()) == before
    clock.advance(merchant, to=until)
    assert {
        "charged": told.charged,
        "granted": told.granted,
        "rolled": told.rolled,
        "ended": told.ended,
    } == happened(merchant, since=now)
    assert [row.at for row in told.rows] == sorted(row.at for row in told.rows)
    return told


@pytest.mark.parametrize("rollover", ["full", "none"])
@pytest.mark.parametrize("bundles", ["full", "none"])
@pytest.mark.parametrize("cap", [None, "30"])
def test_three_months_of_a_plan_come_as_told(
    card_network: CardNetwork, rollover: str, bundles: str, cap: str | None
) -> None:
    shop = cn.Shop(
        rollover_type=rollover,
        bundle_rollover_type=bundles,
        rollover_cap=Decimal(cap) if cap else None,
    )
    connection = shop.subscribe()
    shop.use(connection, "a", "7.25")
    factories.give(connection, "4", now=shop.now)
    told = compare(shop.merchant, until=shop.now + timedelta(days=95))
    assert [row.what for row in told.rows] == [What.RENEWAL] * 3
    assert told.charged == Decimal(75)


def test_what_is_owed_is_charged_with_the_cycles_end_and_the_rest_paid_from_credit(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(overage_threshold=Decimal(100))
    connection = shop.subscribe()
    shop.use(connection, "a", "32.123456")
    told = compare(shop.merchant, until=shop.now + timedelta(days=32))
    assert [(row.what, row.asked) for row in told.rows] == [
        (What.OVERAGE, Decimal("7.12")),
        (What.RENEWAL, Decimal(25)),
    ]


def test_what_has_reached_the_step_is_charged_now(card_network: CardNetwork) -> None:
    shop = cn.Shop(overage_threshold=Decimal(5))
    connection = shop.subscribe()
    shop.use(connection, "a", "37.5")
    told = compare(shop.merchant, until=shop.now + timedelta(days=1))
    assert [(row.what, row.asked) for row in told.rows] == [(What.OVERAGE, Decimal("12.5"))]


def test_too_little_to_charge_is_paid_from_the_new_credit(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "a", "25.3")
    told = compare(shop.merchant, until=shop.now + timedelta(days=62))
    assert [row.what for row in told.rows] == [What.RENEWAL, What.RENEWAL]
    assert told.rolled == Decimal("24.7")


def test_a_cancelled_plan_ends_and_its_credit_with_it(card_network: CardNetwork) -> None:
    shop = cn.Shop(bundle_rollover_type="none")
    connection = shop.subscribe()
    factories.give(connection, "4", now=shop.now)
    subscriptions.cancel(connection.subscription, now=shop.now)
    told = compare(shop.merchant, until=shop.now + timedelta(days=70))
    assert [(row.what, row.ended) for row in told.rows] == [(What.END, Decimal(29))]


def test_a_free_plan_renews_without_a_card(card_network: CardNetwork) -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant, price="0", credit="3", rollover_type="none",
                               billing_interval="week")  # fmt: skip
    factories.make_subscription(plan, now=merchant.now())
    told = compare(merchant, until=merchant.now() + timedelta(days=22))
    assert [row.what for row in told.rows] == [What.FREE_RENEWAL] * 3
    assert (told.charged, told.ended) == (0, 9)


def test_a_disabled_customer_is_asked_for_nothing(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    connections.set_enabled(connection, enabled=False, now=shop.now)
    assert compare(shop.merchant, until=shop.now + timedelta(days=40)).rows == []


def test_a_card_that_declined_is_told_to_decline_again_to_the_unpaid_end(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(rollover_type="none")
    connection = shop.subscribe()
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end + timedelta(hours=1))
    now = shop.now
    told = forecast.ahead(shop.merchant, until=end + timedelta(days=8), now=now)
    tries = [(row.at, row.attempt) for row in told.rows if row.what == What.RETRY]
    assert tries == [
        (end + timedelta(days=day), number) for number, day in enumerate((1, 3, 5, 7), start=2)
    ]
    assert (told.rows[-1].what, told.rows[-1].at) == (What.UNPAID_END, end + timedelta(days=7))
    assert told.charged == 0
    clock.advance(shop.merchant, to=end + timedelta(days=8))
    assert Payment.objects.filter(purpose="renewal", status="failed").count() == 5
    assert Subscription.objects.get().status == "cancelled"


def test_who_has_no_card_is_told_to_fail(card_network: CardNetwork) -> None:
    merchant = factories.make_merchant()
    subscription = factories.make_subscription(factories.make_plan(merchant), now=merchant.now())
    told = forecast.ahead(merchant, until=subscription.cycle_end, now=merchant.now())
    assert [(row.what, row.pays, row.has_card) for row in told.rows] == [
        (What.RENEWAL, False, False)
    ]
    assert told.charged == told.granted == 0


def test_credit_that_ends_on_its_own_is_told(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    ends: Any = shop.now + timedelta(days=3)
    with_end = {"source": "bundle", "amount": Decimal(5), "expires_at": ends}
    with transaction.atomic():
        credits.grant(ledger.lock(connection.pk), now=shop.now, **with_end)
    told = compare(shop.merchant, until=shop.now + timedelta(days=4))
    assert [(row.what, row.at, row.ended) for row in told.rows] == [
        (What.CREDIT_ENDS, ends, Decimal(5))
    ]


def test_another_merchants_future_is_not_told(card_network: CardNetwork) -> None:
    shop, other = cn.Shop(), cn.Shop()
    other.subscribe()
    assert not forecast.ahead(shop.merchant, until=shop.now + timedelta(days=90), now=shop.now).rows
