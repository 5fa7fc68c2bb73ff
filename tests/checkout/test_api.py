from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from billing import credits
from billing.models import Merchant, OutboxMessage, Subscription
from checkout import sessions
from checkout.models import CheckoutSession
from lava.demo.card_network.process import CardNetwork
from tests import factories
from tests.checkout.visitor import CARD, DECLINED, PHONE, Visitor, make_session

pytestmark = pytest.mark.django_db
ORIGIN = "https://app.example.com"


@pytest.fixture
def merchant() -> Merchant:
    return factories.make_merchant()


def call(merchant: Merchant, path: str, body: Any = None, *, key: str = "") -> Any:
    headers = {"Authorization": f"Bearer {key or factories.make_key(merchant)}"}
    if body is None:
        return Client(headers=headers).get(f"/v1/{path}")
    return Client(headers=headers).post(
        f"/v1/{path}", json.dumps(body), content_type="application/json"
    )


def create(merchant: Merchant, /, **body: Any) -> Any:
    return call(
        merchant,
        "checkout_sessions",
        {"checkout_mode": "subscription", "origin_url": ORIGIN} | body,
    )


def test_a_session_is_made_in_the_clients_shape(merchant: Merchant, settings: Any) -> None:
    settings.LAVA_BASE_URL = "https://pay.example"
    plan = factories.make_plan(merchant)
    answer = create(merchant, subscription_config_id=plan.public_id)
    assert answer.status_code == 201
    body = answer.json()
    assert body["checkout_session_id"].startswith("cs_test_")
    assert body["checkout_mode"] == "subscription"
    assert body["origin_url"] == ORIGIN
    assert body["subscription_config_id"] == body["plan_id"] == plan.public_id
    assert "completed_at" not in body and "connection_id" not in body
    token = json.loads(base64.b64decode(body["checkout_session_token"]))
    assert token["base"] == "https://pay.example/"
    assert token["secret"].startswith("css_")
    assert body["url"] == f"https://pay.example/checkout/{token['secret']}"
    assert Client().get(f"/embed/checkout/{token['secret']}").status_code == 200


def test_the_secret_is_shown_again_and_never_stored(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant)
    made = create(merchant, plan_id=plan.public_id).json()
    seen = call(merchant, f"checkout_sessions/{made['checkout_session_id']}").json()
    assert seen["checkout_session_token"] == made["checkout_session_token"]
    session = CheckoutSession.objects.get()
    row = CheckoutSession.objects.values().get()
    assert session.secret not in str(row)
    assert len(session.secret) - len("css_") == 43


def test_another_merchants_session_is_not_found(merchant: Merchant) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    path = f"checkout_sessions/{session.public_id}"
    assert call(factories.make_merchant(), path).status_code == 404
    assert Client().get(f"/v1/{path}").status_code == 401
    assert call(merchant.organization.live, path).status_code == 404


@pytest.mark.parametrize("name", ["subscription_config_id", "credit_bundle_id", "connection_id"])
def test_what_belongs_to_another_merchant_is_not_found(merchant: Merchant, name: str) -> None:
    other = factories.make_merchant()
    plan = factories.make_plan(other)
    foreign = {
        "subscription_config_id": plan.public_id,
        "credit_bundle_id": factories.make_bundle(plan).public_id,
        "connection_id": factories.make_connection(other).public_id,
    }
    answer = create(merchant, **{name: foreign[name]})
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == name
    assert not CheckoutSession.objects.exists()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"checkout_mode": "gift"}, "checkout_mode"),
        ({}, "subscription_config_id"),
        ({"checkout_mode": "credit_bundle"}, "credit_bundle_id"),
        ({"origin_url": None}, "origin_url"),
        ({"origin_url": "https://*.example.com"}, "origin_url"),
        ({"origin_url": "https://app.example.com; script-src *"}, "origin_url"),
        ({"origin_url": 7}, "origin_url"),
    ],
)
def test_a_malformed_session_names_its_field(
    merchant: Merchant, body: dict[str, Any], param: str
) -> None:
    answer = create(merchant, **body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert not CheckoutSession.objects.exists()


def test_a_return_address_of_another_origin_is_refused(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant)
    fields = {"subscription_config_id": plan.public_id}
    assert create(merchant, **fields, return_url="//evil.example").status_code == 400
    kept = create(merchant, **fields, return_url=f"{ORIGIN}/done").json()
    assert kept["return_url"] == f"{ORIGIN}/done"


def test_an_archived_plan_and_a_removed_bundle_are_refused(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant, archived_at=merchant.now())
    bundle = factories.make_bundle(plan)
    bundle.deleted_at = merchant.now()
    bundle.save()
    assert create(merchant, subscription_config_id=plan.public_id).status_code == 409
    answer = create(merchant, checkout_mode="credit_bundle", credit_bundle_id=bundle.public_id)
    assert answer.status_code == 409


def test_unknown_fields_are_ignored_and_never_assigned(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant)
    create(
        merchant,
        subscription_config_id=plan.public_id,
        state="completed",
        merchant="x",
        amount="0.01",
        id="cs_1",
    )
    session = CheckoutSession.objects.get()
    assert (session.state, session.amount) == ("open", plan.price)


def complete(merchant: Merchant, session: CheckoutSession, **body: Any) -> Any:
    path = f"test_helpers/checkout_sessions/{session.public_id}/complete"
    return call(merchant, path, {"phone": PHONE, "card": CARD} | body)


def test_the_test_helper_does_all_a_customer_does(merchant: Merchant, network: CardNetwork) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    answer = complete(merchant, session)
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert body["status"] == "completed"
    assert body["completed_at"].endswith("Z")
    assert body["connection_id"] == body["customer_id"]
    found = Subscription.objects.get()
    assert found.connection.public_id == body["connection_id"]
    assert credits.balance(found.connection, now=merchant.now()).total == 25
    assert "is your code for Northwind Voice" in OutboxMessage.objects.get(to=PHONE).body
    assert complete(merchant, session).status_code == 410


def test_the_test_helper_is_not_limited_and_does_not_count(
    merchant: Merchant, network: CardNetwork
) -> None:
    plan = factories.make_plan(merchant, price="0", when_depleted="block")
    first = make_session(merchant, plan=plan)
    assert complete(merchant, first).status_code == 200
    for _ in range(7):
        again = complete(merchant, make_session(merchant, plan=plan))
        assert again.status_code == 409
        assert again.json()["error"]["code"] == "same_plan"
    assert Visitor(make_session(merchant, plan=plan)).send().status_code == 303


def test_a_declined_test_card_is_402_and_another_card_works(
    merchant: Merchant, network: CardNetwork
) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    refusal = complete(merchant, session, card=DECLINED)
    assert refusal.status_code == 402
    assert refusal.json()["error"]["code"] == "generic_decline"
    assert not Subscription.objects.exists()
    assert complete(merchant, session).status_code == 200


def test_a_test_card_that_asks_its_owner_is_402(merchant: Merchant, network: CardNetwork) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    answer = complete(merchant, session, card="4000002500003155")
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "authentication_required"


@pytest.mark.parametrize("mode", ["credit_bundle", "topup", "onboarding"])
def test_the_test_helper_knows_every_mode(
    merchant: Merchant, network: CardNetwork, mode: str
) -> None:
    plan = factories.make_plan(merchant)
    bundle = factories.make_bundle(plan)
    complete(merchant, make_session(merchant, plan=plan))
    connection = Subscription.objects.get().connection
    given = bundle if mode == "credit_bundle" else None
    session = make_session(merchant, mode=mode, bundle=given, connection=connection)
    answer = complete(merchant, session)
    assert answer.status_code == 200, answer.content
    paid = 0 if mode == "onboarding" else 10
    assert credits.balance(connection, now=merchant.now()).bundle == paid


def test_the_phone_of_a_given_connection_cannot_be_another(
    merchant: Merchant, network: CardNetwork
) -> None:
    connection = factories.make_connection(merchant, phone="+14155550177")
    session = make_session(merchant, plan=factories.make_plan(merchant), connection=connection)
    assert complete(merchant, session).status_code == 409
    assert complete(merchant, session, phone=None).status_code == 200


@pytest.mark.parametrize("phone", ["", "abc", 5, None])
def test_the_test_helper_wants_a_phone(merchant: Merchant, phone: Any) -> None:
    session = make_session(merchant, plan=factories.make_plan(merchant))
    answer = complete(merchant, session, phone=phone)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "phone"


def test_the_test_helper_answers_test_keys_alone() -> None:
    live = factories.make_merchant(sandbox=False)
    session = make_session(live, plan=factories.make_plan(live))
    assert complete(live, session).status_code == 403
    with pytest.raises(Exception, match="test keys only"):
        sessions.complete_with_test_card(session, phone=PHONE, card=CARD, now=live.now())


def test_an_expired_session_says_so(merchant: Merchant) -> None:
    session = make_session(
        merchant, plan=factories.make_plan(merchant), now=merchant.now() - timedelta(hours=25)
    )
    path = f"checkout_sessions/{session.public_id}"
    assert call(merchant, path).json()["status"] == "expired"
    assert complete(merchant, session).status_code == 410
