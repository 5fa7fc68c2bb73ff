"""Overage: charged once at the threshold, whoever asks how often; declined, tried on its days."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from moneyed import Money

from billing import (
    clock,
    depletion,
    overage,
    payments,
    refunds,
    renewals,
    statements,
    sweep,
)
from billing.models import LedgerEntry, Payment, StripeEvent
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories


def overages(shop: cn.Shop) -> list[str]:
    rows = Payment.objects.of(shop.merchant).filter(purpose="overage").order_by("pk")
    return [row.status for row in rows]


def event_of(payment: Payment, kind: str = "payment_intent.succeeded") -> tuple[bytes, str]:
    """A signed event as the network sends it."""
    import stripe

    body = json.dumps(
        {
            "id": f"evt_{payment.intent_id}_{kind}",
            "object": "event",
            "type": kind,
            "livemode": False,
            "data": {"object": {"id": payment.intent_id, "object": "payment_intent"}},
        }
    )
    stamp = int(time.time())
    signed = stripe.WebhookSignature._compute_signature(f"{stamp}.{body}", "whsec_test_local")
    return body.encode(), f"t={stamp},v1={signed}"


def deliver(body: bytes, signature: str) -> Any:
    return Client().post(
        "/webhooks/stripe",
        data=body,
        content_type="application/json",
        headers={"Stripe-Signature": signature},
    )


@pytest.mark.django_db(transaction=True)
def test_twenty_collectors_and_events_twice_charge_once(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "r1", "37.123456")
    now = shop.now
    answers = cn.at_once(20, lambda: overage.collect(connection.pk, now=now))
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert overages(shop) == ["succeeded"]
    payment = Payment.objects.get(purpose="overage")
    assert payment.amount.amount == Decimal("12.12")
    body, signature = event_of(payment)
    assert {deliver(body, signature).status_code for _ in range(2)} == {200}
    connection.refresh_from_db()
    assert connection.debt == Decimal("0.003456")
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


@pytest.mark.django_db
def test_an_event_before_the_answer_settles_and_the_answer_changes_nothing(
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
        key="buy",
        now=shop.now,
    )
    payments.present(payment, now=shop.now)
    payment.refresh_from_db()
    from billing import stripe

    stripe.confirm_intent(payment, card_id=connection.card.card_id)
    body, signature = event_of(payment)
    for _ in range(3):
        assert deliver(body, signature).status_code == 200
    assert payments.refresh(payment, now=shop.now).status == "succeeded"
    connection.refresh_from_db()
    assert connection.balance == Decimal(35)


@pytest.mark.django_db
def test_lines_stand_in_the_order_of_their_instants_when_the_answer_comes_late(
    card_network: CardNetwork,
) -> None:
    """The answer comes an hour after the end of credits, and nobody has entered that end yet."""
    shop = cn.Shop(bundle_rollover_type="none")
    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    cn.fault(card_network, "drop", times=1)
    payment = overage.collect(connection.pk, now=shop.now)
    assert payment is not None and payment.status == "unknown"
    cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end + timedelta(hours=1), run=False)
    assert payments.refresh(payment, now=shop.now).status == "succeeded"
    refunds.refund(payment, amount=Money(5, "USD"), reason="x", actor="Ana", key="k", now=shop.now)
    clock.advance(shop.merchant, to=end + timedelta(hours=2))
    instants = LedgerEntry.objects.order_by("seq").values_list("occurred_at", flat=True)
    assert list(instants) == sorted(instants)
    between = statements.explain(connection, at=end + timedelta(minutes=30))
    assert between.lines[-1].balance_after == between.balance.total == -12


def test_an_event_without_a_true_signature_changes_nothing(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    payment = Payment.objects.get(connection=connection)
    body, _ = event_of(payment)
    for signature in ("", "t=1,v1=00", f"t={int(time.time())},v1={'0' * 64}"):
        assert deliver(body, signature).status_code == 400
    assert not StripeEvent.objects.exists()


@pytest.mark.django_db
def test_a_declined_overage_is_owed_and_tried_again_on_its_days(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    shop.use(connection, "r1", "37")
    declined_at = shop.now
    failed = overage.collect(connection.pk, now=declined_at)
    assert failed is not None and failed.status == "failed"
    connection.refresh_from_db()
    assert (connection.debt, connection.collecting) == (Decimal(12), Decimal(0))
    assert overage.collect(connection.pk, now=declined_at + timedelta(hours=23)) is None
    cn.behave_as(card_network, connection, cn.GOOD)
    clock.advance(shop.merchant, to=declined_at + timedelta(days=1, minutes=1))
    connection.refresh_from_db()
    assert (connection.debt, connection.overage_attempts) == (Decimal(0), 0)
    assert overages(shop) == ["failed", "succeeded"]


@pytest.mark.django_db
def test_a_declining_card_is_not_asked_again_with_every_look_at_the_renewal(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    depletion.tell(connection.pk, now=shop.now)
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end, run=False)
    for _ in range(5):
        renewals.renew(connection.subscription.pk, now=end)
    assert overages(shop) == ["failed"]
    assert Payment.objects.filter(purpose="renewal").count() == 1


@pytest.mark.django_db
def test_a_declining_card_is_not_asked_again_while_the_renewal_has_no_answer(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    depletion.tell(connection.pk, now=shop.now)
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    end = connection.subscription.cycle_end
    assert overage.collect(connection.pk, now=end - timedelta(hours=1)) is not None
    cn.fault(card_network, "drop_before", times=3)
    for _ in range(3):
        renewals.renew(connection.subscription.pk, now=end)
    assert overages(shop) == ["failed"]
    assert [row.status for row in Payment.objects.filter(purpose="renewal")] == ["unknown"]
    clock.advance(shop.merchant, to=end, run=False)
    assert connection.subscription.pk not in sweep.renewals_due(
        shop.now - shop.merchant.clock_offset, shop.merchant
    )
