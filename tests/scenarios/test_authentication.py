"""A bank that wants its cardholder when nobody is there (3-D Secure): the customer gets a link, and
nothing is granted until it is paid."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client

from billing import clock, credits, overage, payments, receipts, renewals, subscriptions, sweep
from billing.models import Connection, Event, OutboxMessage, Payment, PaymentAttempt
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests.checkout.visitor import confirm_card

pytestmark = pytest.mark.django_db

MAIL = "mara@tallgrass.example"


def subscriber(shop: cn.Shop, network: CardNetwork, card: str = cn.ASKS_ALWAYS) -> Connection:
    """Somebody whose bank wants them for every charge."""
    connection = shop.subscribe()
    customer = connection.customer
    customer.email, customer.first_name = MAIL, "Mara"
    customer.save()
    cn.behave_as(network, connection, card)
    return connection


def renewal() -> Payment:
    found: Payment = Payment.objects.filter(purpose="renewal").latest("created_at")
    return found


def path_of(payment: Payment) -> str:
    return receipts.pay_address(payment).removeprefix(settings.LAVA_BASE_URL)


def press(path: str, network: CardNetwork, *, card: str = "saved", approve: bool = True) -> Any:
    """What the page's script does, and the cardholder in the bank's dialog."""
    client = Client(enforce_csrf_checks=True)
    body = json.dumps({"card": "saved" if card == "saved" else "new", "nonce": ""})
    intent = client.post(f"{path}/begin", body, content_type="application/json").json()
    method = intent["payment_method"] or card
    answer = confirm_card(network.url, intent["client_secret"], method)
    if answer.get("status") == "requires_action":
        network.control("authenticate", {"intent": answer["id"], "approve": approve})
    return client.post(f"{path}/finish", headers={"Accept": "application/json"}).json()


def test_a_renewal_waits_for_the_customer_and_grants_nothing_until_they_confirm(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    payment = renewal()
    assert (payment.status, payment.failure_code) == (
        "requires_action",
        "authentication_required",
    )
    assert connection.subscription.status == "past_due"
    assert credits.balance(connection, now=shop.now).total == Decimal(25)
    mail = OutboxMessage.objects.get(subject__startswith="Confirm your payment")
    link = re.search(r"http\S+/pay/\S+", mail.body)
    assert link is not None and link.group() == receipts.pay_address(payment)
    event = Event.objects.get(name="payment.action_required")
    assert event.data["url"] == link.group()

    page = Client().get(path_of(payment))
    assert page.status_code == 200 and "Confirm $25.00" in page.content.decode()
    assert press(path_of(payment), card_network) == {"status": "done"}
    payment.refresh_from_db()
    assert payment.status == "succeeded" and payment.action_until is None
    assert credits.balance(connection, now=shop.now).total == Decimal(50)
    assert connection.subscription.status == "active"
    assert "$25.00 paid" in Client().get(path_of(payment)).content.decode()
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


def test_the_webhook_alone_settles_when_the_browser_has_gone(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    payment = renewal()
    client = Client()
    intent = client.post(f"{path_of(payment)}/begin", "{}", content_type="application/json").json()
    answer = confirm_card(card_network.url, intent["client_secret"], connection.card.card_id)
    card_network.control("authenticate", {"intent": answer["id"]})
    for _ in range(2):
        cn.deliver_all(
            card_network,
            "payment_intent.payment_failed",
            "payment_intent.requires_action",
            "payment_intent.succeeded",
            merchant=shop.merchant,
        )
    payment.refresh_from_db()
    assert payment.status == "succeeded"
    assert credits.balance(connection, now=shop.now).total == Decimal(50)


def test_refused_in_the_banks_dialog_it_may_be_tried_again(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    payment = renewal()
    answer = press(path_of(payment), card_network, approve=False)
    assert answer["title"] == "Your bank could not confirm that it was you"
    payment.refresh_from_db()
    assert payment.status == "requires_action"
    assert press(path_of(payment), card_network) == {"status": "done"}
    assert OutboxMessage.objects.filter(subject__startswith="Confirm your").count() == 1
    tried = PaymentAttempt.objects.filter(payment=payment).values_list("code", flat=True)
    assert list(tried) == [
        "authentication_required",
        "payment_intent_authentication_failure",
        "",
    ]


def test_another_card_pays_it_and_is_used_from_then_on(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    payment = renewal()
    assert press(path_of(payment), card_network, card="5555555555554444") == {"status": "done"}
    assert str(connection.card) == "Mastercard ending 4444"
    shop.renew(connection)
    assert renewal().status == "succeeded" and renewal().pk != payment.pk


def test_a_card_that_asks_once_is_set_up_by_confirming(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    card_network.control(
        "cards", {"payment_method": connection.card.card_id, "behave_as": cn.ASKS_ONCE}
    )
    shop.renew(connection)
    assert renewal().status == "succeeded"


def test_each_day_of_the_schedule_has_a_link_of_its_own_and_the_last_ends_it_unpaid(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(rollover_type="none")
    connection = subscriber(shop, card_network)
    subscription = connection.subscription
    end = subscription.cycle_end
    seen = []
    for day in range(9):
        clock.advance(shop.merchant, to=end + timedelta(days=day, hours=1))
        rows = Payment.objects.filter(purpose="renewal").order_by("created_at", "pk")
        seen.append([row.status for row in rows])
    waits, over = "requires_action", "failed"
    assert seen[0] == [waits]
    assert seen[1] == seen[2] == [over, waits]
    assert seen[3] == seen[4] == [over, over, waits]
    assert seen[5] == seen[6] == [over, over, over, waits]
    assert seen[7] == seen[8] == [over] * 5
    subscription.refresh_from_db()
    assert (subscription.status, subscription.ended_at) == ("cancelled", end + timedelta(days=7))
    assert OutboxMessage.objects.filter(subject__startswith="Confirm your").count() == 4
    first = Payment.objects.filter(purpose="renewal").earliest("created_at")
    page = Client().get(path_of(first))
    assert page.status_code == 410 and "nothing to confirm" in page.content.decode()
    begun = Client().post(f"{path_of(first)}/begin", "{}", content_type="application/json")
    assert (begun.status_code, begun.json()) == (410, {"reload": True})
    statuses = {row["status"] for row in cn.at_network(shop.merchant, "payment_intents")}
    assert statuses == {"succeeded", "canceled", "requires_payment_method"}


def test_paid_at_the_very_end_of_the_link_it_is_settled_not_given_up(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    payment = renewal()
    client = Client()
    intent = client.post(f"{path_of(payment)}/begin", "{}", content_type="application/json").json()
    answer = confirm_card(card_network.url, intent["client_secret"], connection.card.card_id)
    card_network.control("authenticate", {"intent": answer["id"]})
    assert payment.action_until is not None
    clock.advance(shop.merchant, to=payment.action_until + timedelta(hours=1))
    payment.refresh_from_db()
    assert payment.status == "succeeded"
    assert Payment.objects.filter(purpose="renewal").count() == 1
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)


def test_overage_that_waits_is_held_and_owed_again_when_the_link_is_over(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.use(connection, "r1", "37")
    payment = overage.collect(connection.pk, now=shop.now)
    assert payment is not None and payment.status == "requires_action"
    connection.refresh_from_db()
    assert (connection.debt, connection.collecting) == (12, 12)
    assert overage.collect(connection.pk, now=shop.now) is None
    assert payment.action_until is not None
    clock.advance(shop.merchant, to=payment.action_until)
    payment.refresh_from_db()
    assert payment.status == "failed"
    again = Payment.objects.filter(purpose="overage").latest("created_at")
    assert again.status == "requires_action" and again.pk != payment.pk
    assert press(path_of(again), card_network) == {"status": "done"}
    connection.refresh_from_db()
    assert (connection.debt, connection.collecting) == (0, 0)


def test_a_subscription_that_ended_meanwhile_is_not_paid_through_the_link(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    payment = renewal()
    subscriptions.end(connection.subscription, now=shop.now)
    begun = Client().post(f"{path_of(payment)}/begin", "{}", content_type="application/json")
    assert begun.status_code == 410
    payment.refresh_from_db()
    assert payment.status == "failed"
    assert len(cn.taken(shop.merchant)) == 1


@pytest.mark.parametrize("action", ["drop", "error_after"])
def test_an_answer_that_never_came_still_ends_in_a_link(
    card_network: CardNetwork, action: str
) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    cn.fault(card_network, action)
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end, run=False)
    unknown = renewals.renew(connection.subscription.pk, now=end)
    assert unknown is not None and unknown.status == "unknown"
    assert payments.refresh(unknown, now=end).status == "requires_action"
    assert Payment.objects.filter(purpose="renewal").count() == 1
    assert OutboxMessage.objects.filter(subject__startswith="Confirm your").count() == 1


def test_the_sweep_does_not_ask_about_a_waiting_charge_again_and_again(
    card_network: CardNetwork,
) -> None:
    from django.utils import timezone

    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    now = timezone.now()
    assert sweep.payments_open(now + timedelta(minutes=10), shop.merchant) == []
    assert sweep.payments_open(now + timedelta(hours=2), shop.merchant) == [renewal().pk]


@pytest.mark.parametrize("token", ["x", "abc:def", "0" * 32 + ":" + "A" * 43])
def test_a_link_that_is_not_ours_opens_nothing(card_network: CardNetwork, token: str) -> None:
    client = Client()
    for path in (f"/pay/{token}", f"/card/{token}", f"/receipts/{token}", f"/receipts/{token}.pdf"):
        assert client.get(path).status_code == 404
    assert client.post(f"/pay/{token}/begin").status_code == 404
    assert client.post(f"/card/{token}").status_code == 404


def test_a_link_to_a_receipt_or_a_card_is_no_link_to_pay(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    token = receipts.address(renewal()).rpartition("/")[2]
    assert Client().get(f"/pay/{token}").status_code == 404
    token = receipts.card_address(connection).rpartition("/")[2]
    assert Client().get(f"/pay/{token}").status_code == 404


@pytest.mark.django_db(transaction=True)
def test_paid_while_twenty_withdraw_it_is_settled_once(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = subscriber(shop, card_network)
    shop.renew(connection)
    payment = renewal()
    intent = payments.present_action(payment, now=shop.now)
    answer = confirm_card(card_network.url, intent.client_secret, connection.card.card_id)
    card_network.control("authenticate", {"intent": answer["id"]})
    answers = cn.at_once(20, lambda: payments.give_up(payment.pk, now=shop.now))
    assert {type(answer) for answer in answers} <= {Payment, OperationalError}
    assert payments.refresh(payment, now=shop.now).status == "succeeded"
    assert credits.balance(connection, now=shop.now).total == Decimal(50)
    assert Event.objects.filter(name="subscription.renewed").count() == 1
