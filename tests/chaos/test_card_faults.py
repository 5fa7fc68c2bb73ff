"""The card network misbehaves, or we die in the middle: afterwards its list equals ours, every
charge was made once, and the audit is silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.utils import timezone

from billing import clock, credits, payments, renewals, settlement, sweep
from billing.models import Connection, Event, Payment
from billing.stripe import client
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


def due(shop: cn.Shop) -> tuple[Connection, Any]:
    """A subscriber whose cycle is over, with nothing run yet; and that instant."""
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end, run=False)
    return connection, end


def quiet(shop: cn.Shop, now: Any) -> None:
    """What the workers do until nothing is open: ask about what has no answer, then what is due."""
    later = timezone.now() + timedelta(minutes=2)
    for key in sweep.payments_open(later, shop.merchant):
        payments.refresh(Payment.objects.get(pk=key), now=now)
    sweep.run(shop.merchant, now=now)


def agree(shop: cn.Shop, connection: Connection, *, renewals_paid: int = 1) -> None:
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)
    paid = Payment.objects.filter(purpose="renewal", status="succeeded")
    assert paid.count() == renewals_paid
    total = credits.balance(connection, now=shop.now).total
    assert total == Decimal(25) * (1 + renewals_paid)
    out = StringIO()
    call_command("audit", stdout=out)
    call_command("reconcile", stdout=out)
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    "orders",
    [
        [{"action": "drop"}],
        [{"action": "drop_before"}],
        [{"action": "error", "status": 500}],
        [{"action": "error", "status": 500, "stored": True}],
        [{"action": "error_after", "status": 502}],
        [{"action": "in_use"}],
        [{"action": "error", "status": 429}],
        [{"action": "drop"}, {"action": "drop_before", "method": "GET"}],
        [{"action": "drop_before"}, {"action": "drop"}, {"action": "in_use"}],
        [{"action": "drop"}, {"action": "error", "method": "GET", "status": 503}],
    ],
    ids=lambda orders: "+".join(order["action"] for order in orders),
)
def test_whatever_answer_is_lost_a_renewal_is_charged_once(
    card_network: CardNetwork, orders: list[dict[str, Any]]
) -> None:
    shop = cn.Shop()
    connection, end = due(shop)
    for order in orders:
        values = {"path": "/v1/payment_intents*"} | order
        cn.fault(card_network, values.pop("action"), **values)
    renewals.renew(connection.subscription.pk, now=end)
    for _ in range(6):
        quiet(shop, end)
    stored = any(order.get("stored") for order in orders)
    if stored:
        # The network remembers its own 500 under the key for a day: it is not paid, and not
        # charged anew, until the key is forgotten.
        assert Payment.objects.get(purpose="renewal").status == "unknown"
        assert len(cn.taken(shop.merchant)) == 1
        with time_machine.travel(timezone.now() + timedelta(hours=25), tick=True):
            quiet(shop, end)
        assert Payment.objects.filter(purpose="renewal").earliest("pk").status == "failed"
        card_network.control("clock", {"advance_s": 25 * 3600})
        clock.advance(shop.merchant, to=end + timedelta(days=2))
    agree(shop, connection)


def test_a_timeout_is_an_answer_that_never_came(
    card_network: CardNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = cn.Shop()
    connection, end = due(shop)
    with monkeypatch.context() as patch:
        patch.setattr(client, "TIMEOUT_S", 0.3)
        client._client.cache_clear()
        cn.fault(card_network, "delay", delay_ms=1500)
        charged = renewals.renew(connection.subscription.pk, now=end)
        assert charged is not None and charged.status == "unknown"
        # Asked about while the network is still at it: in use, so neither paid nor charged anew.
        quiet(shop, end)
    client._client.cache_clear()
    time.sleep(2)
    for _ in range(3):
        quiet(shop, end)
    agree(shop, connection)


def test_restarted_25_hours_later_the_charge_is_found_and_not_made_again(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection, end = due(shop)
    cn.fault(card_network, "drop")
    renewals.renew(connection.subscription.pk, now=end)
    card_network.control("clock", {"advance_s": 25 * 3600})
    with time_machine.travel(timezone.now() + timedelta(hours=25), tick=True):
        quiet(shop, end)
    agree(shop, connection)


def test_restarted_25_hours_later_a_charge_that_never_arrived_is_not_made_by_its_old_key(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection, end = due(shop)
    cn.fault(card_network, "drop_before")
    renewals.renew(connection.subscription.pk, now=end)
    card_network.control("clock", {"advance_s": 25 * 3600})
    with time_machine.travel(timezone.now() + timedelta(hours=25), tick=True):
        quiet(shop, end)
    first = Payment.objects.filter(purpose="renewal").earliest("pk")
    assert (first.status, first.failure_code) == ("failed", "never_reached")
    clock.advance(shop.merchant, to=end + timedelta(days=1, hours=1))
    agree(shop, connection)


class Died(BaseException):
    """As if the process was killed here."""


def dies(where: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """`where`, in a process that dies just before or just after it."""

    def act(*args: Any, **kwargs: Any) -> Any:
        if not before:
            where(*args, **kwargs)
        raise Died

    return act


@pytest.mark.parametrize("point", ["before the card", "after the card", "after the ledger"])
def test_a_process_that_dies_is_taken_up_by_the_next(
    card_network: CardNetwork, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    shop = cn.Shop()
    connection, end = due(shop)
    with monkeypatch.context() as patch:
        if point == "before the card":
            patch.setattr("billing.stripe.create_intent", dies(lambda: None, before=True))
        elif point == "after the card":
            patch.setattr(settlement, "apply", dies(settlement.apply, before=True))
        else:
            patch.setattr(settlement, "apply", dies(settlement.apply, before=False))
        with pytest.raises(Died):
            renewals.renew(connection.subscription.pk, now=end)
    for _ in range(3):
        quiet(shop, end)
    agree(shop, connection)


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "reversed"])
def test_a_months_events_again_and_again_in_any_order_change_nothing(
    card_network: CardNetwork, reverse: bool
) -> None:
    shop = cn.Shop()
    connection, end = due(shop)
    cn.fault(card_network, "drop")
    renewals.renew(connection.subscription.pk, now=end)
    bought = cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)
    dispute = card_network.control("disputes/open", {"payment_intent": bought.intent_id})
    card_network.control("disputes/close", {"dispute": dispute["id"], "status": "won"})
    rows = cn.at_network(shop.merchant, "events")
    rows = rows if reverse else rows[::-1]
    for turn in range(3):
        for row in rows:
            name = f"{row['id']}_{turn}"
            assert cn.deliver(*cn.signed(row["type"], row["data"]["object"], name=name)) == 200
    for _ in range(2):
        quiet(shop, end)
    assert credits.balance(connection, now=shop.now).bundle == Decimal(10)
    assert Event.objects.filter(name="payment.dispute_closed").count() == 1
    assert Event.objects.filter(name="subscription.renewed").count() == 1
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


def test_events_through_the_networks_own_sender_ten_times_each(
    card_network: CardNetwork, live_server: Any
) -> None:
    """Over HTTP, signed by the network itself, ten copies each and the newest first."""
    shop = cn.Shop()
    card_network.control(
        "webhooks",
        {
            "url": f"{live_server.url}/webhooks/stripe",
            "mode": "hold",
            "copies": 10,
            "reverse": True,
        },
    )
    try:
        connection = shop.subscribe()
        bought = cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)
        cn.post(shop.merchant, "refunds", payment_intent=bought.intent_id, amount="400")
        card_network.control("webhooks", {"mode": "send"})
        for _ in range(300):
            if card_network.control("webhooks")["counts"]["pending"] == 0:
                break
            time.sleep(0.2)
        counts = card_network.control("webhooks")["counts"]
        assert counts["pending"] == counts["given_up"] == 0 and counts["delivered"] > 3
        assert credits.balance(connection, now=shop.now).bundle == Decimal(6)
        assert Event.objects.filter(name="payment.refunded").count() == 1
    finally:
        card_network.control("webhooks", {"url": None, "copies": 1, "reverse": False})
