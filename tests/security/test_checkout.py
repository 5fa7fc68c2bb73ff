"""The threats of the checkout and of its codes that no other test names: what is guessed, replayed,
framed, killed or told twice. Beside tests/checkout (test_parallel: all at once; test_origins:
frames and return addresses; test_paying: replays and posted amounts)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections as databases
from django.test import Client

from billing import settlement
from billing.models import Connection, Merchant, OutboxMessage, Payment, Subscription
from checkout import phones, sessions, views
from checkout.models import CheckoutSession, PhoneVerification
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.checkout.visitor import (
    CARD,
    PHONE,
    Visitor,
    confirm_card,
    last_code,
    make_session,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def merchant(card_network: CardNetwork) -> Merchant:
    return factories.make_merchant()


@pytest.fixture
def visitor(merchant: Merchant) -> Visitor:
    visitor = Visitor(make_session(merchant, plan=factories.make_plan(merchant)))
    visitor.confirm_phone()
    return visitor


def paid_once(merchant: Merchant) -> None:
    """One customer, one plan, one charge, here and at the card network; the books add up."""
    assert [row[1] for row in cn.taken(merchant)] == [2500]
    assert cn.taken(merchant) == cn.ours(merchant)
    assert Connection.objects.filter(status="active").count() == 1
    assert Subscription.objects.count() == Payment.objects.count() == 1
    assert CheckoutSession.objects.get().state == "completed"
    call_command("audit")


# --- The secret ----------------------------------------------------------------------------------


def test_secret_of_128_bits_or_more(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant)
    secrets = {make_session(merchant, plan=plan).secret for _ in range(50)}
    assert len(secrets) == 50
    for secret in secrets:
        # 43 letters of 62: 256 bits.
        assert re.fullmatch(r"css_[0-9A-Za-z]{43}", secret)
    # No two share where they begin: nothing of the id, the time or a counter is in them.
    assert len({secret[:8] for secret in secrets}) == 50


def test_secret_bound_to_its_server(merchant: Merchant, settings: Any) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    ours = session.secret
    settings.SECRET_KEY = "another server " * 5
    assert CheckoutSession.objects.get(pk=session.pk).secret != ours


def test_session_bound_to_merchant_plan_and_price(visitor: Visitor, merchant: Merchant) -> None:
    """What another form names is no other plan, and a price that moved is not charged."""
    dear = factories.make_plan(merchant, name="Dear", price="500", credit="1")
    answer = visitor.press_pay(plan=dear.public_id, amount="0.01", price="0.01", currency="JPY")
    payment = Payment.objects.get()
    assert answer.status_code == 200
    assert (payment.plan, payment.amount) == (visitor.session.plan, visitor.session.plan.price)


def test_secret_never_leaves_in_a_referrer(visitor: Visitor) -> None:
    page = visitor.get()
    assert page["Referrer-Policy"] == "no-referrer" and page["Cache-Control"] == "no-store"
    assert '<meta name="referrer" content="no-referrer">' in page.content.decode()


# --- Killed, and told twice ----------------------------------------------------------------------


def killed(act: Callable[[], Any], patch: Callable[[], Any]) -> None:
    """Run `act` in a process of its own that is killed with -9 where `patch` puts it."""
    databases.close_all()
    child = os.fork()
    if child == 0:
        try:
            patch()
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "it was not killed"


def die(*args: Any, **kwargs: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


POINTS = {
    "after the card, before the ledger": (settlement, "apply"),
    "after the ledger, before the session": (sessions.paying, "_mark_completed"),
    "after the commit, before the answer": (views, "JsonResponse"),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("found_by", ["page", "webhook", "sweep"])
def test_kill_9_between_charge_and_connection(
    visitor: Visitor, merchant: Merchant, card_network: CardNetwork, point: str, found_by: str
) -> None:
    confirm_card(card_network.url, visitor.press_pay().json()["client_secret"])
    killed(visitor.complete, lambda: setattr(*POINTS[point], die))
    if found_by == "page":
        assert "You have $25.00 of credits" in visitor.get().content.decode()
    elif found_by == "webhook":
        cn.deliver_all(card_network, "payment_intent.succeeded", merchant=merchant)
    else:
        sessions.expire(now=visitor.session.expires_at + timedelta(minutes=1))
    paid_once(merchant)
    # And whoever comes after that finds it done.
    visitor.complete()
    cn.deliver_all(card_network, merchant=merchant)
    paid_once(merchant)


@pytest.mark.parametrize("first", ["webhook", "answer"])
def test_webhook_before_or_after_the_answer(
    visitor: Visitor, merchant: Merchant, card_network: CardNetwork, first: str
) -> None:
    confirm_card(card_network.url, visitor.press_pay().json()["client_secret"])
    if first == "webhook":
        cn.deliver_all(card_network, merchant=merchant)
    assert visitor.complete().json() == {"status": "done"}
    for _ in range(3):
        cn.deliver_all(card_network, merchant=merchant)
    paid_once(merchant)


def test_webhook_and_answer_at_the_same_time(
    visitor: Visitor, merchant: Merchant, card_network: CardNetwork
) -> None:
    confirm_card(card_network.url, visitor.press_pay().json()["client_secret"])
    turns = iter([visitor.complete, lambda: cn.deliver_all(card_network, merchant=merchant)] * 4)
    acts = list(turns)
    answers = cn.at_once(8, lambda: acts.pop()())
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    visitor.get()
    paid_once(merchant)


# --- Codes ---------------------------------------------------------------------------------------


def test_code_of_six_digits_from_secrets(
    merchant: Merchant, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def below(most: int) -> int:
        drawn.append(most)
        return 42

    monkeypatch.setattr("checkout.phones.secrets.randbelow", below)
    visitor = Visitor(make_session(merchant, plan=factories.make_plan(merchant)))
    visitor.send()
    assert drawn == [10**6]
    assert last_code(merchant) == "000042"


def test_code_texts_to_one_merchant_have_a_daily_budget(
    merchant: Merchant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phones, "PER_MERCHANT", phones.Limit(3, timedelta(days=1)))
    plan = factories.make_plan(merchant)
    statuses = [
        Visitor(make_session(merchant, plan=plan), address=f"203.0.113.{number}")
        .send(f"+1415555020{number}")
        .status_code
        for number in range(5)
    ]
    assert statuses == [303, 303, 303, 429, 429]
    assert PhoneVerification.objects.count() == OutboxMessage.objects.count() == 3
    # Another merchant's customers are texted all the same.
    other = Visitor(make_session(factories.make_merchant(), plan=None, mode="onboarding"))
    assert other.send().status_code == 303


def test_code_texts_go_to_allowed_countries_alone(merchant: Merchant, settings: Any) -> None:
    settings.PHONE_COUNTRIES = ["US", "DE"]
    visitor = Visitor(make_session(merchant, plan=factories.make_plan(merchant)))
    html = visitor.get().content.decode()
    assert re.findall(r'<option value="(\w\w)"', html) == ["DE", "US"]
    for country, phone in (("GB", "07911 123456"), ("US", "+44 7911 123456"), ("", "+882 16 1")):
        answer = visitor.post("phone", country=country, phone=phone)
        assert answer.status_code == 422, phone
        assert "of the chosen country" in answer.content.decode()
    # Canada's numbers begin as those of the US do.
    assert visitor.post("phone", country="US", phone="+1 416 555 0142").status_code == 422
    assert not OutboxMessage.objects.exists()
    assert visitor.post("phone", country="DE", phone="0151 23456789").status_code == 303


def test_code_answers_alike_for_known_and_unknown_numbers(merchant: Merchant) -> None:
    """The same pages, byte for byte, but for what names the session."""
    plan = factories.make_plan(merchant)
    sessions.complete_with_test_card(
        make_session(merchant, plan=plan), phone=PHONE, card=CARD, now=merchant.now()
    )
    pages = []
    for phone in (PHONE, "+14155550242"):
        visitor = Visitor(make_session(merchant, plan=plan))
        assert visitor.send(phone).status_code == 303
        html = visitor.get().content.decode()
        for own in (visitor.session.secret, visitor.nonce):
            html = html.replace(own, "")
        pages.append(html)
    assert pages[0] == pages[1].replace("0242", "0142")


def test_code_of_one_merchant_opens_no_session_of_another(merchant: Merchant) -> None:
    ours = Visitor(make_session(merchant, plan=factories.make_plan(merchant)))
    other = factories.make_merchant()
    theirs = Visitor(make_session(other, plan=factories.make_plan(other)))
    ours.send()
    theirs.send()
    code = last_code(merchant)
    if code == last_code(other):
        pytest.skip("one in a million: both drew the same code")
    assert theirs.post("code", code=code).status_code == 422


# --- Forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["phone", "code", "resend", "restart", "bundle", "pay"])
@pytest.mark.parametrize("method", ["put", "delete", "patch", "options", "trace"])
def test_verb_tampering_does_nothing(visitor: Visitor, step: str, method: str) -> None:
    answer = getattr(Client(), method)(f"{visitor.base}/{step}")
    assert answer.status_code == 405
    visitor.session.refresh_from_db()
    assert visitor.session.state == "verified"
