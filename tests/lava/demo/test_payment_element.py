"""The local network's Payment Element, as the checkout uses Stripe's: made before the intent,
checked by `submit`, confirmed without a redirect; what Stripe would refuse is refused here too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stripe
from playwright.sync_api import Browser, Page, expect

from lava.demo.card_network.process import CardNetwork
from tests.browser.conftest import browser

__all__ = ["browser"]
pytestmark = pytest.mark.browser

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Pay</title>
<script src="{network}/v3/"></script></head><body><main><div id="box"></div></main></body></html>"""
POLICY = "default-src 'none'; script-src 'self' 'unsafe-eval' {network}; connect-src {network}"
OPEN = """([locale, options, country]) => {
  window.stripe = Stripe('pk_test_local', {locale});
  window.elements = stripe.elements({allowedPaymentMethodTypes: ['card'],
    setupFutureUsage: 'off_session', ...options});
  window.element = elements.create('payment', {
    fields: {billingDetails: {name: 'never', email: 'never'}},
    defaultValues: {billingDetails: {address: {country}}},
  });
  window.changes = [];
  element.on('change', (event) => changes.push(event));
  element.mount('#box');
}"""
CONFIRM = """async ([secret, submit]) => {
  if (submit) {
    const {error} = await elements.submit();
    if (error) return {error};
  }
  const how = secret.startsWith('pi_') ? 'confirmPayment' : 'confirmSetup';
  try {
    return await stripe[how]({elements, clientSecret: secret, redirect: 'if_required',
      confirmParams: {return_url: 'https://shop.example/',
        payment_method_data: {billing_details: {name: 'Mara', email: 'mara@shop.example'}}}});
  } catch (error) {
    return {thrown: error.message};
  }
}"""
PAYMENT = {"mode": "payment", "amount": 2500, "currency": "usd"}


@pytest.fixture(scope="module")
def site(network: CardNetwork) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = PAGE.format(network=network.url).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Security-Policy", POLICY.format(network=network.url))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    opened = browser.new_page()
    opened.goto(site)
    yield opened
    opened.close()


@pytest.fixture
def client(network: CardNetwork) -> stripe.StripeClient:
    return stripe.StripeClient("sk_test_local", base_addresses={"api": network.url})


def open_element(page: Page, *, locale: str = "en", country: str = "US", **options: Any) -> None:
    page.evaluate(OPEN, [locale, options or PAYMENT, country])


def fill(page: Page, number: str = "4242424242424242") -> None:
    page.get_by_label("Card number").fill(number)
    page.get_by_label("Expiration date").fill("0836")
    page.get_by_label("Security code").fill("123")
    page.get_by_label("ZIP code").fill("04101")


def confirm(page: Page, secret: object, *, submit: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(CONFIRM, [secret, submit])
    return found


def make_intent(client: stripe.StripeClient, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 2500,
        "currency": "usd",
        "customer": client.v1.customers.create({}).id,
        "setup_future_usage": "off_session",
        "allowed_payment_method_types": ["card"],
    }
    return client.v1.payment_intents.create(params | more)


def test_it_pays_and_keeps_the_card(page: Page, client: stripe.StripeClient) -> None:
    open_element(page)
    fill(page)
    assert page.evaluate("changes.at(-1)") == {
        "elementType": "payment",
        "complete": True,
        "empty": False,
        "collapsed": False,
        "value": {"type": "card"},
    }
    intent = make_intent(client)
    assert confirm(page, intent.client_secret)["paymentIntent"]["status"] == "succeeded"
    (card,) = client.v1.payment_methods.list({"customer": str(intent.customer)}).data
    assert card.billing_details.name == "Mara"
    assert card.billing_details.address is not None
    assert card.billing_details.address.postal_code == "04101"


def test_it_saves_a_card_without_a_charge(page: Page, client: stripe.StripeClient) -> None:
    open_element(page, mode="setup", currency="usd")
    fill(page)
    setup = client.v1.setup_intents.create(
        {"usage": "off_session", "allowed_payment_method_types": ["card"]}
    )
    assert confirm(page, setup.client_secret)["setupIntent"]["status"] == "succeeded"


def test_what_is_missing_or_wrong_is_said_at_its_field(
    page: Page, client: stripe.StripeClient
) -> None:
    open_element(page)
    page.get_by_label("Expiration date").fill("0120")
    page.get_by_label("Security code").fill("1")
    intent = make_intent(client)
    error = confirm(page, intent.client_secret)["error"]
    assert (error["type"], error["code"]) == ("validation_error", "incomplete_number")
    number = page.get_by_label("Card number")
    expect(number).to_be_focused()
    for label, words in (
        ("Card number", "Your card number is incomplete."),
        ("Expiration date", "Your card's expiration year is in the past."),
        ("Security code", "Your card's security code is incomplete."),
        ("ZIP code", "Your postal code is incomplete."),
    ):
        expect(page.get_by_label(label)).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_label(label)).to_have_accessible_description(words)
    number.fill("4242424242424242")
    expect(number).to_have_accessible_description("")
    assert client.v1.payment_intents.retrieve(intent.id).status == "requires_payment_method"


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("amount", {"amount": 2600}),
        ("currency", {"currency": "eur"}),
        ("setup_future_usage", {"setup_future_usage": "on_session"}),
    ],
)
def test_an_intent_for_something_else_is_not_charged(
    page: Page, client: stripe.StripeClient, named: str, change: dict[str, Any]
) -> None:
    open_element(page)
    fill(page)
    intent = make_intent(client, **change)
    error = confirm(page, intent.client_secret)["error"]
    assert error["type"] == "invalid_request_error" and named in error["message"]
    assert client.v1.payment_intents.retrieve(intent.id).status == "requires_payment_method"
    page.evaluate("(options) => elements.update(options)", {"amount": 2600})
    if named == "amount":
        assert confirm(page, intent.client_secret)["paymentIntent"]["status"] == "succeeded"


def test_what_was_not_submitted_is_not_confirmed(page: Page, client: stripe.StripeClient) -> None:
    open_element(page)
    fill(page)
    told = confirm(page, make_intent(client).client_secret, submit=False)
    assert "elements.submit()" in told["thrown"]


def test_it_speaks_the_pages_language_and_asks_for_a_postal_code_where_cards_have_one(
    page: Page, client: stripe.StripeClient
) -> None:
    open_element(page, locale="de", country="DE")
    expect(page.get_by_role("textbox")).to_have_count(3)
    error = confirm(page, make_intent(client).client_secret)["error"]
    assert error["message"] == "Die Kartennummer ist unvollständig."
    expect(page.get_by_label("Prüfziffer")).to_have_accessible_description(
        "Die Prüfziffer ist unvollständig."
    )


def test_elements_without_an_amount_are_refused(page: Page) -> None:
    with pytest.raises(Exception, match="amount must be greater than 0"):
        open_element(page, mode="payment", amount=0, currency="usd")
