"""The local card network, driven by the unchanged Stripe library: objects, lists, keys,
refusals."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
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


# Customers


def test_a_customer_is_made_changed_listed_and_deleted(client: stripe.StripeClient) -> None:
    made = client.v1.customers.create(
        {"name": "Mara", "email": "one@tallgrass.example", "metadata": {"a": "1", "b": "2"}}
    )
    changed = client.v1.customers.update(
        made.id, {"name": "Mara Lindqvist", "metadata": {"a": "", "c": "3"}}
    )

    assert changed.name == "Mara Lindqvist"
    assert changed.metadata is not None
    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}
    listed = client.v1.customers.list({"email": "one@tallgrass.example"})
    assert [customer.id for customer in listed.data] == [made.id]

    client.v1.customers.delete(made.id)
    assert client.v1.customers.retrieve(made.id).deleted is True
    assert client.v1.customers.list({"email": "one@tallgrass.example"}).data == []
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.customers.update(made.id, {"name": "Nobody"})
    assert raised.value.code == "resource_missing"


def test_metadata_keys_may_be_numbers(client: stripe.StripeClient) -> None:
    made = client.v1.customers.create({"metadata": {"0": "zero", "1": "one"}})
    assert made.metadata is not None
    assert made.metadata.to_dict() == {"0": "zero", "1": "one"}


# Keys and modes


def test_live_and_test_share_nothing(network: CardNetwork, client: stripe.StripeClient) -> None:
    live = make_client(network, "sk_live_local")
    made = client.v1.customers.create({"name": "Test only"})

    assert made.livemode is False
    assert live.v1.customers.create({"name": "Live only"}).livemode is True
    with pytest.raises(stripe.InvalidRequestError) as raised:
        live.v1.customers.retrieve(made.id)
    assert raised.value.http_status == 404
    assert "exists in test mode, but a live mode key was used" in str(raised.value)
    assert all(customer.livemode for customer in live.v1.customers.list().data)


def test_a_call_without_a_key_or_with_a_strange_one_is_refused(network: CardNetwork) -> None:
    without = httpx.get(f"{network.url}/v1/customers")
    assert without.status_code == 401
    assert without.json()["error"]["type"] == "invalid_request_error"
    with pytest.raises(stripe.AuthenticationError):
        make_client(network, "aks_test_1234567890abcdef").v1.customers.list()


def test_basic_authentication_works_too(network: CardNetwork) -> None:
    answer = httpx.get(f"{network.url}/v1/account", auth=("sk_test_local", ""))
    assert answer.status_code == 200
    assert answer.headers["Request-Id"].startswith("req_")
    broken = {"Authorization": "Basic " + base64.b64encode(b"\xff\xff").decode()}
    assert httpx.get(f"{network.url}/v1/account", headers=broken).status_code == 401


def test_a_page_reaches_only_what_a_page_may(network: CardNetwork) -> None:
    page = make_client(network, "pk_test_local")
    with pytest.raises(stripe.AuthenticationError) as raised:
        page.v1.customers.list()
    assert error_of(raised)["code"] == "secret_key_required"


def test_a_page_sees_an_intent_only_with_its_secret_and_only_in_part(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    customer, method = make_saved_card(client)
    paid = make_payment(client, customer=customer, payment_method=method, metadata={"order": "7"})
    url = f"{network.url}/v1/payment_intents/{paid.id}"

    right = {"key": "pk_test_local", "client_secret": str(paid.client_secret)}
    seen = httpx.get(url, params=right).json()
    assert seen["status"] == "succeeded"
    assert not {"customer", "metadata", "latest_charge"} & set(seen)
    wrong = httpx.get(url, params=right | {"client_secret": f"{paid.id}_secret_guess"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "resource_missing")
    none = httpx.get(url, params={"key": "pk_test_local"})
    assert none.json()["error"]["code"] == "parameter_missing"


def test_a_browser_of_any_origin_may_call_the_api_but_not_the_control(network: CardNetwork) -> None:
    preflight = httpx.options(
        f"{network.url}/v1/payment_methods",
        headers={"Origin": "null", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert httpx.options(f"{network.url}/_control/reset").status_code == 403
    forged = httpx.post(f"{network.url}/_control/reset", headers={"Origin": "http://evil.example"})
    assert forged.status_code == 403


def test_the_script_for_the_page_is_served(network: CardNetwork) -> None:
    for path in ("/v3/", "/stripe.js"):
        answer = httpx.get(network.url + path)
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert "window.Stripe" in answer.text


# Cards


def test_a_page_makes_a_card_and_a_server_saves_it(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    page = make_client(network, "pk_test_local")
    made = page.v1.payment_methods.create(
        {
            "type": "card",
            "card": {"number": "4242424242424242", "exp_month": 8, "exp_year": 2036, "cvc": "123"},
            "billing_details": {"name": "Mara", "address": {"postal_code": "04101"}},
        }
    )
    customer = client.v1.customers.create({"name": "Mara"})
    saved = client.v1.payment_methods.attach(made.id, {"customer": customer.id})

    assert saved.card is not None
    assert (saved.card.brand, saved.card.last4, saved.card.exp_year) == ("visa", "4242", 2036)
    assert saved.billing_details.address is not None
    assert saved.billing_details.address.postal_code == "04101"
    listed = client.v1.customers.payment_methods.list(customer.id, {"type": "card"})
    assert [method.id for method in listed.data] == [made.id]
    assert client.v1.payment_methods.list({"customer": customer.id}).data[0].id == made.id


def test_a_detached_card_is_gone_for_good(client: stripe.StripeClient) -> None:
    customer, method = make_saved_card(client)
    client.v1.customers.update(customer, {"invoice_settings": {"default_payment_method": method}})

    assert client.v1.payment_methods.detach(method).customer is None
    after = client.v1.customers.retrieve(customer)
    assert after.invoice_settings is not None
    assert after.invoice_settings.default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        client.v1.payment_methods.attach(method, {"customer": customer})


def test_the_same_number_has_the_same_fingerprint(client: stripe.StripeClient) -> None:
    first = client.v1.payment_methods.retrieve(make_saved_card(client)[1])
    second = client.v1.payment_methods.retrieve(make_saved_card(client)[1])
    other = client.v1.payment_methods.retrieve(make_saved_card(client, "pm_card_mastercard")[1])
    assert first.card
    assert second.card
    assert other.card
    assert first.card.fingerprint == second.card.fingerprint != other.card.fingerprint


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ({"number": "4242424242424241"}, "incorrect_number"),
        ({"number": "not a number"}, "invalid_number"),
        ({"number": "4929939187355598"}, "card_declined"),
        ({"exp_month": 13}, "invalid_expiry_month"),
        ({"exp_year": 2020}, "invalid_expiry_year"),
        ({"exp_year": 2099}, "invalid_expiry_year"),
        ({"cvc": "12"}, "invalid_cvc"),
    ],
)
def test_impossible_card_details_are_refused_by_their_code(
    client: stripe.StripeClient, card: dict[str, Any], code: str
) -> None:
    good = {"number": "4242424242424242", "exp_month": 8, "exp_year": 2036, "cvc": "123"}
    params: Any = {"type": "card", "card": {**good, **card}}
    with pytest.raises(stripe.CardError) as raised:
        client.v1.payment_methods.create(params)
    assert error_of(raised)["code"] == code


def test_a_live_server_may_not_send_card_numbers(network: CardNetwork) -> None:
    live = make_client(network, "sk_live_local")
    with pytest.raises(stripe.CardError, match="generally unsafe"):
        live.v1.payment_methods.create(
            {
                "type": "card",
                "card": {"number": "4242424242424242", "exp_month": 8, "exp_year": 2036},
            }
        )


# Lists


def test_lists_come_newest_first_in_pages(client: stripe.StripeClient) -> None:
    customer, method = make_saved_card(client)
    made = [make_payment(client, customer=customer, payment_method=method).id for _ in range(5)]
    newest = list(reversed(made))

    first = client.v1.payment_intents.list({"customer": customer, "limit": 2})
    assert [item.id for item in first.data] == newest[:2]
    assert first.has_more is True
    second = client.v1.payment_intents.list(
        {"customer": customer, "limit": 2, "starting_after": newest[1]}
    )
    assert [item.id for item in second.data] == newest[2:4]
    back = client.v1.payment_intents.list(
        {"customer": customer, "limit": 2, "ending_before": newest[4]}
    )
    assert [item.id for item in back.data] == newest[2:4]
    everything = client.v1.payment_intents.list({"customer": customer, "limit": 2})
    assert [item.id for item in everything.auto_paging_iter()] == newest
    expanded = client.v1.payment_intents.list(
        {"customer": customer, "limit": 1, "expand": ["data.latest_charge"]}
    )
    assert isinstance(expanded.data[0].latest_charge, stripe.Charge)


def test_lists_are_filtered_by_time(network: CardNetwork, client: stripe.StripeClient) -> None:
    customer, method = make_saved_card(client)
    early = make_payment(client, customer=customer, payment_method=method)
    network.control("clock", {"advance_s": 100})
    try:
        late = make_payment(client, customer=customer, payment_method=method)
        assert 100 <= late.created - early.created <= 102
        after = client.v1.payment_intents.list(
            {"customer": customer, "created": {"gt": early.created, "lte": late.created}}
        )
        assert [item.id for item in after.data] == [late.id]
        exactly = client.v1.payment_intents.list({"customer": customer, "created": early.created})
        assert [item.id for item in exactly.data] == [early.id]
    finally:
        network.control("clock", {"offset_s": 0})


# Refusals


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"currency": "usd"}, "parameter_missing", "amount"),
        ({"amount": "1.5", "currency": "usd"}, "parameter_invalid_integer", "amount"),
        ({"amount": "", "currency": "usd"}, "parameter_invalid_empty", "amount"),
        ({"amount": 1000}, "parameter_missing", "currency"),
        ({"amount": 1000, "currency": "usd", "amuont": 1}, "parameter_unknown", "amuont"),
        (
            {"amount": 1000, "currency": "usd", "customer": "cus_none"},
            "resource_missing",
            "customer",
        ),
        (
            {"amount": 1000, "currency": "usd", "payment_method": "pm_none"},
            "resource_missing",
            "payment_method",
        ),
        ({"amount": 1000, "currency": "usd", "off_session": True}, None, "off_session"),
        ({"amount": 1000, "currency": "zzz"}, None, "currency"),
        (
            {"amount": 1000, "currency": "usd", "setup_future_usage": "x"},
            None,
            "setup_future_usage",
        ),
    ],
)
def test_a_wrong_parameter_is_named(
    client: stripe.StripeClient, params: Any, code: str | None, param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.payment_intents.create(params)
    assert (raised.value.http_status, raised.value.code, raised.value.param) == (400, code, param)


def test_an_unknown_url_is_404_in_stripes_words(network: CardNetwork) -> None:
    answer = httpx.get(f"{network.url}/v1/subscriptions", auth=("sk_test_local", ""))
    assert answer.status_code == 404
    assert "Unrecognized request URL (GET: /v1/subscriptions)" in answer.json()["error"]["message"]


def test_what_cannot_be_expanded_is_refused_and_leaves_no_trace(
    client: stripe.StripeClient,
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        client.v1.customers.create({"email": "trace@lava.example", "expand": ["nothing"]})
    assert client.v1.customers.list({"email": "trace@lava.example"}).data == []


def test_the_journal_masks_card_numbers(network: CardNetwork) -> None:
    before = network.control("journal?path=/v1/payment_methods")["data"]
    httpx.post(
        f"{network.url}/v1/payment_methods",
        content="type=card&card[number]=4242424242424242&card[exp_month]=8&card[exp_year]=36"
        "&card[cvc]=987&key=pk_test_local",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    after = network.control("journal?path=/v1/payment_methods&method=POST")["data"]
    entry = after[-1]
    assert len(after) >= 1
    assert entry not in before
    assert entry["params"]["card"]["number"] == "************4242"
    assert "987" not in json.dumps(entry["params"])
