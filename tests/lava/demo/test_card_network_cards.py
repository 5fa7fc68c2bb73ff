"""Every test card, on-session and off, with and without the cardholder's approval."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import stripe

from lava.demo.card_network.process import CardNetwork


@pytest.fixture
def client(network: CardNetwork) -> stripe.StripeClient:
    return stripe.StripeClient(
        "sk_test_local", base_addresses={"api": network.url}, max_network_retries=0
    )


def make_card(client: stripe.StripeClient, number: str) -> str:
    return client.v1.payment_methods.create(
        {
            "type": "card",
            "card": {"number": number, "exp_month": 8, "exp_year": 2036, "cvc": "123"},
        }
    ).id


def make_payment(client: stripe.StripeClient, method: str, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 2500,
        "currency": "usd",
        "payment_method": method,
        "allowed_payment_method_types": ["card"],
        "confirm": True,
        **more,
    }
    return client.v1.payment_intents.create(params)


def set_up(client: stripe.StripeClient, number: str) -> tuple[str, stripe.SetupIntent]:
    customer = client.v1.customers.create({}).id
    intent = client.v1.setup_intents.create(
        {
            "customer": customer,
            "payment_method": make_card(client, number),
            "allowed_payment_method_types": ["card"],
            "confirm": True,
        }
    )
    return customer, intent


def error_of(raised: pytest.ExceptionInfo[stripe.CardError]) -> dict[str, Any]:
    body = raised.value.json_body
    assert isinstance(body, dict)
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("number", "brand"),
    [
        ("4242424242424242", "visa"),
        ("5555555555554444", "mastercard"),
        ("2223003122003222", "mastercard"),
        ("378282246310005", "amex"),
        ("6011111111111117", "discover"),
        ("3056930009020004", "diners"),
        ("3566002020360505", "jcb"),
        ("6200000000000005", "unionpay"),
    ],
)
def test_good_cards_pay(client: stripe.StripeClient, number: str, brand: str) -> None:
    paid = make_payment(client, make_card(client, number), expand=["payment_method"])
    assert paid.status == "succeeded"
    assert isinstance(paid.payment_method, stripe.PaymentMethod)
    assert paid.payment_method.card is not None
    assert paid.payment_method.card.brand == brand


@pytest.mark.parametrize(
    ("number", "code", "decline_code"),
    [
        ("4000000000000002", "card_declined", "generic_decline"),
        ("4000000000009995", "card_declined", "insufficient_funds"),
        ("4000000000009987", "card_declined", "lost_card"),
        ("4000000000009979", "card_declined", "stolen_card"),
        ("4000000000006975", "card_declined", "card_velocity_exceeded"),
        ("4000000000000069", "expired_card", None),
        ("4000000000000127", "incorrect_cvc", None),
        ("4000000000000119", "processing_error", None),
        ("4000000000000341", "card_declined", "generic_decline"),
    ],
)
def test_bad_cards_decline_and_leave_a_failed_charge(
    client: stripe.StripeClient, number: str, code: str, decline_code: str | None
) -> None:
    with pytest.raises(stripe.CardError) as raised:
        make_payment(client, make_card(client, number))

    error = error_of(raised)
    assert raised.value.http_status == 402
    assert (error["code"], error.get("decline_code")) == (code, decline_code)
    intent = client.v1.payment_intents.retrieve(error["payment_intent"]["id"])
    assert intent.status == "requires_payment_method"
    assert intent.payment_method is None
    assert intent.last_payment_error is not None
    assert intent.last_payment_error.code == code
    assert intent.latest_charge == error["charge"]
    charge = client.v1.charges.retrieve(error["charge"])
    assert (charge.status, charge.paid, charge.failure_code) == ("failed", False, code)
    assert charge.amount_captured == 0


def test_a_declined_intent_can_be_paid_with_another_card(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.CardError) as raised:
        make_payment(client, "pm_card_chargeDeclined")
    intent = error_of(raised)["payment_intent"]["id"]
    paid = client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"})
    assert paid.status == "succeeded"
    assert paid.last_payment_error is None
    statuses = [item.status for item in client.v1.charges.list({"payment_intent": intent}).data]
    assert statuses == ["succeeded", "failed"]


@pytest.mark.parametrize(
    "number", ["4000000000000002", "4000000000009995", "4000000000000069", "4000000000000127"]
)
def test_a_declining_card_is_not_saved(client: stripe.StripeClient, number: str) -> None:
    customer = client.v1.customers.create({}).id
    with pytest.raises(stripe.CardError):
        client.v1.payment_methods.attach(make_card(client, number), {"customer": customer})
    with pytest.raises(stripe.CardError) as raised:
        set_up(client, number)
    assert error_of(raised)["setup_intent"]["status"] == "requires_payment_method"
    assert client.v1.payment_methods.list({"customer": customer}).data == []


def test_0341_is_saved_and_declines_when_charged(client: stripe.StripeClient) -> None:
    customer, intent = set_up(client, "4000000000000341")
    assert intent.status == "succeeded"
    with pytest.raises(stripe.CardError) as raised:
        make_payment(client, str(intent.payment_method), customer=customer, off_session=True)
    assert error_of(raised)["decline_code"] == "generic_decline"


def test_a_card_past_its_month_is_expired(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    method = make_card(client, "4242424242424242")
    network.control("clock", {"offset_s": 11 * 366 * 86400})
    try:
        with pytest.raises(stripe.CardError) as raised:
            make_payment(client, method)
        assert error_of(raised)["code"] == "expired_card"
    finally:
        network.control("clock", {"offset_s": 0})


def test_3155_asks_at_set_up_and_then_pays_off_session(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    customer, intent = set_up(client, "4000002500003155")
    assert intent.status == "requires_action"
    assert intent.next_action is not None
    assert intent.next_action.type == "use_stripe_sdk"

    network.control("authenticate", {"intent": intent.id, "approve": True})
    done = client.v1.setup_intents.retrieve(intent.id)
    assert done.status == "succeeded"
    method = str(done.payment_method)
    paid = make_payment(client, method, customer=customer, off_session=True)
    assert paid.status == "succeeded"
    on_session = make_payment(client, method, customer=customer)
    assert on_session.status == "requires_action"


def test_3155_without_set_up_is_refused_off_session(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({}).id
    method = make_card(client, "4000002500003155")
    client.v1.payment_methods.attach(method, {"customer": customer})
    with pytest.raises(stripe.CardError) as raised:
        make_payment(client, method, customer=customer, off_session=True)
    assert error_of(raised)["code"] == "authentication_required"


def test_3155_is_set_up_by_paying_on_session(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    customer = client.v1.customers.create({}).id
    first = make_payment(
        client,
        make_card(client, "4000002500003155"),
        customer=customer,
        setup_future_usage="off_session",
    )
    assert first.status == "requires_action"
    assert client.v1.charges.list({"payment_intent": first.id}).data == []
    network.control("authenticate", {"intent": first.id})
    paid = client.v1.payment_intents.retrieve(first.id)
    assert paid.status == "succeeded"
    again = make_payment(client, str(paid.payment_method), customer=customer, off_session=True)
    assert again.status == "succeeded"


def test_3184_asks_every_time_also_off_session(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    customer, intent = set_up(client, "4000002760003184")
    network.control("authenticate", {"intent": intent.id})
    method = str(client.v1.setup_intents.retrieve(intent.id).payment_method)

    with pytest.raises(stripe.CardError) as raised:
        make_payment(client, method, customer=customer, off_session=True)
    error = error_of(raised)
    assert raised.value.http_status == 402
    assert (error["code"], error["decline_code"]) == ("authentication_required",) * 2
    assert error["payment_intent"]["status"] == "requires_payment_method"
    assert error["payment_method"]["id"] == method

    # The customer comes back by a link and approves the very same intent.
    asked = client.v1.payment_intents.confirm(
        error["payment_intent"]["id"], {"payment_method": method}
    )
    assert asked.status == "requires_action"
    network.control("authenticate", {"intent": asked.id, "approve": True})
    assert client.v1.payment_intents.retrieve(asked.id).status == "succeeded"


def test_a_refused_approval_charges_nothing(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    intent = make_payment(client, make_card(client, "4000002760003184"))
    network.control("authenticate", {"intent": intent.id, "approve": False})
    after = client.v1.payment_intents.retrieve(intent.id)
    assert after.status == "requires_payment_method"
    assert after.last_payment_error is not None
    assert after.last_payment_error.code == "payment_intent_authentication_failure"
    assert client.v1.charges.list({"payment_intent": intent.id}).data == []


def test_a_page_answers_for_the_cardholder_only_with_the_secret_and_once(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    intent = make_payment(client, make_card(client, "4000002760003184"))
    assert intent.next_action is not None
    asked = intent.next_action.to_dict()["use_stripe_sdk"]
    url = f"{network.url}/_3ds/{intent.id}"
    form = {
        "key": "pk_test_local",
        "client_secret": str(intent.client_secret),
        "source": asked["source"],
        "outcome": "approve",
    }
    assert httpx.post(url, data=form | {"client_secret": "guess"}).status_code == 404
    assert httpx.post(url, data=form | {"source": "payatt_old"}).status_code == 400
    assert httpx.post(url, data=form).json()["status"] == "succeeded"
    assert httpx.post(url, data=form).status_code == 400
    assert len(client.v1.charges.list({"payment_intent": intent.id}).data) == 1


def test_3178_declines_after_the_approval(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    intent = make_payment(client, make_card(client, "4000008260003178"))
    assert intent.status == "requires_action"
    answer = network.control("authenticate", {"intent": intent.id})
    assert answer["error"]["decline_code"] == "insufficient_funds"
    assert client.v1.payment_intents.retrieve(intent.id).status == "requires_payment_method"


def test_a_server_may_ask_for_an_error_instead_of_an_action(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.CardError) as raised:
        make_payment(client, make_card(client, "4000002760003184"), error_on_requires_action=True)
    assert error_of(raised)["code"] == "authentication_required"


def test_a_page_is_never_off_session(network: CardNetwork, client: stripe.StripeClient) -> None:
    intent = client.v1.payment_intents.create(
        {"amount": 2500, "currency": "usd", "allowed_payment_method_types": ["card"]}
    )
    form = {
        "key": "pk_test_local",
        "client_secret": str(intent.client_secret),
        "payment_method": "pm_card_authenticationRequired",
    }
    url = f"{network.url}/v1/payment_intents/{intent.id}/confirm"
    assert httpx.post(url, data=form | {"off_session": "true"}).status_code == 400
    assert httpx.post(url, data=form).json()["status"] == "requires_action"


def test_a_saved_card_can_be_told_to_behave_as_another(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    customer, intent = set_up(client, "4242424242424242")
    method = str(intent.payment_method)
    network.control("cards", {"payment_method": method, "behave_as": "4000000000009995"})
    with pytest.raises(stripe.CardError) as raised:
        make_payment(client, method, customer=customer, off_session=True)
    assert error_of(raised)["decline_code"] == "insufficient_funds"
    network.control("cards", {"payment_method": method, "behave_as": "4242424242424242"})
    assert make_payment(client, method, customer=customer, off_session=True).status == "succeeded"
