"""Payment and setup intents: paid in one call or in steps, never twice, never too little."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from lava.demo.card_network.process import CardNetwork


@pytest.fixture
def client(network: CardNetwork) -> stripe.StripeClient:
    return make_client(network)


def make_client(network: CardNetwork, key: str = "sk_test_local") -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": network.url}, max_network_retries=0)


def make_payment(client: stripe.StripeClient, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 2500,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "allowed_payment_method_types": ["card"],
        "confirm": True,
        **more,
    }
    return client.v1.payment_intents.create(params)


def make_saved_card(client: stripe.StripeClient, token: str = "pm_card_visa") -> tuple[str, str]:
    customer = client.v1.customers.create({"name": "Mara Lindqvist"})
    method = client.v1.payment_methods.attach(token, {"customer": customer.id})
    return customer.id, method.id


def error_of(raised: pytest.ExceptionInfo[stripe.StripeError]) -> dict[str, Any]:
    body = raised.value.json_body
    assert isinstance(body, dict)
    error: dict[str, Any] = body["error"]
    return error


def test_it_pays_in_one_call_and_tells_the_whole_story(client: stripe.StripeClient) -> None:
    customer, method = make_saved_card(client)
    paid = make_payment(
        client,
        customer=customer,
        payment_method=method,
        description="Studio, one month",
        metadata={"payment": "pay_1"},
        expand=["latest_charge.refunds", "payment_method", "customer"],
    )

    assert (paid.status, paid.amount, paid.amount_received) == ("succeeded", 2500, 2500)
    charge = paid.latest_charge
    assert isinstance(charge, stripe.Charge)
    assert (charge.status, charge.paid, charge.amount, charge.currency) == (
        "succeeded",
        True,
        2500,
        "usd",
    )
    assert charge.metadata.to_dict() == {"payment": "pay_1"}
    assert charge.refunds is not None
    assert charge.refunds.data == []
    assert isinstance(paid.payment_method, stripe.PaymentMethod)
    assert isinstance(paid.customer, stripe.Customer)
    listed = client.v1.charges.list({"payment_intent": paid.id})
    assert [item.id for item in listed.data] == [charge.id]


def test_it_pays_step_by_step(client: stripe.StripeClient) -> None:
    intent = client.v1.payment_intents.create(
        {"amount": 1000, "currency": "EUR", "allowed_payment_method_types": ["card"]}
    )
    assert (intent.status, intent.currency) == ("requires_payment_method", "eur")
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.payment_intents.confirm(intent.id)
    assert "missing a payment method" in str(raised.value)
    changed = client.v1.payment_intents.update(
        intent.id, {"amount": 1200, "payment_method": "pm_card_mastercard"}
    )
    assert changed.status == "requires_confirmation"
    assert client.v1.payment_intents.confirm(intent.id).status == "succeeded"
    assert client.v1.payment_intents.retrieve(intent.id).amount_received == 1200


def test_a_paid_intent_is_not_paid_again(client: stripe.StripeClient) -> None:
    paid = make_payment(client)
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.payment_intents.confirm(paid.id, {"payment_method": "pm_card_visa"})
    error = error_of(raised)
    assert error["code"] == "payment_intent_unexpected_state"
    assert error["payment_intent"]["id"] == paid.id
    assert len(client.v1.charges.list({"payment_intent": paid.id}).data) == 1
    with pytest.raises(stripe.InvalidRequestError, match="status of succeeded"):
        client.v1.payment_intents.cancel(paid.id)


def test_a_cancelled_intent_stays_cancelled(client: stripe.StripeClient) -> None:
    intent = client.v1.payment_intents.create({"amount": 1000, "currency": "usd"})
    cancelled = client.v1.payment_intents.cancel(intent.id, {"cancellation_reason": "abandoned"})
    assert (cancelled.status, cancelled.cancellation_reason) == ("canceled", "abandoned")
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
        client.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})


def test_a_card_charged_without_being_saved_is_used_up(client: stripe.StripeClient) -> None:
    paid = make_payment(client)
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        make_payment(client, payment_method=str(paid.payment_method))


def test_a_card_is_saved_by_paying_for_future_use(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({})
    paid = make_payment(client, customer=customer.id, setup_future_usage="off_session")
    method = str(paid.payment_method)
    assert client.v1.payment_methods.retrieve(method).customer == customer.id
    again = make_payment(client, customer=customer.id, payment_method=method, off_session=True)
    assert again.status == "succeeded"


def test_a_saved_card_pays_for_its_own_customer_only(client: stripe.StripeClient) -> None:
    _, method = make_saved_card(client)
    other = client.v1.customers.create({})
    with pytest.raises(stripe.InvalidRequestError, match="must be attached to the customer"):
        make_payment(client, customer=other.id, payment_method=method)
    with pytest.raises(stripe.InvalidRequestError, match="belongs to the Customer"):
        make_payment(client, payment_method=method)


def test_a_server_says_where_to_return_unless_it_takes_cards_only(
    client: stripe.StripeClient,
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="you must provide a `return_url`"):
        client.v1.payment_intents.create(
            {"amount": 1000, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
        )
    paid = client.v1.payment_intents.create(
        {
            "amount": 1000,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )
    assert paid.status == "succeeded"


def test_payment_method_types_are_refused_since_endive(client: stripe.StripeClient) -> None:
    params: Any = {"amount": 1000, "currency": "usd", "payment_method_types": ["card"]}
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.payment_intents.create(params)
    assert raised.value.code == "payment_method_types_no_longer_supported"
    older = client.v1.payment_intents.create(params, {"stripe_version": "2026-06-24.dahlia"})
    assert older.payment_method_types == ["card"]
    setup: Any = {"payment_method_types": ["card"]}
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.setup_intents.create(setup)
    assert raised.value.code == "payment_method_types_no_longer_supported"
    with pytest.raises(stripe.InvalidRequestError, match="only specify one"):
        client.v1.setup_intents.create(
            {
                "allowed_payment_method_types": ["card"],
                "automatic_payment_methods": {"enabled": True},
            }
        )


def test_an_impossible_api_version_is_refused(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Invalid Stripe API version"):
        client.v1.customers.list({}, {"stripe_version": "yesterday"})


@pytest.mark.parametrize(
    ("amount", "currency", "code"),
    [
        (49, "usd", "amount_too_small"),
        (29, "gbp", "amount_too_small"),
        (49, "jpy", "amount_too_small"),
        (159, "kwd", "amount_too_small"),
        (0, "usd", "parameter_invalid_integer"),
        (-500, "usd", "parameter_invalid_integer"),
        (100_000_000, "usd", "amount_too_large"),
        (1001, "kwd", "parameter_invalid_integer"),
    ],
)
def test_amounts_that_stripe_would_not_charge_are_refused(
    client: stripe.StripeClient, amount: int, currency: str, code: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.payment_intents.create({"amount": amount, "currency": currency})
    assert (raised.value.code, raised.value.param) == (code, "amount")


@pytest.mark.parametrize(
    ("amount", "currency"), [(50, "usd"), (30, "gbp"), (50, "jpy"), (1010, "kwd")]
)
def test_the_smallest_amounts_are_accepted(
    client: stripe.StripeClient, amount: int, currency: str
) -> None:
    assert client.v1.payment_intents.create({"amount": amount, "currency": currency}).id


# Setup intents


def test_a_card_is_set_up_without_being_charged(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({})
    intent = client.v1.setup_intents.create(
        {"customer": customer.id, "allowed_payment_method_types": ["card"], "usage": "off_session"}
    )
    assert (intent.status, intent.usage) == ("requires_payment_method", "off_session")
    done = client.v1.setup_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert done.status == "succeeded"
    assert client.v1.payment_methods.retrieve(str(done.payment_method)).customer == customer.id
    assert client.v1.charges.list({"customer": customer.id}).data == []
    with pytest.raises(stripe.InvalidRequestError, match="already succeeded"):
        client.v1.setup_intents.confirm(intent.id)


def test_a_setup_can_be_cancelled(client: stripe.StripeClient) -> None:
    intent = client.v1.setup_intents.create({"allowed_payment_method_types": ["card"]})
    assert client.v1.setup_intents.cancel(intent.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.setup_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert error_of(raised)["setup_intent"]["status"] == "canceled"
