"""A connection that was disabled or deleted: nothing more is charged; its history stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import (
    connections,
    errors,
    overage,
    payments,
    renewals,
    stripe,
    sweep,
    topups,
    upgrades,
)
from billing.models import Connection, LedgerEntry, Payment
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


class Gone:
    """A subscriber who owes 20, tops up, has an upgrade open at a page, and whose cycle is over."""

    def __init__(self) -> None:
        self.shop = cn.Shop()
        self.bundle = factories.make_bundle(self.shop.plan)
        self.scale = factories.make_plan(self.shop.merchant, name="Scale", price="100")
        self.connection: Connection = self.shop.subscribe()
        self.subscription = self.connection.subscription
        self.page = upgrades.begin(
            self.subscription, plan=self.scale, key="page", now=self.shop.now
        )
        topups.configure(self.subscription, bundle=self.bundle, now=self.shop.now)
        self.shop.use(self.connection, "r1", "45")
        self.late = self.subscription.cycle_end + timedelta(hours=1)

    def disable(self) -> None:
        connections.set_enabled(self.connection, enabled=False, now=self.shop.now)

    def delete(self) -> None:
        connections.delete(self.connection, now=self.shop.now)


def quietly(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except errors.Conflict as refused:
        return refused


@pytest.mark.parametrize("how", ["disable", "delete"])
def test_no_way_charges(card_network: CardNetwork, how: str) -> None:
    it = Gone()
    getattr(it, how)()
    pk, owner, page = it.subscription.pk, it.connection.pk, it.page
    assert page is not None
    before = LedgerEntry.objects.count()
    ways: list[Callable[[], Any]] = [
        lambda: renewals.renew(pk, now=it.late),
        lambda: overage.collect(owner, now=it.late),
        lambda: overage.collect(owner, now=it.late, cycle_ends=True),
        lambda: topups.top_up(owner, now=it.late),
        lambda: upgrades.switch(it.subscription, plan=it.scale, now=it.late),
        lambda: upgrades.begin(it.subscription, plan=it.scale, key="other", now=it.late),
        lambda: payments.present(page, now=it.late),
        lambda: payments.confirm(page, card_id=it.connection.card.card_id, now=it.late),
        lambda: cn.buy(it.connection, it.bundle, now=it.late),
        lambda: renewals.renew_set(it.late),
        lambda: sweep.run(it.shop.merchant, now=it.late),
    ]
    for way in ways * 2:
        quietly(way)
    assert len(cn.taken(it.shop.merchant)) == 1
    if how == "disable":
        # Credits of the old cycle roll on this plan: not a line was written.
        assert LedgerEntry.objects.count() == before
    assert LedgerEntry.objects.filter(kind="usage").exists()


@pytest.mark.parametrize("how", ["disable", "delete"])
@pytest.mark.parametrize("what", ["renewal", "overage", "top-up", "upgrade"])
def test_a_charge_that_was_begun_and_not_asked_for_is_not_made(
    card_network: CardNetwork, how: str, what: str
) -> None:
    it = Gone()
    begun = {
        "renewal": lambda: renewals._begin(it.subscription.pk, now=it.late),
        "overage": lambda: overage._begin(it.connection.pk, now=it.late, cycle_ends=True),
        "top-up": lambda: topups._begin(it.connection.pk, now=it.shop.now),
        "upgrade": lambda: upgrades._begin(it.subscription, plan=it.scale, now=it.shop.now),
    }[what]()
    assert begun is not None
    getattr(it, how)()
    payments.charge(begun, now=it.late)
    for _ in range(2):
        payments.refresh(begun, now=it.late)
    assert len(cn.taken(it.shop.merchant)) == 1
    begun.refresh_from_db()
    assert begun.status == ("cancelled" if how == "delete" else "pending")
    if how == "disable":
        connections.set_enabled(it.connection, enabled=True, now=it.late)
        payments.refresh(begun, now=it.late)
        assert len(cn.taken(it.shop.merchant)) == 2


def test_a_bundle_paid_after_the_connection_was_deleted_is_flagged(
    card_network: CardNetwork,
) -> None:
    it = Gone()
    payment = payments.intend(
        it.connection,
        purpose=Payment.Purpose.BUNDLE,
        amount=it.bundle.cost,
        bundle=it.bundle,
        key="buy",
        now=it.shop.now,
    )
    payments.present(payment, now=it.shop.now)
    it.delete()
    payment.refresh_from_db()
    stripe.confirm_intent(payment, card_id=it.connection.card.card_id)
    settled = payments.refresh(payment, now=it.shop.now)
    assert settled.status == "succeeded" and settled.flag
    it.connection.refresh_from_db()
    assert it.connection.balance == Decimal(-20)
