"""The checkout by keyboard alone for whoever comes back: packs, another plan, a
new card. The focus can be seen at each stop."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from billing import clock
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.browser.keys import press, reach, write
from tests.browser.looking import listen
from tests.browser.people import PHONE, confirmed, known
from tests.checkout.visitor import last_code, make_session

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_returning_customer_buys_packs(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    said = listen(page)
    factories.make_bundle(shop.plan)
    large = factories.make_bundle(shop.plan, cost="50", credit="55")
    connection = known(shop)
    page.goto(make_session(shop.merchant, mode="topup", connection=connection).url)
    press(page, "Text me a code")
    code = page.get_by_label("Enter your code")
    expect(code).to_be_focused()
    page.keyboard.type(last_code(shop.merchant, PHONE))
    reach(page, page.get_by_role("radio", name="Pack 10"))
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="Pack 50")).to_be_checked()
    press(page, "Continue")
    # Chosen again, and the other one.
    press(page, "Change pack")
    press(page, "Continue")
    press(page, "Pay \\$10.00")
    expect(page.get_by_role("heading", name="You have $35.00 of credits")).to_be_visible()

    chosen = make_session(shop.merchant, mode="credit_bundle", bundle=large, connection=connection)
    page.goto(confirmed(chosen).url)
    # Another card, by the arrow keys.
    reach(page, page.get_by_role("radio", name="Visa ending 4242"))
    page.keyboard.press("ArrowDown")
    write(page, "Card number", "5555555555554444")
    write(page, "Expiration date", "0831")
    write(page, "Security code", "123")
    write(page, "ZIP code", "04101")
    press(page, "Pay \\$50.00", key="Space")
    expect(page.get_by_role("heading", name="You have $90.00 of credits")).to_be_visible()
    press(page, "See your credits", role="link")
    expect(page.get_by_role("button", name="Text me a code")).to_be_visible()
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500, 1000, 5000]
    assert said == []


def test_a_returning_customer_switches_plan_and_saves_a_card(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    said = listen(page)
    pro = factories.make_plan(shop.merchant, name="Pro", price="79", credit="90")
    starter = factories.make_plan(shop.merchant, name="Starter", price="9", credit="9")
    connection = known(shop)
    page.goto(make_session(shop.merchant, plan=pro).url)
    write(page, "Phone number", PHONE.removeprefix("+1"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Enter your code")).to_be_focused()
    page.keyboard.type(last_code(shop.merchant, PHONE))
    press(page, "Pay \\$54.00 and switch")
    expect(page.get_by_text("Pro is active and ready to use.")).to_be_visible()

    clock.advance(shop.merchant, to=shop.now + timedelta(minutes=2))
    page.goto(confirmed(make_session(shop.merchant, plan=starter)).url)
    press(page, "^Switch on")
    expect(page.get_by_role("heading", name="You switch to Starter on")).to_be_visible()

    clock.advance(shop.merchant, to=shop.merchant.now() + timedelta(minutes=2))
    page.goto(confirmed(make_session(shop.merchant, mode="onboarding", connection=connection)).url)
    write(page, "Card number", "4000002500003155")
    write(page, "Expiration date", "0831")
    write(page, "Security code", "123")
    write(page, "ZIP code", "04101")
    page.keyboard.press("Enter")
    approve = page.get_by_role("button", name="Approve")
    expect(approve).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Your card is saved")).to_be_visible()
    assert said == []
