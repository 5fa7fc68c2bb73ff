"""The same step many times at once: one code burns, one connection, one payment, one charge."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection as database

from billing.models import Connection, Merchant, Payment, Subscription
from checkout.models import CheckoutSession, PhoneVerification, PortalVisit
from lava.demo.card_network.process import CardNetwork
from tests import factories
from tests.checkout.test_portal import Guest
from tests.checkout.visitor import Visitor, another, confirm_card, last_code, make_session

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    def one(number: int) -> Any:
        try:
            return act(number)
        finally:
            database.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.fixture
def merchant() -> Merchant:
    return factories.make_merchant()


@pytest.fixture
def session(merchant: Merchant) -> CheckoutSession:
    return make_session(merchant, plan=factories.make_plan(merchant))


def test_a_hundred_guesses_at_once_are_five_tries(
    session: CheckoutSession, merchant: Merchant
) -> None:
    visitor = Visitor(session)
    visitor.send()
    nonce, wrong = visitor.nonce, another(last_code(merchant))
    answers = at_once(
        20, lambda _: [visitor.post("code", nonce=nonce, code=wrong) for _ in "12345"]
    )
    assert {answer.status_code for group in answers for answer in group} == {422}
    assert PhoneVerification.objects.get().attempts == 5
    assert visitor.post("code", nonce=nonce, code=last_code(merchant)).status_code == 422
    session.refresh_from_db()
    assert session.state == "phone_sent"


def test_the_right_code_twenty_times_at_once_confirms_once(
    session: CheckoutSession, merchant: Merchant
) -> None:
    visitor = Visitor(session)
    visitor.send()
    nonce, code = visitor.nonce, last_code(merchant)
    answers = at_once(20, lambda _: visitor.post("code", nonce=nonce, code=code).status_code)
    assert sorted(answers) == [303] + [409] * 19
    assert Connection.objects.count() == 1


def test_codes_asked_for_at_once_keep_the_phones_limit(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant)
    visitors = [
        Visitor(make_session(merchant, plan=plan), address=f"203.0.113.{number}")
        for number in range(12)
    ]
    nonces = [visitor.nonce for visitor in visitors]
    answers = at_once(
        12,
        lambda number: (
            visitors[number]
            .post("phone", nonce=nonces[number], country="US", phone="4155550142")
            .status_code
        ),
    )
    assert sorted(answers) == [303] * 5 + [429] * 7


def test_twenty_presses_at_once_are_one_payment_and_one_charge(
    session: CheckoutSession, network: CardNetwork
) -> None:
    visitor = Visitor(session)
    visitor.confirm_phone()
    nonce = visitor.nonce
    answers = at_once(20, lambda _: visitor.press_pay(nonce=nonce))
    assert {answer.status_code for answer in answers} <= {200, 503}
    secrets = {answer.json()["client_secret"] for answer in answers if answer.status_code == 200}
    assert len(secrets) == 1
    assert (Payment.objects.count(), Connection.objects.count()) == (1, 1)

    confirm_card(network.url, secrets.pop())
    answers = at_once(20, lambda _: visitor.complete(nonce=nonce).json())
    assert answers == [{"status": "done"}] * 20
    assert Subscription.objects.count() == 1
    intents = network.control("journal?path=/v1/payment_intents&method=POST")["data"]
    assert len({row["idempotency_key"] for row in intents}) == 1


def test_two_tabs_on_two_sessions_of_one_phone_pay_once(
    merchant: Merchant, network: CardNetwork
) -> None:
    plan = factories.make_plan(merchant)
    tabs = [Visitor(make_session(merchant, plan=plan)) for _ in range(2)]
    for tab in tabs:
        tab.confirm_phone()
    nonces = [tab.nonce for tab in tabs]

    def pay(number: int) -> Any:
        answer = tabs[number].press_pay(nonce=nonces[number])
        if answer.status_code == 200:
            confirm_card(network.url, answer.json()["client_secret"])
        return tabs[number].complete(nonce=nonces[number]).json()

    at_once(2, pay)
    for tab in tabs:
        tab.get()
    assert Subscription.objects.count() == 1
    assert Payment.objects.filter(status="succeeded").count() == 1


def test_a_free_plan_pressed_twenty_times_at_once_opens_once(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant, price="0", when_depleted="block")
    visitor = Visitor(make_session(merchant, plan=plan))
    visitor.confirm_phone()
    nonce = visitor.nonce
    answers = at_once(
        20,
        lambda _: (
            visitor.post("complete", nonce=nonce, name="Kim", email="k@x.example").status_code
        ),
    )
    assert set(answers) <= {303, 409, 410}
    assert Subscription.objects.count() == 1


def test_a_hundred_guesses_at_once_at_the_portal_are_five_tries(merchant: Merchant) -> None:
    guest = Guest(merchant)
    guest.send()
    token, code = guest.token, last_code(merchant)
    wrong = another(code)
    answers = at_once(20, lambda _: [guest.post("code", token=token, code=wrong) for _ in "12345"])
    assert {answer.status_code for group in answers for answer in group} == {422}
    assert PhoneVerification.objects.get().attempts == 5
    assert guest.post("code", token=token, code=code).status_code == 422
    assert PortalVisit.objects.get().verified_at is None


def test_twenty_browsers_asking_at_once_send_five_codes(merchant: Merchant) -> None:
    guests = [Guest(merchant, address=f"203.0.113.{number}") for number in range(20)]
    tokens = [guest.token for guest in guests]

    def ask(number: int) -> int:
        answer = guests[number].post(
            "phone", token=tokens[number], country="US", phone="+14155550142"
        )
        return int(answer.status_code)

    assert sorted(at_once(20, ask)) == [303] * 5 + [429] * 15
    assert PhoneVerification.objects.count() == PortalVisit.objects.count() == 5
