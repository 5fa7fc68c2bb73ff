"""The page's `Stripe()` in a real browser, under a CSP without any inline, alone and in a sandboxed
iframe."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stripe

from lava.demo.card_network.process import CardNetwork

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None and os.environ.get("CI"):
    pytest.fail("Chromium is missing, and CI must not skip its tests", pytrace=False)
if CHROMIUM is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)

from playwright.sync_api import Frame, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Checkout</title>
<link rel="stylesheet" href="/page.css"><script src="{network}/v3/"></script>
<script src="/page.js" defer></script></head><body><form id="form">
<label for="number">Card number</label><div id="number" class="field"></div>
<label for="expiry">Expires</label><div id="expiry" class="field"></div>
<label for="cvc">Security code</label><div id="cvc" class="field"></div>
<label for="zip">ZIP code</label><div id="zip" class="field"></div>
<button>Pay</button></form><pre id="result"></pre></body></html>"""

STYLES = """
body { font: 16px/24px sans-serif; margin: 24px; max-width: 400px; }
input { height: 80px; border: 5px solid red; padding: 30px; }
.field { height: 48px; box-sizing: border-box; padding: 14px 12px; border: 1px solid #8c949f;
  border-radius: 8px; margin-bottom: 16px; }
.StripeElement--focus { border-color: #0b5f8f; } .StripeElement--invalid { border-color: #b3261e; }
"""

SCRIPT = """
'use strict';
window.log = []; window.blocked = [];
document.addEventListener('securitypolicyviolation', (e) => blocked.push(e.violatedDirective));
const stripe = Stripe('pk_test_local');
const elements = stripe.elements();
const style = {base: {color: 'rgb(21, 25, 30)', fontFamily: 'Georgia', fontSize: '16px',
  '::placeholder': {color: 'rgb(89, 98, 109)'}}, invalid: {color: 'rgb(179, 38, 30)'}};
const fields = {};
for (const [kind, id] of [['cardNumber', 'number'], ['cardExpiry', 'expiry'], ['cardCvc', 'cvc'],
    ['postalCode', 'zip']]) {
  const field = elements.create(kind, {style, placeholder: ''});
  for (const name of ['ready', 'focus', 'blur', 'change']) {
    field.on(name, (event) => log.push([name, event]));
  }
  field.mount('#' + id);
  fields[kind] = field;
}
window.show = (result) => {
  document.getElementById('result').textContent = JSON.stringify(result);
};
const secret = new URLSearchParams(location.hash.slice(1)).get('secret');
document.getElementById('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const method = {card: fields.cardNumber, billing_details: {name: 'Mara'}};
  if (!secret) show(await stripe.createPaymentMethod({type: 'card', ...method}));
  else if (secret.startsWith('pi_')) {
    show(await stripe.confirmCardPayment(secret, {payment_method: method}));
  } else show(await stripe.confirmCardSetup(secret, {payment_method: method}));
});
"""

POLICY = (
    "default-src 'none'; script-src 'self' {network}; style-src 'self'; connect-src {network}; "
    "frame-src 'self' http://localhost:*; base-uri 'none'; form-action 'none'"
)


@pytest.fixture(scope="module")
def site(network: CardNetwork) -> Iterator[str]:
    """A page of the product's kind; `/parent?<sandbox>` holds it in an iframe of another origin."""

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
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.fixture
def page(browser_page: Page, site: str) -> Page:
    """The page freshly loaded; a secret is given by `open_with`."""
    browser_page.emulate_media(color_scheme="light")
    browser_page.goto("about:blank")
    browser_page.goto(site + "/")
    return browser_page


@pytest.fixture
def client(network: CardNetwork) -> stripe.StripeClient:
    return stripe.StripeClient("sk_test_local", base_addresses={"api": network.url})


def open_with(page: Page, secret: object) -> None:
    address = page.url.partition("#")[0]
    page.goto("about:blank")
    page.goto(f"{address}#secret={secret}")


def fill(page: Page | Frame, number: str = "4242424242424242") -> None:
    page.get_by_label("Card number").fill(number)
    page.get_by_label("Expires").fill("0836")
    page.get_by_label("Security code").fill("123")
    page.get_by_label("ZIP code").fill("04101")


def result_of(page: Page | Frame) -> dict[str, Any]:
    expect(page.locator("#result")).not_to_be_empty()
    found: dict[str, Any] = json.loads(page.locator("#result").inner_text())
    return found


def make_intent(client: stripe.StripeClient, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 2500,
        "currency": "usd",
        "allowed_payment_method_types": ["card"],
        **more,
    }
    return client.v1.payment_intents.create(params)


def test_typing_is_formatted_checked_and_told(page: Page) -> None:
    number = page.get_by_label("Card number")
    number.click()
    expect(page.locator("#number")).to_have_class(
        "field StripeElement StripeElement--empty " + "StripeElement--focus"
    )
    number.press_sequentially("42424242")
    expect(number).to_have_value("4242 4242")
    number.press("Backspace")
    number.press_sequentially("242424242")
    expect(number).to_have_value("4242 4242 4242 4242")
    number.press("9")
    expect(number).to_have_value("4242 4242 4242 4242")
    number.press("ArrowLeft")
    number.press("ArrowLeft")
    number.press("Backspace")
    expect(number).to_have_value("4242 4242 4242 442")
    number.press_sequentially("2")
    expect(number).to_have_value("4242 4242 4242 4242")
    expiry = page.get_by_label("Expires")
    expiry.click()
    expiry.press_sequentially("8")
    expect(expiry).to_have_value("08 / ")
    expiry.press("Backspace")
    expect(expiry).to_have_value("08")
    expiry.press_sequentially("36")
    expect(expiry).to_have_value("08 / 36")

    log = page.evaluate("window.log")
    brands = [event["brand"] for name, event in log if name == "change" and "brand" in event]
    assert brands[0] == "visa"
    last = [event for name, event in log if event.get("elementType") == "cardNumber"][-2]
    assert last["complete"] is True
    assert last["error"] is None
    assert sum(name == "ready" for name, _ in log) == 4
    expect(page.locator("#number")).to_have_class("field StripeElement StripeElement--complete")
    assert page.evaluate("window.blocked") == []


def test_wrong_details_are_shown_where_they_are(page: Page) -> None:
    page.get_by_label("Card number").fill("4242424242424241")
    page.get_by_label("Expires").fill("0120")
    page.get_by_label("Security code").fill("1")
    page.get_by_role("button", name="Pay").click()
    assert result_of(page)["error"]["code"] == "invalid_number"
    for id in ("number", "expiry", "cvc", "zip"):
        expect(page.locator(f"#{id}.StripeElement--invalid")).to_have_count(1)
    expect(page.get_by_label("Card number")).to_have_attribute("aria-invalid", "true")
    errors = {
        event["elementType"]: event["error"]["code"]
        for name, event in page.evaluate("window.log")
        if name == "change" and event.get("error")
    }
    assert errors == {
        "cardNumber": "invalid_number",
        "cardExpiry": "invalid_expiry_year_past",
        "cardCvc": "incomplete_cvc",
    }


def test_the_fields_look_as_told_whatever_the_page_does_to_inputs(page: Page) -> None:
    style = page.get_by_label("Card number").evaluate(
        "(el) => { const s = getComputedStyle(el); return [s.color, s.fontFamily, s.borderTopWidth,"
        " s.paddingLeft, s.backgroundColor, getComputedStyle(el, '::placeholder').color] }"
    )
    assert style == [
        "rgb(21, 25, 30)",
        "Georgia",
        "0px",
        "0px",
        "rgba(0, 0, 0, 0)",
        "rgb(89, 98, 109)",
    ]
    box = page.locator("#number").bounding_box()
    inner = page.get_by_label("Card number").bounding_box()
    assert box is not None
    assert inner is not None
    assert box["height"] == 48
    assert inner["width"] == box["width"] - 26
    page.get_by_label("Card number").fill("4242424242424241")
    expect(page.get_by_label("Card number")).to_have_css("color", "rgb(179, 38, 30)")
    attributes = page.get_by_label("Card number").evaluate(
        "(el) => [el.autocomplete, el.inputMode, el.name]"
    )
    assert attributes == ["cc-number", "numeric", ""]


def test_a_label_leads_to_its_field(page: Page) -> None:
    page.locator("label[for=expiry]").click()
    expect(page.get_by_label("Expires")).to_be_focused()
    page.locator("#number").click(position={"x": 2, "y": 2})
    expect(page.get_by_label("Card number")).to_be_focused()


def test_a_card_is_made(page: Page, client: stripe.StripeClient) -> None:
    fill(page)
    page.get_by_role("button", name="Pay").click()
    made = result_of(page)["paymentMethod"]
    kept = client.v1.payment_methods.retrieve(made["id"])
    assert kept.card is not None
    assert (kept.card.last4, kept.card.exp_month, kept.card.exp_year) == ("4242", 8, 2036)
    assert kept.billing_details.name == "Mara"
    assert kept.billing_details.address is not None
    assert kept.billing_details.address.postal_code == "04101"


def test_it_pays(page: Page, client: stripe.StripeClient) -> None:
    intent = make_intent(client)
    open_with(page, intent.client_secret)
    fill(page)
    page.get_by_label("ZIP code").press("Enter")
    assert result_of(page)["paymentIntent"]["status"] == "succeeded"
    assert client.v1.payment_intents.retrieve(intent.id).status == "succeeded"
    assert page.evaluate("window.blocked") == []


def test_a_decline_is_told_in_the_banks_words(page: Page, client: stripe.StripeClient) -> None:
    intent = make_intent(client)
    open_with(page, intent.client_secret)
    fill(page, "4000000000009995")
    page.get_by_role("button", name="Pay").click()
    error = result_of(page)["error"]
    assert (error["type"], error["decline_code"]) == ("card_error", "insufficient_funds")
    assert error["message"] == "Your card has insufficient funds."
    assert error["payment_intent"]["id"] == intent.id
    assert "metadata" not in error["payment_intent"]


def test_an_approved_payment_is_paid(page: Page, client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({}).id
    intent = make_intent(client, customer=customer, setup_future_usage="off_session")
    open_with(page, intent.client_secret)
    fill(page, "4000002500003155")
    page.get_by_role("button", name="Pay").click()
    dialog = page.get_by_role("dialog", name="Approve this payment?")
    expect(dialog).to_contain_text("$25.00")
    expect(dialog).to_contain_text("Visa ending 3155")
    expect(dialog.get_by_role("button", name="Approve")).to_be_focused()
    dialog.get_by_role("button", name="Approve").click()
    assert result_of(page)["paymentIntent"]["status"] == "succeeded"
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(client.v1.payment_methods.list({"customer": customer}).data) == 1
    assert page.evaluate("window.blocked") == []


@pytest.mark.parametrize("how", ["Refuse", "Escape"])
def test_a_refused_payment_is_not(page: Page, client: stripe.StripeClient, how: str) -> None:
    intent = make_intent(client)
    open_with(page, intent.client_secret)
    fill(page, "4000002760003184")
    page.get_by_role("button", name="Pay").click()
    if how == "Refuse":
        page.get_by_role("button", name="Refuse").click()
    else:
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
    assert result_of(page)["error"]["code"] == "payment_intent_authentication_failure"
    assert client.v1.payment_intents.retrieve(intent.id).status == "requires_payment_method"


def test_a_card_is_set_up(page: Page, client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({}).id
    intent = client.v1.setup_intents.create(
        {"customer": customer, "allowed_payment_method_types": ["card"]}
    )
    open_with(page, intent.client_secret)
    fill(page, "4000002500003155")
    page.get_by_role("button", name="Pay").click()
    page.get_by_role("dialog", name="Save this card?").get_by_text("Approve").click()
    assert result_of(page)["setupIntent"]["status"] == "succeeded"
    assert len(client.v1.payment_methods.list({"customer": customer}).data) == 1


def test_a_saved_card_pays_and_a_waiting_payment_is_taken_up(
    page: Page, client: stripe.StripeClient
) -> None:
    customer = client.v1.customers.create({}).id
    method = client.v1.payment_methods.attach(
        "pm_card_authenticationRequired", {"customer": customer}
    ).id
    intent = make_intent(client, customer=customer, payment_method=method, confirm=True)
    assert intent.status == "requires_action"
    page.evaluate(
        "(secret) => { stripe.handleNextAction({clientSecret: secret}).then(show) }",
        intent.client_secret,
    )
    page.get_by_role("button", name="Approve").click()
    assert result_of(page)["paymentIntent"]["status"] == "succeeded"

    second = make_intent(client, customer=customer)
    page.evaluate(
        "([secret, id]) => { show(''); stripe.confirmCardPayment(secret, {payment_method: id})"
        ".then(show) }",
        [second.client_secret, method],
    )
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#result")).to_contain_text(second.id)
    assert result_of(page)["paymentIntent"]["status"] == "succeeded"


def test_fields_are_cleared_changed_and_taken_away(page: Page) -> None:
    fill(page)
    page.evaluate("fields.cardNumber.clear()")
    expect(page.get_by_label("Card number")).to_have_value("")
    expect(page.locator("#number.StripeElement--empty")).to_have_count(1)
    page.evaluate("fields.cardNumber.update({placeholder: '0000', disabled: true})")
    expect(page.get_by_placeholder("0000")).to_be_disabled()
    page.evaluate("fields.cardNumber.update({disabled: false}); fields.cardNumber.focus()")
    expect(page.get_by_label("Card number")).to_be_focused()
    page.evaluate("fields.cardNumber.destroy()")
    expect(page.locator("#number input")).to_have_count(0)
    expect(page.locator("#number")).to_have_class("field")
    page.evaluate("elements.create('cardNumber', {ariaLabel: 'Again'}).mount('#number')")
    expect(page.get_by_label("Again")).to_be_visible()


def test_a_network_that_is_away_is_an_error_and_no_exception(page: Page) -> None:
    fill(page)
    page.route("**/v1/payment_methods", lambda route: route.abort())
    page.get_by_role("button", name="Pay").click()
    assert result_of(page)["error"]["type"] == "api_connection_error"
    page.unroute("**/v1/payment_methods")


@pytest.mark.parametrize(
    "sandbox", ["allow-forms+allow-scripts+allow-same-origin", "allow-forms+allow-scripts"]
)
def test_it_pays_inside_a_sandboxed_iframe_of_another_origin(
    page: Page, site: str, client: stripe.StripeClient, sandbox: str
) -> None:
    intent = make_intent(client)
    page.goto(f"{site}/parent?{sandbox}")
    frame = next(frame for frame in page.frames if frame != page.main_frame)
    frame.wait_for_load_state()
    fill(frame, "4000002760003184")
    frame.evaluate(
        "(secret) => { stripe.confirmCardPayment(secret, {payment_method:"
        " {card: fields.cardNumber}}).then(show) }",
        intent.client_secret,
    )
    frame.get_by_role("button", name="Approve").click()
    assert result_of(frame)["paymentIntent"]["status"] == "succeeded"
    assert frame.evaluate("window.blocked") == []
