from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client

from billing import credits, payments
from billing.models import Connection, Merchant, OutboxMessage, Payment, Subscription
from checkout import sessions
from checkout.models import CheckoutSession
from lava.demo.card_network.process import CardNetwork
from tests import factories
from tests.checkout.visitor import (
    CARD,
    DECLINED,
    PHONE,
    Visitor,
    confirm_card,
    last_code,
    make_session,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def merchant() -> Merchant:
    return factories.make_merchant()


@pytest.fixture
def visitor(merchant: Merchant, network: CardNetwork) -> Visitor:
    visitor = Visitor(make_session(merchant, plan=factories.make_plan(merchant)), embedded=True)
    visitor.confirm_phone()
    return visitor


@pytest.fixture
def subscriber(merchant: Merchant, network: CardNetwork) -> Connection:
    """Somebody on a plan with a pack, with a saved card."""
    plan = factories.make_plan(merchant, when_depleted="block")
    factories.make_bundle(plan)
    session = sessions.complete_with_test_card(
        make_session(merchant, plan=plan), phone=PHONE, card=CARD, now=merchant.now()
    )
    session.buyer.customer.first_name, session.buyer.customer.email = "Mara", "m@x.example"
    session.buyer.customer.save()
    return session.buyer


def charges(network: CardNetwork) -> int:
    rows = network.control("journal?path=/v1/payment_intents&method=POST")["data"]
    return len({row["idempotency_key"] for row in rows})


def test_a_paid_plan_opens_with_its_credits(visitor: Visitor, network: CardNetwork) -> None:
    assert visitor.pay(network.url).json() == {"status": "done"}
    session = visitor.session
    session.refresh_from_db()
    assert session.state == "completed"
    connection = session.buyer
    assert connection.status == "active"
    assert connection.customer.name == "Mara Lindqvist"
    assert credits.balance(connection, now=session.merchant.now()).total == Decimal(25)
    assert session.payment is not None and session.payment.status == "succeeded"
    assert str(connection.card) == "Visa ending 4242"


def test_the_done_page_says_what_they_have_and_tells_the_parent(
    visitor: Visitor, network: CardNetwork
) -> None:
    visitor.pay(network.url)
    html = visitor.get().content.decode()
    assert "You have $25.00 of credits" in html
    assert "Visa ending 4242" in html
    assert "We sent the receipt to mara@tallgrass.example." in html
    assert "data-completed" in html
    assert f'data-connection="{visitor.session.connection.public_id}"' in html


def test_a_day_later_the_done_page_shows_nothing_of_it(
    visitor: Visitor, network: CardNetwork
) -> None:
    visitor.pay(network.url)
    CheckoutSession.objects.update(
        created_at=visitor.session.created_at - timedelta(days=2),
        expires_at=visitor.session.expires_at - timedelta(days=2),
    )
    answer = visitor.get()
    assert answer.status_code == 410
    assert "mara@" not in answer.content.decode()


def test_a_decline_keeps_the_step_and_says_that_nothing_was_charged(
    visitor: Visitor, network: CardNetwork
) -> None:
    answer = visitor.pay(network.url, DECLINED).json()
    assert answer["status"] == "declined"
    assert answer["title"] == "Your bank declined this card"
    assert answer["text"].startswith("Nothing was charged and your plan has not started.")
    html = visitor.get().content.decode()
    assert 'value="Mara Lindqvist"' in html and 'value="mara@tallgrass.example"' in html
    assert 'role="alert"' in html and "Your bank declined this card" in html
    visitor.session.refresh_from_db()
    assert visitor.session.state == "paying"


def test_a_decline_without_script_is_the_same_page(visitor: Visitor, network: CardNetwork) -> None:
    confirm_card(network.url, visitor.press_pay().json()["client_secret"], DECLINED)
    answer = visitor.complete(accept="text/html")
    assert answer.status_code == 200
    assert "Your bank declined this card" in answer.content.decode()


@pytest.mark.parametrize(
    ("card", "title"),
    [
        ("4000000000009995", "This card has too little money on it"),
        ("4000000000000069", "This card has expired"),
        ("4000000000000127", "The security code does not match the card"),
    ],
)
def test_a_decline_with_a_mend_says_it(
    visitor: Visitor, network: CardNetwork, card: str, title: str
) -> None:
    assert visitor.pay(network.url, card).json()["title"] == title


def test_after_a_decline_another_card_pays_the_same_payment(
    visitor: Visitor, network: CardNetwork
) -> None:
    visitor.pay(network.url, DECLINED)
    assert visitor.pay(network.url).json() == {"status": "done"}
    assert Payment.objects.count() == 1
    assert charges(network) == 1


def test_an_unfinished_payment_says_so(visitor: Visitor, network: CardNetwork) -> None:
    visitor.press_pay()
    answer = visitor.complete().json()
    assert answer["status"] == "unpaid"
    assert answer["text"].startswith("Nothing was charged.")


def test_three_d_secure_waits_for_its_owner(visitor: Visitor, network: CardNetwork) -> None:
    intent = visitor.press_pay().json()["client_secret"]
    confirm_card(network.url, intent, "4000002500003155")
    assert visitor.complete().json()["status"] == "unpaid"
    order = {"intent": intent.partition("_secret_")[0], "approve": True}
    network.control("authenticate", order)
    assert visitor.complete().json() == {"status": "done"}


def test_amounts_that_the_page_posts_are_ignored(visitor: Visitor, network: CardNetwork) -> None:
    visitor.press_pay(amount="0.50", price="0.50", plan="sc_x", currency="JPY")
    (payment,) = Payment.objects.all()
    assert payment.amount == visitor.session.plan.price
    (call,) = network.control("journal?path=/v1/payment_intents&method=POST")["data"]
    assert (call["params"]["amount"], call["params"]["currency"]) == ("2500", "usd")


def test_pressed_twice_it_is_one_payment(visitor: Visitor, network: CardNetwork) -> None:
    one, two = visitor.press_pay().json(), visitor.press_pay().json()
    assert one == two
    assert Payment.objects.count() == 1
    assert charges(network) == 1


def test_completed_twice_it_is_one_subscription(visitor: Visitor, network: CardNetwork) -> None:
    nonce = visitor.nonce
    visitor.pay(network.url)
    assert visitor.complete(nonce=nonce).json() == {"status": "done"}
    assert visitor.press_pay(nonce=nonce).status_code == 410
    assert Subscription.objects.count() == 1
    assert charges(network) == 1


def test_a_step_replayed_after_completion_is_410_and_says_done(
    visitor: Visitor, network: CardNetwork
) -> None:
    nonce = visitor.nonce
    visitor.pay(network.url)
    for step in ("phone", "code", "resend", "restart", "bundle"):
        answer = visitor.post(step, nonce=nonce, country="US", phone=PHONE, code="123456")
        if step == "code":
            assert answer.status_code in (410, 422)
        assert "You have" not in answer.content.decode()
        assert answer.status_code == 410, step
        assert "This checkout is done" in answer.content.decode()


def test_a_browser_that_vanished_is_completed_by_the_webhook(
    visitor: Visitor, network: CardNetwork
) -> None:
    confirm_card(network.url, visitor.press_pay().json()["client_secret"])
    now = visitor.session.merchant.now()
    payment = payments.refresh(Payment.objects.get(), now=now)
    sessions.complete_for_payment(payment, now=now)
    sessions.complete_for_payment(payment, now=now)
    assert "You have $25.00 of credits" in visitor.get().content.decode()


def test_a_page_opened_again_finds_the_payment_itself(
    visitor: Visitor, network: CardNetwork
) -> None:
    confirm_card(network.url, visitor.press_pay().json()["client_secret"])
    assert "You have $25.00 of credits" in visitor.get().content.decode()
    visitor.session.refresh_from_db()
    assert visitor.session.state == "completed"


def test_a_paid_checkout_whose_page_and_webhook_are_lost_is_found_before_it_expires(
    visitor: Visitor, network: CardNetwork
) -> None:
    confirm_card(network.url, visitor.press_pay().json()["client_secret"])
    later = visitor.session.expires_at + timedelta(minutes=1)
    sessions.expire(now=later)
    visitor.session.refresh_from_db()
    assert visitor.session.state == "completed"
    assert Subscription.objects.count() == 1


def test_an_old_session_expires_and_a_young_one_does_not(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant)
    old = make_session(merchant, plan=plan, now=merchant.now() - timedelta(hours=24))
    young = make_session(merchant, plan=plan)
    assert sessions.expire(now=merchant.now()) == 1
    old.refresh_from_db()
    young.refresh_from_db()
    assert (old.state, young.state) == ("expired", "open")


def test_sessions_expire_on_their_merchants_clock(merchant: Merchant) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    real = merchant.now()
    merchant.clock_offset = timedelta(days=2)
    merchant.save()
    assert sessions.expire(now=real) == 1
    assert Visitor(session).get().status_code == 410


def test_with_the_network_away_nothing_is_charged_and_the_page_says_so(
    visitor: Visitor, network: CardNetwork
) -> None:
    network.control("faults", {"action": "drop_before", "path": "*", "times": 9})
    answer = visitor.press_pay()
    assert answer.status_code == 503
    assert answer.json()["text"].startswith("Nothing was charged.")
    network.control("faults", method="DELETE")
    assert visitor.pay(network.url).json() == {"status": "done"}


def test_what_the_network_says_of_our_call_is_not_shown(
    visitor: Visitor, network: CardNetwork
) -> None:
    visitor.session.plan.price = visitor.session.plan.price / 100
    visitor.session.plan.save()
    CheckoutSession.objects.update(amount=visitor.session.plan.price.amount)
    answer = visitor.press_pay()
    assert answer.status_code == 422
    assert answer.json()["title"] == "The payment could not be started"
    assert "card network" not in answer.json()["text"]


def test_an_answer_lost_on_the_way_charges_once(visitor: Visitor, network: CardNetwork) -> None:
    network.control("faults", {"action": "drop", "path": "/v1/payment_intents", "times": 1})
    assert visitor.press_pay().status_code == 200
    assert visitor.pay(network.url).json() == {"status": "done"}
    assert charges(network) == 1


def test_a_payment_the_bank_still_checks_is_waited_for(
    visitor: Visitor, network: CardNetwork
) -> None:
    visitor.press_pay()
    Payment.objects.update(status="unknown")
    network.control("faults", {"action": "drop_before", "path": "*", "times": 9})
    assert visitor.complete().json() == {"status": "waiting"}
    answer = visitor.get()
    assert "Your bank is checking the payment" in answer.content.decode()
    assert 'http-equiv="refresh"' in answer.content.decode()


def test_a_newer_checkout_takes_over_from_an_unpaid_one(
    visitor: Visitor, network: CardNetwork, merchant: Merchant
) -> None:
    old = visitor.press_pay().json()["client_secret"]
    newer = Visitor(make_session(merchant, plan=visitor.session.plan))
    newer.confirm_phone()
    assert newer.pay(network.url).json() == {"status": "done"}
    refusal = confirm_card(network.url, old)
    assert "error" in refusal
    assert "A newer checkout took over" in visitor.get().content.decode()
    assert Subscription.objects.count() == 1
    assert Payment.objects.filter(status="succeeded").count() == 1


def test_a_returning_customer_pays_a_pack_with_the_saved_card(
    subscriber: Connection, network: CardNetwork, merchant: Merchant
) -> None:
    bundle = subscriber.subscription.plan.live_bundles.get()
    visitor = Visitor(
        make_session(merchant, mode="credit_bundle", bundle=bundle, connection=subscriber)
    )
    first = visitor.get().content.decode()
    assert "We text a 6-digit code to" in first and 'name="phone"' not in first
    visitor.confirm_phone()
    html = visitor.get().content.decode()
    assert "Visa ending 4242" in html and "Credits after" in html and "Not you?" not in html
    intent = visitor.press_pay(name="", email="", card="saved").json()
    assert intent["payment_method"] == subscriber.card.card_id
    confirm_card(network.url, intent["client_secret"], intent["payment_method"])
    assert visitor.complete().json() == {"status": "done"}
    assert credits.balance(subscriber, now=merchant.now()).bundle == Decimal(10)


def test_a_top_up_chooses_among_the_plans_packs(
    subscriber: Connection, network: CardNetwork, merchant: Merchant
) -> None:
    factories.make_bundle(subscriber.subscription.plan, cost="50", credit="55")
    foreign = factories.make_bundle(factories.make_plan(merchant, name="Other"), cost="1")
    visitor = Visitor(make_session(merchant, mode="topup", connection=subscriber))
    visitor.confirm_phone()
    html = visitor.get().content.decode()
    assert "Pack 10" in html and "$55.00 of credits" in html and foreign.public_id not in html
    assert visitor.press_pay(nonce=visitor.nonce).status_code == 409
    assert visitor.post("bundle", bundle=foreign.public_id).status_code == 400
    assert visitor.post("bundle", bundle="cb_nonsense").status_code == 404
    chosen = subscriber.subscription.plan.live_bundles.get(name="Pack 50")
    assert visitor.post("bundle", bundle=chosen.public_id).status_code == 303
    assert "Pay $50.00" in visitor.get().content.decode()
    assert visitor.post("bundle", bundle="").status_code == 303
    visitor.post("bundle", bundle=chosen.public_id)
    visitor.pay(network.url)
    assert credits.balance(subscriber, now=merchant.now()).bundle == Decimal(55)


def test_a_free_plan_that_never_charges_asks_for_no_card(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant, price="0", credit="5", when_depleted="block")
    visitor = Visitor(make_session(merchant, plan=plan))
    visitor.confirm_phone()
    html = visitor.get().content.decode()
    assert "Card number" not in html and "Start Studio" in html
    wrong = visitor.post("complete", name="", email="nobody")
    assert wrong.status_code == 422
    assert "Enter your full name." in wrong.content.decode()
    assert visitor.post("complete", name="Kim Li", email="k@x.example").status_code == 303
    assert "You have $5.00 of credits" in visitor.get().content.decode()
    assert not Payment.objects.exists()


def test_a_free_plan_with_a_cardless_press_cannot_skip_its_card(
    merchant: Merchant, network: CardNetwork
) -> None:
    visitor = Visitor(make_session(merchant, plan=factories.make_plan(merchant, price="0")))
    visitor.confirm_phone()
    assert visitor.post("complete", name="Kim", email="k@x.example").status_code == 409
    assert not Subscription.objects.exists()
    visitor.pay(network.url, DECLINED)
    assert not Subscription.objects.exists()
    assert visitor.pay(network.url).json() == {"status": "done"}
    assert Subscription.objects.get().connection.card is not None
    assert not Payment.objects.exists()


def test_onboarding_saves_a_card_and_charges_nothing(
    merchant: Merchant, network: CardNetwork
) -> None:
    visitor = Visitor(make_session(merchant, mode="onboarding"))
    visitor.confirm_phone()
    answer = visitor.pay(network.url, DECLINED).json()
    assert "the card was not saved" in answer["text"]
    assert visitor.pay(network.url).json() == {"status": "done"}
    assert "Your card is saved" in visitor.get().content.decode()
    connection = Connection.objects.get()
    assert (connection.status, str(connection.card)) == ("active", "Visa ending 4242")
    assert charges(network) == 0


def test_a_saved_card_whose_browser_vanished_is_completed_by_the_webhook(
    merchant: Merchant, network: CardNetwork
) -> None:
    visitor = Visitor(make_session(merchant, mode="onboarding"))
    visitor.confirm_phone()
    secret = visitor.press_pay().json()["client_secret"]
    confirm_card(network.url, secret)
    sessions.complete_for_setup(secret.partition("_secret_")[0])
    assert "Your card is saved" in visitor.get().content.decode()


def test_the_receipt_is_read_by_its_address_alone(visitor: Visitor, network: CardNetwork) -> None:
    visitor.pay(network.url)
    mail = OutboxMessage.objects.get(subject__startswith="Receipt")
    path = mail.body.partition("/receipts/")[2].split()[0]
    answer = Client().get(f"/receipts/{path}")
    html = answer.content.decode()
    assert "$25.00 paid" in html and "Mara Lindqvist" in html and "Visa ending 4242" in html
    assert answer["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
    assert Client().get(f"/receipts/{path[:-1]}x").status_code == 404


def test_the_database_refuses_a_checkout_that_skips_the_phone(merchant: Merchant) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    with pytest.raises(IntegrityError, match="only_a_confirmed_phone"), transaction.atomic():
        CheckoutSession.objects.filter(pk=session.pk).update(state="paying")


def test_the_database_refuses_another_merchants_plan(merchant: Merchant) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    foreign: Any = factories.make_plan(factories.make_merchant())
    with pytest.raises(IntegrityError, match="a_checkout_is_of_its_plans"), transaction.atomic():
        CheckoutSession.objects.filter(pk=session.pk).update(plan=foreign)


def test_a_session_without_its_phone_shows_no_saved_card(
    subscriber: Connection, merchant: Merchant
) -> None:
    bundle = subscriber.subscription.plan.live_bundles.get()
    visitor = Visitor(
        make_session(merchant, mode="credit_bundle", bundle=bundle, connection=subscriber)
    )
    visitor.send()
    html = visitor.get().content.decode()
    assert "4242" not in html
    assert last_code(merchant)
