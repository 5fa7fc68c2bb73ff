"""Back and reload at each step of a checkout: what is shown is where it stands, a form sent before
does nothing twice, and nobody pays twice."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from billing.models import OutboxMessage, Payment
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.browser.customer import enter_card
from tests.browser.looking import listen
from tests.browser.people import PHONE, confirmed, known
from tests.checkout.visitor import last_code, make_session

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_back_and_reload_show_where_the_checkout_stands(
    card_network: CardNetwork, shop: cn.Shop, page: Page, live_server: object
) -> None:
    said = listen(page)
    start = page.get_by_role("button", name="Text me a code")
    code = page.get_by_label("Enter your code")
    pay = page.get_by_role("button", name="Pay $25.00")
    page.goto(f"{live_server.url}/docs")  # type: ignore[attr-defined]
    page.goto(make_session(shop.merchant, plan=shop.plan).url)
    page.reload()
    # A number that is none answers the form itself: reloaded, the page posts nothing again.
    page.get_by_label("Phone number").fill("12")
    start.click()
    expect(page.get_by_label("Phone number")).to_have_attribute("aria-invalid", "true")
    page.reload()
    expect(page.get_by_label("Phone number")).not_to_have_attribute("aria-invalid", "true")
    page.get_by_label("Phone number").fill(PHONE)
    start.click()
    expect(code).to_be_visible()
    page.reload()
    expect(code).to_be_visible()
    page.go_back()
    expect(code).to_be_visible()
    page.go_forward()
    expect(code).to_be_visible()
    assert OutboxMessage.objects.filter(to=PHONE).count() == 1
    code.press_sequentially(last_code(shop.merchant))
    expect(pay).to_be_visible()
    page.reload()
    expect(pay).to_be_visible()
    # Between code and card there is no way back to a code that was used.
    page.go_back()
    expect(pay).to_be_visible()
    page.get_by_label("Full name").fill("Mara Lindqvist")
    page.get_by_label("Email").fill("mara@tallgrass.example")
    enter_card(page, cn.DECLINES)
    pay.click()
    expect(page.get_by_role("alert")).to_contain_text("Your bank declined this card")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Your bank declined this card")
    page.go_back()
    expect(pay).to_be_visible()
    page.go_forward()
    expect(pay).to_be_visible()
    expect(page.get_by_label("Full name")).to_have_value("Mara Lindqvist")
    enter_card(page, cn.GOOD)
    pay.click()
    done = page.get_by_role("heading", name="You have $25.00 of credits")
    expect(done).to_be_visible()
    page.reload()
    expect(done).to_be_visible()
    for _ in range(3):
        page.go_back()
        if "/docs" in page.url:
            break
        expect(done).to_be_visible()
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500]
    assert Payment.objects.filter(status="succeeded").count() == 1
    assert said == []


def test_back_from_the_done_page_of_a_pack_buys_no_other(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    factories.make_bundle(shop.plan)
    connection = known(shop)
    session = confirmed(make_session(shop.merchant, mode="topup", connection=connection))
    page.goto(session.url)
    page.get_by_role("button", name="Continue").click()
    pay = page.get_by_role("button", name="Pay $10.00")
    expect(pay).to_be_visible()
    page.reload()
    expect(pay).to_be_visible()
    page.go_back()
    expect(pay).to_be_visible()
    pay.click()
    done = page.get_by_role("heading", name="You have $35.00 of credits")
    expect(done).to_be_visible()
    # The entry of the choice became the done page; the one after it was the payment.
    page.go_forward()
    expect(done).to_be_visible()
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500, 1000]


def test_a_code_that_was_there_before_the_script_is_sent(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    """A browser fills it in at once, or somebody types fast on a slow line."""
    held: list[Route] = []
    page.route("**/code*.js", lambda route: held.append(route))
    page.goto(make_session(shop.merchant, plan=shop.plan).url)
    page.get_by_label("Phone number").fill(PHONE)
    page.get_by_role("button", name="Text me a code").click()
    page.get_by_label("Enter your code").press_sequentially(last_code(shop.merchant))
    assert len(held) == 1
    held[0].continue_()
    expect(page.get_by_role("button", name="Pay $25.00")).to_be_visible()


def test_a_code_that_the_browser_puts_in_again_is_not_sent(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    """On the way back it stands there: whoever went back would be sent on."""
    page.route("**/code*.js", lambda route: route.abort())
    page.goto(make_session(shop.merchant, plan=shop.plan).url)
    page.get_by_label("Phone number").fill(PHONE)
    page.get_by_role("button", name="Text me a code").click()
    code, digits = page.get_by_label("Enter your code"), last_code(shop.merchant)
    code.press_sequentially(digits)
    page.unroute("**/code*.js")
    page.goto("about:blank")
    page.go_back(wait_until="networkidle")
    expect(code).to_have_value(digits)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("button", name="Pay $25.00")).to_be_visible()
