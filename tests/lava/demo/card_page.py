"""A page that takes a card as the checkout does: the local network's Payment Element, made before
the intent, checked by `submit`, confirmed without a redirect. Under a policy without any inline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stripe
from playwright.sync_api import Browser, Frame, Page

from lava.demo.card_network.process import CardNetwork

__all__ = ["client", "page", "site"]

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Pay</title>
<link rel="stylesheet" href="/page.css"><script src="{network}/v3/"></script>
<script src="/page.js" defer></script></head><body><main><div id="box"></div></main></body></html>
"""
# Rules of a page's own, which must not reach into the fields.
STYLES = """
body { font: 16px/24px sans-serif; margin: 24px; max-width: 400px; }
input { height: 80px; border: 5px solid red; padding: 30px; }
"""
SCRIPT = """
'use strict';
window.blocked = [];
document.addEventListener('securitypolicyviolation', (e) => blocked.push(e.violatedDirective));
window.openElement = ({locale, country, ...options}) => {
  window.stripe = Stripe('pk_test_local', {locale});
  window.elements = stripe.elements({allowedPaymentMethodTypes: ['card'],
    setupFutureUsage: 'off_session', ...options});
  window.element = elements.create('payment', {
    fields: {billingDetails: {name: 'never', email: 'never'}},
    defaultValues: {billingDetails: {address: {country}}},
  });
  window.heard = [];
  for (const name of ['ready', 'focus', 'blur', 'change']) {
    element.on(name, (event) => heard.push([name, event]));
  }
  element.mount('#box');
};
/* With the fields, or by a saved card's id. */
window.confirmIntent = async (secret, {submit = true, saved} = {}) => {
  if (submit && !saved) {
    const {error} = await elements.submit();
    if (error) return {error};
  }
  const how = secret.startsWith('pi_') ? 'confirmPayment' : 'confirmSetup';
  const billing_details = {name: 'Mara', email: 'mara@shop.example'};
  const card = saved ? {payment_method: saved} : {payment_method_data: {billing_details}};
  try {
    return await stripe[how]({...(saved ? {} : {elements}), clientSecret: secret,
      redirect: 'if_required', confirmParams: {return_url: 'https://shop.example/', ...card}});
  } catch (error) {
    return {thrown: error.message};
  }
};
"""
POLICY = (
    "default-src 'none'; script-src 'self' {network}; style-src 'self'; connect-src {network}; "
    "frame-src 'self' http://localhost:*; base-uri 'none'; form-action 'none'"
)
PAYMENT = {"mode": "payment", "amount": 2500, "currency": "usd"}


@pytest.fixture(scope="module")
def site(network: CardNetwork) -> Iterator[str]:
    """Where the page is; `parent?<sandbox>` holds it in an iframe of another origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            kind, body = "text/html; charset=utf-8", PAGE.format(network=network.url)
            if path == "/page.css":
                kind, body = "text/css", STYLES
            elif path == "/page.js":
                kind, body = "text/javascript", SCRIPT
            elif path == "/parent":
                tokens, own = query.replace("+", " "), self.headers["Host"].partition(":")[2]
                body = (
                    f'<iframe sandbox="{tokens}" src="http://localhost:{own}/" height="700">'
                    "</iframe>"
                )
            data = body.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Access-Control-Allow-Origin", "*")
            if path == "/":
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
    """The page, freshly loaded; its policy has refused nothing in the end."""
    opened = browser.new_page()
    opened.goto(site)
    yield opened
    blocked = [each for frame in opened.frames for each in frame.evaluate("window.blocked ?? []")]
    opened.close()
    assert blocked == []


@pytest.fixture
def client(network: CardNetwork) -> stripe.StripeClient:
    return stripe.StripeClient("sk_test_local", base_addresses={"api": network.url})


def open_element(
    page: Page | Frame, *, locale: str = "en", country: str = "US", **options: Any
) -> None:
    """Make and mount the element; for a payment of 25 dollars unless told otherwise."""
    page.evaluate(
        "(options) => openElement(options)",
        PAYMENT | {"locale": locale, "country": country} | options,
    )


def fill(page: Page | Frame, number: str = "4242424242424242") -> None:
    page.get_by_label("Card number").fill(number)
    page.get_by_label("Expiration date").fill("0836")
    page.get_by_label("Security code").fill("123")
    page.get_by_label("ZIP code").fill("04101")


def last_change(page: Page) -> dict[str, Any]:
    """The newest `change` the element told."""
    found: dict[str, Any] = page.evaluate("heard.findLast(([name]) => name === 'change')[1]")
    return found


def confirm(page: Page | Frame, secret: object, **how: Any) -> dict[str, Any]:
    """What the page is told in the end."""
    begin(page, secret, **how)
    return outcome(page)


def begin(page: Page | Frame, secret: object, **how: Any) -> None:
    """Press the button, as it were; a bank may ask before there is an outcome."""
    page.evaluate("([secret, how]) => { window.told = confirmIntent(secret, how); }", [secret, how])


def outcome(page: Page | Frame) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("window.told")
    return found


def make_intent(client: stripe.StripeClient, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 2500,
        "currency": "usd",
        "setup_future_usage": "off_session",
        "allowed_payment_method_types": ["card"],
    }
    if "customer" not in more:
        params["customer"] = client.v1.customers.create({}).id
    return client.v1.payment_intents.create(params | more)
