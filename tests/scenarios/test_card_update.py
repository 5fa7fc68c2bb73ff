"""A new card: what could not be charged is tried again. A card that is gone is not asked."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.conf import settings
from django.test import Client

from billing import cards, clock, credits, overage, payments, receipts, renewals, sweep
from billing.models import Connection, Event, OutboxMessage, Payment, PaymentAttempt, Subscription
from checkout.models import CheckoutSession
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests.checkout.visitor import Visitor, confirm_card

pytestmark = pytest.mark.django_db


def declined_at_renewal(shop: cn.Shop, network: CardNetwork) -> Connection:
    connection = shop.subscribe()
    customer = connection.customer
    customer.email, customer.first_name, customer.last_name = "m@x.example", "Mara", "Lindqvist"
    customer.save()
    cn.behave_as(network, connection, cn.DECLINES_LATER)
    shop.renew(connection)
    assert connection.subscription.status == "past_due"
    return connection


def statuses(purpose: str) -> list[str]:
    rows = Payment.objects.filter(purpose=purpose).order_by("created_at", "pk")
    return [row.status for row in rows]


def test_a_past_due_renewal_is_paid_at_once_by_the_new_card(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = declined_at_renewal(shop, card_network)
    cn.save_card(connection, "5555555555554444", now=shop.now)
    sweep.run(shop.merchant, now=shop.now)
    assert statuses("renewal") == ["failed", "succeeded"]
    assert connection.subscription.status == "active"
    assert credits.balance(connection, now=shop.now).total == Decimal(50)


def test_overage_that_was_declined_is_collected_from_the_new_card(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    shop.use(connection, "r1", "37")
    assert overage.collect(connection.pk, now=shop.now).status == "failed"  # type: ignore[union-attr]
    assert overage.collect(connection.pk, now=shop.now) is None
    cn.save_card(connection, cn.GOOD, now=shop.now)
    sweep.run(shop.merchant, now=shop.now)
    connection.refresh_from_db()
    assert connection.debt == 0 and statuses("overage") == ["failed", "succeeded"]


def test_a_link_that_waits_makes_room_for_the_new_card(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    cn.behave_as(card_network, connection, cn.ASKS_ALWAYS)
    shop.renew(connection)
    assert statuses("renewal") == ["requires_action"]
    cn.save_card(connection, cn.GOOD, now=shop.now)
    sweep.run(shop.merchant, now=shop.now)
    assert statuses("renewal") == ["failed", "succeeded"]
    assert len(cn.taken(shop.merchant)) == 2


def test_a_new_card_that_declines_too_does_not_use_up_a_day_of_the_schedule(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = declined_at_renewal(shop, card_network)
    since = connection.subscription.past_due_since
    for number in (cn.DECLINES_LATER, cn.DECLINES_LATER):
        cn.save_card(connection, number, now=shop.now)
        sweep.run(shop.merchant, now=shop.now)
        assert connection.subscription.next_attempt_at == since + timedelta(days=1)
    clock.advance(shop.merchant, to=since + timedelta(days=6))
    assert Subscription.objects.get().status == "past_due"
    clock.advance(shop.merchant, to=since + timedelta(days=7))
    assert Subscription.objects.get().status == "cancelled"


def test_the_same_card_again_tries_nothing_again(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = declined_at_renewal(shop, card_network)
    before = connection.subscription.next_attempt_at
    payments_before = Payment.objects.count()
    from django.db import transaction

    from billing import ledger, settlement, stripe

    card = connection.card
    same = stripe.Card(card.card_id, card.brand, card.last4, card.exp_month, card.exp_year)
    with transaction.atomic():
        settlement.save_card(ledger.lock(connection.pk), same, now=shop.now)
    sweep.run(shop.merchant, now=shop.now)
    assert connection.subscription.next_attempt_at == before
    assert Payment.objects.count() == payments_before


def test_the_mail_of_a_decline_leads_to_a_page_that_replaces_the_card(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = declined_at_renewal(shop, card_network)
    mail = OutboxMessage.objects.get(subject__contains="could not charge")
    address = receipts.card_address(connection)
    assert address in mail.body
    path = address.removeprefix(settings.LAVA_BASE_URL)
    page = Client().get(path)
    assert page.status_code == 200 and "Visa ending 4242" in page.content.decode()
    client = Client(enforce_csrf_checks=True)
    going = [client.post(path) for _ in range(2)]
    assert {answer.status_code for answer in going} == {303}
    # Pressed twice it is one checkout.
    session = CheckoutSession.objects.get(mode="onboarding")
    assert {answer["Location"] for answer in going} == {f"/checkout/{session.secret}"}

    visitor = Visitor(session)
    visitor.post("phone")
    from tests.checkout.visitor import last_code

    visitor.post("code", code=last_code(shop.merchant, connection.customer.phone))
    intent = visitor.press_pay().json()
    assert intent["kind"] == "setup"
    confirm_card(card_network.url, intent["client_secret"], "5555555555554444")
    assert visitor.complete().json() == {"status": "done"}
    assert str(connection.card) == "Mastercard ending 4444"
    sweep.run(shop.merchant, now=shop.now)
    assert connection.subscription.status == "active"


def test_without_the_phone_code_the_page_saves_nothing(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = declined_at_renewal(shop, card_network)
    path = receipts.card_address(connection).removeprefix(settings.LAVA_BASE_URL)
    Client().post(path)
    visitor = Visitor(CheckoutSession.objects.get(mode="onboarding"))
    assert visitor.press_pay().status_code == 409
    assert str(connection.card) == "Visa ending 4242"


def test_a_card_removed_at_the_network_mid_renewal_fails_once_and_is_forgotten(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    card_id = connection.card.card_id
    cn.post(shop.merchant, f"payment_methods/{card_id}/detach")
    shop.renew(connection)
    payment = Payment.objects.get(purpose="renewal")
    assert payment.status == "failed"
    assert connection.card is None
    assert Event.objects.filter(name="connection.card_removed").count() == 1
    cn.deliver_all(card_network, "payment_method.detached", merchant=shop.merchant)
    assert Event.objects.filter(name="connection.card_removed").count() == 1
    # The next tries say what is missing, without asking the network.
    clock.advance(shop.merchant, to=shop.now + timedelta(days=1, minutes=1))
    again = Payment.objects.filter(purpose="renewal").latest("created_at")
    assert (again.status, again.failure_code) == ("failed", "no_card")
    cn.save_card(connection, cn.GOOD, now=shop.now)
    sweep.run(shop.merchant, now=shop.now)
    assert connection.subscription.status == "active"


def test_a_card_removed_by_its_owner_is_gone_here_and_there(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    card_id = connection.card.card_id
    for _ in range(2):
        cards.remove(connection, now=shop.now)
    assert connection.card is None
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end, run=False)
    failed = renewals.renew(connection.subscription.pk, now=end)
    assert failed is not None and failed.failure_code == "no_card"
    rows = card_network.control(f"journal?path=/v1/payment_methods/{card_id}/detach")["data"]
    assert len(rows) == 1


def test_every_try_is_in_the_log_with_its_code_and_time(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    for number in ("4000000000009995", "4000000000000069"):
        cn.behave_as(card_network, connection, number)
        clock.advance(shop.merchant, to=end if number.endswith("9995") else end + timedelta(days=1))
    cn.behave_as(card_network, connection, cn.GOOD)
    clock.advance(shop.merchant, to=end + timedelta(days=3))
    log = PaymentAttempt.objects.filter(payment__purpose="renewal").order_by("at")
    assert [(row.code, row.succeeded, row.at, row.card) for row in log] == [
        ("insufficient_funds", False, end, "Visa ending 4242"),
        ("expired_card", False, end + timedelta(days=1), "Visa ending 4242"),
        ("", True, end + timedelta(days=3), "Visa ending 4242"),
    ]
    assert all(row.charge_id.startswith("ch_") for row in log)
    # Heard again, by the events, nothing is noted twice.
    cn.deliver_all(card_network, "payment_intent.payment_failed", merchant=shop.merchant)
    payments.refresh(Payment.objects.filter(purpose="renewal").latest("created_at"), now=shop.now)
    assert PaymentAttempt.objects.filter(payment__purpose="renewal").count() == 3
