"""The page's `Stripe()` in a real browser: what is typed, how its fields look, the bank's question,
under a CSP without any inline, alone and in a sandboxed iframe."""

from __future__ import annotations

import pytest
import stripe
from playwright.sync_api import Page, expect

from tests.lava.demo.card_page import (
    begin,
    client,
    confirm,
    fill,
    last_change,
    make_intent,
    open_element,
    outcome,
    page,
    site,
)

__all__ = ["client", "page", "site"]
pytestmark = pytest.mark.browser

ASKS_ONCE = "4000002500003155"
ASKS_ALWAYS = "4000002760003184"
LOOKS = {
    "variables": {
        "colorText": "rgb(21, 25, 30)",
        "colorTextPlaceholder": "rgb(89, 98, 109)",
        "colorDanger": "rgb(179, 38, 30)",
        "fontFamily": "Georgia",
    },
    "rules": {
        ".Input": {
            "border": "1px solid rgb(140, 148, 159)", "padding": "11px 12px", "lineHeight": "24px",
        },
        ".Input--invalid": {"borderColor": "rgb(179, 38, 30)", "color": "rgb(179, 38, 30)"},
    },
}  # fmt: skip


def test_typing_is_formatted_checked_and_told(page: Page) -> None:
    open_element(page)
    number = page.get_by_label("Card number")
    number.click()
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
    expiry = page.get_by_label("Expiration date")
    expiry.click()
    expiry.press_sequentially("8")
    expect(expiry).to_have_value("08 / ")
    expiry.press("Backspace")
    expect(expiry).to_have_value("08")
    expiry.press_sequentially("36")
    expect(expiry).to_have_value("08 / 36")
    heard = [name for name, _ in page.evaluate("heard")]
    assert heard.count("ready") == 1 and heard.count("focus") == 2 and heard.count("blur") == 1


@pytest.mark.parametrize(
    ("number", "grouped", "code"),
    [
        ("378282246310005", "3782 822463 10005", "1234"),
        ("5555555555554444", "5555 5555 5555 4444", "123"),
    ],
)
def test_a_brand_has_its_own_groups_and_code(
    page: Page, number: str, grouped: str, code: str
) -> None:
    open_element(page)
    fill(page, number)
    expect(page.get_by_label("Card number")).to_have_value(grouped)
    page.get_by_label("Security code").fill("12345")
    expect(page.get_by_label("Security code")).to_have_value("12345"[: len(code)])
    assert last_change(page)["complete"] is True
    # The code of one brand is checked again when the number becomes another's.
    page.get_by_label("Security code").fill(code)
    page.get_by_label("Card number").fill("4242424242424242")
    page.get_by_label("Card number").blur()
    assert page.evaluate("elements.submit()").get("error") == (
        None
        if code == "123"
        else {
            "type": "validation_error",
            "code": "incomplete_cvc",
            "message": "Your card's security code is incomplete.",
        }
    )


def test_a_wrong_number_is_said_while_it_is_typed_and_an_incomplete_one_when_it_is_left(
    page: Page,
) -> None:
    open_element(page)
    number = page.get_by_label("Card number")
    number.press_sequentially("4242")
    expect(number).to_have_attribute("aria-invalid", "false")
    number.blur()
    expect(number).to_have_accessible_description("Your card number is incomplete.")
    number.fill("4242424242424241")
    expect(number).to_have_accessible_description("Your card number is invalid.")
    number.fill("4242424242424242")
    expect(number).to_have_attribute("aria-invalid", "false")


def test_the_fields_look_as_told_whatever_the_page_does_to_inputs(page: Page) -> None:
    open_element(page, appearance=LOOKS)
    number = page.get_by_label("Card number")
    style = number.evaluate(
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
    box, inner = number.locator("..").bounding_box(), number.bounding_box()
    assert box is not None and inner is not None
    assert box["height"] == 48
    assert inner["width"] == box["width"] - 26
    number.fill("4242424242424241")
    expect(number).to_have_css("color", "rgb(179, 38, 30)")
    expect(number.locator("..")).to_have_css("border-top-color", "rgb(179, 38, 30)")
    attributes = number.evaluate("(el) => [el.autocomplete, el.inputMode, el.name]")
    assert attributes == ["cc-number", "numeric", ""]
    page.evaluate("elements.update({appearance: {variables: {colorText: 'rgb(1, 2, 3)'}}})")
    expect(page.get_by_label("Security code")).to_have_css("color", "rgb(1, 2, 3)")


def test_a_label_leads_to_its_field(page: Page) -> None:
    open_element(page)
    page.get_by_text("Expiration date").click()
    expect(page.get_by_label("Expiration date")).to_be_focused()
    page.get_by_label("Card number").locator("..").click(position={"x": 2, "y": 2})
    expect(page.get_by_label("Card number")).to_be_focused()


def test_a_decline_is_told_in_the_banks_words(page: Page, client: stripe.StripeClient) -> None:
    open_element(page)
    fill(page, "4000000000009995")
    intent = make_intent(client)
    error = confirm(page, intent.client_secret)["error"]
    assert (error["type"], error["decline_code"]) == ("card_error", "insufficient_funds")
    assert error["message"] == "Your card has insufficient funds."
    assert error["payment_intent"]["id"] == intent.id
    assert "metadata" not in error["payment_intent"]


def test_an_approved_payment_is_paid(page: Page, client: stripe.StripeClient) -> None:
    intent = make_intent(client)
    open_element(page)
    fill(page, ASKS_ONCE)
    begin(page, intent.client_secret)
    dialog = page.get_by_role("dialog", name="Approve this payment?")
    expect(dialog).to_contain_text("$25.00")
    expect(dialog).to_contain_text("Visa ending 3155")
    expect(dialog.get_by_role("button", name="Approve")).to_be_focused()
    dialog.get_by_role("button", name="Approve").click()
    assert outcome(page)["paymentIntent"]["status"] == "succeeded"
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(client.v1.payment_methods.list({"customer": str(intent.customer)}).data) == 1


@pytest.mark.parametrize("how", ["Refuse", "Escape"])
def test_a_refused_payment_is_not(page: Page, client: stripe.StripeClient, how: str) -> None:
    intent = make_intent(client)
    open_element(page)
    fill(page, ASKS_ALWAYS)
    begin(page, intent.client_secret)
    if how == "Refuse":
        page.get_by_role("button", name="Refuse").click()
    else:
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
    assert outcome(page)["error"]["code"] == "payment_intent_authentication_failure"
    assert client.v1.payment_intents.retrieve(intent.id).status == "requires_payment_method"


def test_a_card_is_set_up(page: Page, client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({}).id
    intent = client.v1.setup_intents.create(
        {"customer": customer, "allowed_payment_method_types": ["card"]}
    )
    open_element(page, mode="setup")
    fill(page, ASKS_ONCE)
    begin(page, intent.client_secret)
    page.get_by_role("dialog", name="Save this card?").get_by_text("Approve").click()
    assert outcome(page)["setupIntent"]["status"] == "succeeded"
    assert len(client.v1.payment_methods.list({"customer": customer}).data) == 1


def test_a_saved_card_pays_without_a_field(page: Page, client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({}).id
    method = client.v1.payment_methods.attach(
        "pm_card_authenticationRequired", {"customer": customer}
    ).id
    open_element(page)
    begin(page, make_intent(client, customer=customer).client_secret, saved=method)
    page.get_by_role("button", name="Approve").click()
    assert outcome(page)["paymentIntent"]["status"] == "succeeded"


def test_a_network_that_is_away_is_an_error_and_no_exception(
    page: Page, client: stripe.StripeClient
) -> None:
    intent = make_intent(client)
    open_element(page)
    fill(page)
    page.route("**/confirm", lambda route: route.abort())
    assert confirm(page, intent.client_secret)["error"]["type"] == "api_connection_error"
    assert client.v1.payment_intents.retrieve(intent.id).status == "requires_payment_method"


@pytest.mark.parametrize(
    "sandbox", ["allow-forms+allow-scripts+allow-same-origin", "allow-forms+allow-scripts"]
)
def test_it_pays_inside_a_sandboxed_iframe_of_another_origin(
    page: Page, site: str, client: stripe.StripeClient, sandbox: str
) -> None:
    intent = make_intent(client)
    page.goto(f"{site}parent?{sandbox}")
    frame = next(frame for frame in page.frames if frame != page.main_frame)
    frame.wait_for_load_state()
    open_element(frame)
    fill(frame, ASKS_ALWAYS)
    begin(frame, intent.client_secret)
    frame.get_by_role("button", name="Approve").click()
    assert outcome(frame)["paymentIntent"]["status"] == "succeeded"
