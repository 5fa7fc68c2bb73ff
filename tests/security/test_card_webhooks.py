"""Events in: whatever is not signed by the card network, now and for these books, has no effect."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing import accounts, cards, credits, payments, stripe
from billing.models import Dispute, Event, LedgerEntry, Payment, Refund, StripeEvent
from lava.demo.card_network import events
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db

KIND = "payment_intent.succeeded"


@pytest.fixture
def shop(card_network: CardNetwork) -> cn.Shop:
    return cn.Shop(when_depleted="block")


def waiting(shop: cn.Shop, *, paid: bool = True) -> Payment:
    """A bundle that the customer has (or has not) paid at the network, unknown to us."""
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
    if paid:
        stripe.confirm_intent(payment, card_id=cards.from_test_card(shop.merchant, cn.GOOD))
    return payment


def subject(payment: Payment) -> dict[str, Any]:
    return {"id": payment.intent_id, "object": "payment_intent", "status": "succeeded"}


def nothing_happened(payment: Payment) -> None:
    payment.refresh_from_db()
    assert payment.status == "pending"
    assert not payment.grants.exists()
    assert not StripeEvent.objects.exists()


@pytest.mark.parametrize("seconds", [-301, -3600, -86400 * 365, 400, 3600, 86400 * 365 * 30])
def test_a_signature_of_another_time_is_refused(shop: cn.Shop, seconds: int) -> None:
    payment = waiting(shop)
    body, signature = cn.signed(KIND, subject(payment), at=time.time() + seconds)
    assert cn.deliver(body, signature) == 400
    nothing_happened(payment)


@pytest.mark.parametrize("seconds", [-200, 0, 290])
def test_a_signature_within_five_minutes_counts(shop: cn.Shop, seconds: int) -> None:
    payment = waiting(shop)
    body, signature = cn.signed(KIND, subject(payment), at=time.time() + seconds)
    assert cn.deliver(body, signature) == 200
    payment.refresh_from_db()
    assert payment.status == "succeeded"


def test_no_signature_and_broken_ones_are_refused(shop: cn.Shop) -> None:
    payment = waiting(shop)
    body, good = cn.signed(KIND, subject(payment))
    stamp, _, mac = good.partition(",v1=")
    assert (
        Client().post("/webhooks/stripe", body, content_type="application/json").status_code == 400
    )
    for signature in (
        "",
        "x",
        "t=,v1=",
        "t=now,v1=" + mac,
        stamp,
        f"{stamp},v1=",
        f"{stamp},v1={'0' * 64}",
        f"{stamp},v0={mac}",
        f"{stamp},v1={mac[:-1]}",
        f"t={int(time.time()) + 10},v1={mac}",
        good.replace("v1", "v2"),
        good + "\x00",
    ):
        assert cn.deliver(body, signature) == 400, signature
    nothing_happened(payment)


def test_another_secret_is_refused(shop: cn.Shop) -> None:
    payment = waiting(shop)
    for secret in ("whsec_other", "", "sk_test_local"):
        body, signature = cn.signed(KIND, subject(payment), secret=secret)
        assert cn.deliver(body, signature) == 400
    nothing_happened(payment)


def test_a_body_that_was_read_and_written_again_is_refused(shop: cn.Shop) -> None:
    payment = waiting(shop)
    body, signature = cn.signed(KIND, subject(payment))
    again = json.dumps(json.loads(body)).encode()
    assert again != body
    assert cn.deliver(again, signature) == 400
    assert cn.deliver(body + b"\n", signature) == 400
    assert cn.deliver(body.replace(b"succeeded", b"canceled "), signature) == 400
    nothing_happened(payment)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"id": 1}', b'"x"'])
def test_a_signed_body_that_is_no_event_is_refused(shop: cn.Shop, body: bytes) -> None:
    signature = events.signature(body, "whsec_test_local", at=int(time.time()))
    assert cn.deliver(body, signature) == 400
    assert not StripeEvent.objects.exists()


def test_an_event_of_the_other_mode_changes_nothing(shop: cn.Shop) -> None:
    """The live secret signs for live books alone."""
    payment = waiting(shop)
    body, signature = cn.signed(KIND, subject(payment), secret="whsec_live_local", live=True)
    assert cn.deliver(body, signature) == 200
    payment.refresh_from_db()
    assert payment.status == "pending"


def test_an_event_of_another_account_changes_nothing(shop: cn.Shop) -> None:
    other = cn.Shop()
    accounts.set_keys(
        other.merchant,
        secret_key="sk_test_other",
        publishable_key="pk_test_other",
        webhook_secret="whsec_other",
        actor="Ana",
    )
    payment = waiting(shop)
    body, signature = cn.signed(KIND, subject(payment), secret="whsec_other")
    door = f"/webhooks/stripe/{other.merchant.public_id}"
    assert cn.deliver(body, signature, to=door) == 200
    assert cn.deliver(body, signature) == 400
    body, signature = cn.signed(KIND, subject(payment), name="evt_c", account="acct_else")
    assert cn.deliver(body, signature) == 200
    payment.refresh_from_db()
    assert payment.status == "pending"


def test_what_the_event_says_is_not_believed(shop: cn.Shop) -> None:
    """Signed, but untrue: nothing was paid, or not that much. The network is asked."""
    payment = waiting(shop, paid=False)
    said = subject(payment) | {"amount": 1, "amount_received": 10**9, "currency": "eur"}
    body, signature = cn.signed(KIND, said)
    assert cn.deliver(body, signature) == 200
    payment.refresh_from_db()
    assert payment.status == "pending"
    assert credits.balance(payment.connection, now=shop.now).bundle == 0


def test_an_amount_that_differs_from_ours_grants_nothing_and_is_flagged(shop: cn.Shop) -> None:
    payment = waiting(shop)
    Payment.objects.filter(pk=payment.pk).update(amount=Decimal("9.00"))
    body, signature = cn.signed(KIND, subject(payment))
    assert cn.deliver(body, signature) == 200
    payment.refresh_from_db()
    assert payment.flag.startswith("The card network took $10.00, not $9.00")
    assert not payment.grants.exists()
    assert credits.balance(payment.connection, now=shop.now).bundle == 0
    assert not Event.objects.filter(
        name="payment.succeeded", data__payment_id=payment.public_id
    ).exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("charge.refunded", {"object": "charge", "id": "ch_1", "amount_refunded": 1000}),
        ("refund.created", {"object": "refund", "id": "re_1", "amount": 1000}),
        ("refund.failed", {"object": "refund", "id": "re_1", "status": "failed"}),
    ],
)
def test_refunds_that_were_never_made_change_nothing(
    shop: cn.Shop, kind: str, said: dict[str, Any]
) -> None:
    connection = shop.subscribe()
    payment = cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)
    body, signature = cn.signed(kind, said | {"payment_intent": payment.intent_id})
    assert cn.deliver(body, signature) == 200
    assert not Refund.objects.exists()
    assert credits.balance(connection, now=shop.now).bundle == Decimal(10)


def test_a_dispute_of_another_payment_takes_nothing_from_this_one(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    first = cn.buy(connection, bundle, now=shop.now)
    second = cn.buy(connection, bundle, now=shop.now)
    dispute = card_network.control("disputes/open", {"payment_intent": second.intent_id})
    body, signature = cn.signed(
        "charge.dispute.created", dispute | {"payment_intent": first.intent_id}, name="evt_lie"
    )
    assert cn.deliver(body, signature) == 200
    assert not Dispute.objects.exists()
    assert not LedgerEntry.objects.filter(kind="clawback").exists()


def test_a_dispute_that_does_not_exist_changes_nothing(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)
    said = {"id": "du_never", "object": "dispute", "payment_intent": payment.intent_id}
    body, signature = cn.signed("charge.dispute.created", said)
    assert cn.deliver(body, signature) == 200
    assert not Dispute.objects.exists()


def test_a_card_that_is_still_saved_is_not_forgotten(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    said = {"id": connection.card.card_id, "object": "payment_method"}
    body, signature = cn.signed("payment_method.detached", said)
    assert cn.deliver(body, signature) == 200
    assert connection.card is not None


def test_other_methods_are_refused(shop: cn.Shop) -> None:
    for method in ("get", "put", "patch", "delete"):
        assert getattr(Client(), method)("/webhooks/stripe").status_code == 405


def test_while_the_network_is_away_the_event_stays_for_its_next_delivery(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    payment = waiting(shop)
    body, signature = cn.signed(KIND, subject(payment))
    cn.fault(card_network, "drop_before", method="GET", path="/v1/payment_intents/*")
    assert cn.deliver(body, signature) == 503
    payment.refresh_from_db()
    assert payment.status == "unknown"
    assert StripeEvent.objects.get().handled_at is None
    assert cn.deliver(body, signature) == 200
    payment.refresh_from_db()
    assert payment.status == "succeeded"
