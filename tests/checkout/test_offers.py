"""A plan's own link: its page writes nothing, the phone that is posted makes a checkout."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client

from billing import plans
from billing.models import Merchant, OutboxMessage, Plan
from checkout import offers
from checkout.models import CheckoutSession, PhoneVerification
from tests import factories
from tests.checkout.visitor import PHONE, Visitor

pytestmark = pytest.mark.django_db


@pytest.fixture
def merchant() -> Merchant:
    return factories.make_merchant()


@pytest.fixture
def plan(merchant: Merchant) -> Plan:
    return factories.make_plan(merchant)


def path_of(plan: Plan) -> str:
    return urlsplit(offers.address(plan)).path


def post(plan: Plan, phone: str = PHONE, *, query: str = "") -> Any:
    return Client(enforce_csrf_checks=True).post(
        path_of(plan) + query, {"country": "US", "phone": phone}
    )


def test_its_page_shows_the_offer_and_writes_nothing(plan: Plan) -> None:
    answer = Client().get(path_of(plan))
    html = answer.content.decode()
    assert answer.status_code == 200 and "Studio" in html and "$25.00" in html
    assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
    assert answer["Cache-Control"] == "no-store" and not answer.cookies
    assert not CheckoutSession.objects.exists()


def test_the_phone_goes_on_to_a_checkout_of_its_own(plan: Plan) -> None:
    answer = post(plan, query="?locale=de")
    session = CheckoutSession.objects.get()
    assert answer.status_code == 303
    assert answer["Location"] == f"/checkout/{session.secret}?locale=de"
    assert (session.state, session.phone, session.plan, session.amount) == (
        "phone_sent", PHONE, plan, plan.price,
    )  # fmt: skip
    assert "ist Ihr Code" in OutboxMessage.objects.get().body
    assert "Enter your code" in Visitor(session).get().content.decode()


def test_a_wrong_number_keeps_what_was_typed_and_makes_nothing(plan: Plan) -> None:
    answer = post(plan, "12")
    assert answer.status_code == 422 and 'value="12"' in answer.content.decode()
    assert not CheckoutSession.objects.exists()


def test_a_throttled_phone_leaves_no_checkout_behind(plan: Plan) -> None:
    for _ in range(5):
        assert post(plan).status_code == 303
    answer = post(plan)
    assert answer.status_code == 429 and "Retry-After" in answer
    assert "Too many codes were sent" in answer.content.decode()
    assert CheckoutSession.objects.count() == PhoneVerification.objects.count() == 5


def test_a_plan_that_is_sold_no_more_says_so(plan: Plan) -> None:
    path = path_of(plan)
    plans.archive(plan, now=plan.merchant.now())
    for answer in (Client().get(path), Client().post(path, {"country": "US", "phone": PHONE})):
        assert answer.status_code == 410
        assert "Studio is offered no more" in answer.content.decode()
    assert not CheckoutSession.objects.exists()


def test_a_forged_or_cut_link_opens_nothing(plan: Plan) -> None:
    path = path_of(plan)
    for broken in (path[:-1], path + "x", f"/buy/{plan.pk.hex}", "/buy/x"):
        assert Client().get(broken).status_code == 404
