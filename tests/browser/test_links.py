"""The links of our mails in a real browser: confirm a charge with 3-D Secure, replace a card, read
a receipt. Under the pages' own content security policy."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from billing import receipts
from billing.models import Connection, OutboxMessage, Payment
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.browser.customer import enter_card
from tests.browser.looking import look

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def subscriber(shop: cn.Shop) -> Connection:
    connection = factories.make_connection(shop.merchant, now=shop.now)
    customer = connection.customer
    customer.first_name, customer.last_name = "Mara", "Lindqvist"
    customer.email = "mara@tallgrass.example"
    customer.save()
    return cn.subscribe(shop.plan, now=shop.now, connection=connection)


def waiting(shop: cn.Shop, network: CardNetwork) -> Payment:
    connection = subscriber(shop)
    cn.behave_as(network, connection, cn.ASKS_ALWAYS)
    shop.renew(connection)
    found: Payment = Payment.objects.get(purpose="renewal")
    assert found.status == "requires_action"
    return found


def test_the_customer_confirms_a_renewal_in_the_banks_dialog(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    payment = waiting(shop, card_network)
    page.goto(receipts.pay_address(payment))
    expect(page.get_by_role("heading", name="Confirm $25.00")).to_be_visible()
    look(page, "confirm")
    page.get_by_role("button", name="Confirm $25.00").click()
    page.get_by_role("button", name="Refuse").click()
    expect(page.get_by_role("alert")).to_contain_text("Your bank could not confirm")
    look(page, "confirm-refused")
    page.get_by_role("button", name="Confirm $25.00").click()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="$25.00 paid")).to_be_visible()
    look(page, "confirm-done")
    payment.refresh_from_db()
    assert payment.status == "succeeded"
    page.get_by_role("link", name=re.compile("Open receipt")).click()
    expect(page.get_by_role("link", name="Save as PDF")).to_be_visible()
    look(page, "receipt")


def test_another_card_pays_it(card_network: CardNetwork, shop: cn.Shop, page: Page) -> None:
    payment = waiting(shop, card_network)
    page.goto(receipts.pay_address(payment))
    page.get_by_text("Another card").click()
    enter_card(page, "5555555555554444")
    look(page, "confirm-other")
    page.get_by_role("button", name="Confirm $25.00").click()
    expect(page.get_by_role("heading", name="$25.00 paid")).to_be_visible()
    assert str(Connection.objects.get().card) == "Mastercard ending 4444"


def test_a_card_is_replaced_behind_a_phone_code(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    connection = subscriber(shop)
    page.goto(receipts.card_address(connection))
    expect(page.get_by_role("heading", name="Replace your card")).to_be_visible()
    look(page, "card")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name=re.compile("code", re.I)).click()
    page.get_by_label("Enter your code").wait_for()
    text = OutboxMessage.objects.filter(kind="text").latest("created_at")
    page.get_by_label("Enter your code").press_sequentially(text.body[:6])
    enter_card(page, "5555555555554444")
    page.get_by_role("button", name="Save card").click()
    expect(page.get_by_role("heading", name="Your card is saved")).to_be_visible()
    assert str(connection.card) == "Mastercard ending 4444"


def test_a_link_that_is_over_says_what_to_do(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    payment = waiting(shop, card_network)
    Payment.objects.filter(pk=payment.pk).update(action_until=shop.now)
    page.goto(receipts.pay_address(payment))
    expect(page.get_by_role("heading", name=re.compile("nothing to confirm"))).to_be_visible()
    look(page, "confirm-over")
    page.get_by_role("link", name="Use another card").click()
    expect(page.get_by_role("heading", name="Replace your card")).to_be_visible()
