"""The local network's Payment Element, as the checkout uses Stripe's: made before the intent,
checked by `submit`, confirmed without a redirect; what Stripe would refuse is refused here too."""

from __future__ import annotations

from typing import Any

import pytest
import stripe
from playwright.sync_api import Page, expect

from tests.lava.demo.card_page import (
    client,
    confirm,
    fill,
    last_change,
    make_intent,
    open_element,
    page,
    site,
)

__all__ = ["client", "page", "site"]
pytestmark = pytest.mark.browser


def test_it_pays_and_keeps_the_card(page: Page, client: stripe.StripeClient) -> None:
    open_element(page)
    fill(page)
    assert last_change(page) == {
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
