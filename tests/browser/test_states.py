"""Every state of the checkout as a page in Chromium: new and returning customers, every mode,
declines, 3-D Secure, what cannot be bought, what is over, and the network away. By keyboard alone
once, in three languages, wide and narrow, light and dark; axe-core finds nothing."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from billing import clock, subscriptions
from billing.models import Connection, Payment
from checkout.models import CheckoutSession
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.browser.customer import enter_card
from tests.browser.looking import listen, look
from tests.browser.people import PHONE, confirmed, known
from tests.checkout.visitor import Visitor, last_code, make_session

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def make_meters(shop: cn.Shop) -> None:
    """A meter of every model of a price, on the plan."""
    merchant, plan = shop.merchant, shop.plan
    factories.make_meter(
        merchant, plan, slug="code", tiers=[("0", "3"), ("10000000", "2")],
        tier_flats=[Decimal(0), Decimal(5)], tier_window="cycle", token_basis="output",
    )  # fmt: skip
    factories.make_meter(
        merchant, plan, slug="images", unit="requests", tiers=[("0", "0.04")],
        free_allowance=Decimal(100), package_size=Decimal(10),
    )  # fmt: skip
    factories.make_meter(
        merchant, plan, slug="models", tiers=[("0", "3"), ("0", "15"), ("0", "0.3")],
        tier_kinds=["input", "output", "cache_read"],
    )  # fmt: skip
    factories.make_meter(merchant, plan, slug="tools", tiers=[("0", "20")], rate_type="percentage")
    factories.make_meter(merchant, plan, slug="vision", unit="requests", tiers=[("0", "0.0125")])


def test_a_new_customer_by_keyboard_alone(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    factories.make_bundle(shop.plan)
    said = listen(page)
    session = make_session(shop.merchant, plan=shop.plan)
    page.goto(session.url)
    look(page, "01-start", dark=True)
    keys = page.keyboard
    keys.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_label("Phone number").focus()
    keys.type("12")
    keys.press("Enter")
    expect(page.get_by_label("Phone number")).to_be_focused()
    expect(page.get_by_label("Phone number")).to_have_attribute("aria-invalid", "true")
    look(page, "02-start-wrong-number")
    keys.press("ControlOrMeta+a")
    keys.type("(415) 555-0142")
    keys.press("Enter")
    code = page.get_by_label("Enter your code")
    expect(code).to_be_focused()
    look(page, "03-code", dark=True)
    keys.type("000000")
    expect(page.get_by_role("alert")).to_contain_text("That is not the code we sent")
    look(page, "04-code-wrong")
    # Pasted with its dash, it submits itself.
    right = last_code(shop.merchant, PHONE)
    page.evaluate(
        "text => { const d = new DataTransfer(); d.setData('text', text);"
        " document.getElementById('code').dispatchEvent("
        "new ClipboardEvent('paste', {clipboardData: d, cancelable: true})); }",
        f"{right[:3]}-{right[3:]}",
    )
    name = page.get_by_label("Full name")
    name.wait_for()
    look(page, "05-pay", dark=True)
    name.focus()
    keys.press("Enter")
    expect(page.get_by_text("Enter your full name.")).to_be_visible()
    expect(name).to_be_focused()
    keys.type("Mara Lindqvist")
    keys.press("Tab")
    keys.type("mara@tallgrass.example")
    keys.press("Tab")
    keys.type("4000000000000002")
    keys.press("Tab")
    keys.type("0831")
    keys.press("Tab")
    keys.type("123")
    keys.press("Tab")
    keys.type("04101")
    keys.press("Tab")
    expect(page.get_by_role("button", name="Pay $25.00")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Your bank declined this card")
    expect(page.get_by_role("alert")).to_be_focused()
    look(page, "06-declined", dark=True)
    assert Payment.objects.get().status != "succeeded"
    enter_card(page, "4242424242424242")
    page.get_by_role("button", name="Pay $25.00").focus()
    keys.press("Enter")
    expect(page.get_by_role("heading", name="You have $25.00 of credits")).to_be_visible()
    look(page, "07-done", dark=True)
    page.reload()
    expect(page.get_by_role("heading", name="You have $25.00 of credits")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="You have $25.00 of credits")).to_be_visible()
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500]
    assert said == []


def test_every_model_of_a_price_on_the_first_page(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    said = listen(page)
    make_meters(shop)
    session = make_session(shop.merchant, plan=shop.plan)
    for language in ("en", "de"):
        page.goto(f"{session.url}?locale={language}")
        look(page, f"00-prices-{language}", dark=language == "en")
    more = page.locator("summary")
    more.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Vision, pro Anfrage")).to_be_visible()
    look(page, "00-prices-open")
    assert said == []


def test_three_d_secure_refused_and_approved(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    said = listen(page)
    session = confirmed(make_session(shop.merchant, plan=shop.plan))
    page.goto(session.url)
    page.get_by_label("Full name").fill("Mara Lindqvist")
    page.get_by_label("Email").fill("mara@tallgrass.example")
    enter_card(page, cn.ASKS_ALWAYS)
    pay = page.get_by_role("button", name=re.compile("^Pay"))
    pay.click()
    page.get_by_role("button", name="Refuse").wait_for()
    expect(page.locator("#pay")).to_have_attribute("aria-disabled", "true")
    look(page, "08-3ds")
    page.get_by_role("button", name="Refuse").click()
    expect(page.get_by_role("alert")).to_contain_text("could not confirm that it was you")
    look(page, "09-3ds-refused")
    # Reloaded, the page is where it was, and says so.
    page.reload()
    page.get_by_label("Full name").fill("Mara Lindqvist")
    enter_card(page, cn.ASKS_ALWAYS)
    # Pressed twice it is one payment.
    pay.dblclick()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="You have $25.00 of credits")).to_be_visible()
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500]
    assert said == []


def test_a_press_before_the_networks_script_is_there_waits_for_it(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    factories.make_bundle(shop.plan)
    connection = known(shop)
    held: list[Route] = []
    page.route("**/v3/", lambda route: held.append(route))
    page.goto(confirmed(make_session(shop.merchant, mode="topup", connection=connection)).url)
    page.get_by_role("button", name="Continue").click()
    pay = page.locator("#pay")
    pay.click(no_wait_after=True)
    expect(pay).to_have_attribute("aria-disabled", "true")
    for route in held:
        route.continue_()
    expect(page.get_by_role("heading", name="You have $35.00 of credits")).to_be_visible()
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500, 1000]


def test_two_tabs_of_one_checkout_charge_once(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    session = confirmed(make_session(shop.merchant, plan=shop.plan))
    page.goto(session.url)
    other = page.context.new_page()
    other.goto(session.url)
    for tab in (page, other):
        tab.get_by_label("Full name").fill("Mara Lindqvist")
        tab.get_by_label("Email").fill("mara@tallgrass.example")
        enter_card(tab, "4242424242424242")
    page.locator("#pay").click(no_wait_after=True)
    other.locator("#pay").click(no_wait_after=True)
    for tab in (page, other):
        expect(tab.get_by_role("heading", name="You have $25.00 of credits")).to_be_visible()
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500]
    assert Connection.objects.filter(status="active").count() == 1
    other.close()


def test_a_returning_customer_in_every_mode(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    said = listen(page)
    bundle = factories.make_bundle(shop.plan)
    pro = factories.make_plan(shop.merchant, name="Pro", price="79", credit="90")
    connection = known(shop)

    page.goto(make_session(shop.merchant, mode="topup", connection=connection).url)
    look(page, "10-known-start")
    page.goto(confirmed(make_session(shop.merchant, mode="topup", connection=connection)).url)
    look(page, "11-choose-pack", dark=True)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("button", name="Pay $10.00")).to_be_visible()
    look(page, "12-pack-saved-card", dark=True)
    page.get_by_text("Another card").click()
    expect(page.get_by_label("Card number")).to_be_visible()
    look(page, "13-pack-other-card")
    page.get_by_role("radio", name=re.compile("Visa ending 4242")).check()
    page.get_by_role("button", name="Pay $10.00").click()
    expect(page.get_by_role("heading", name="You have $35.00 of credits")).to_be_visible()
    look(page, "14-pack-done")

    bought = make_session(shop.merchant, mode="credit_bundle", bundle=bundle, connection=connection)
    page.goto(bought.url)
    look(page, "15-pack-start")
    page.goto(confirmed(make_session(shop.merchant, mode="onboarding", connection=connection)).url)
    look(page, "16-onboarding")
    enter_card(page, "5555555555554444")
    page.get_by_role("button", name="Save card").click()
    expect(page.get_by_role("heading", name="Your card is saved")).to_be_visible()
    look(page, "17-onboarding-done")

    page.goto(confirmed(make_session(shop.merchant, plan=pro)).url)
    expect(page.get_by_role("heading", name="You are on Studio. Switch to Pro?")).to_be_visible()
    look(page, "18-switch", dark=True)
    starter = factories.make_plan(shop.merchant, name="Starter", price="9", credit="9")
    page.goto(confirmed(make_session(shop.merchant, plan=starter)).url)
    expect(page.get_by_text("Step 3 of 3")).to_be_hidden()
    look(page, "19-switch-later")
    page.get_by_role("button", name=re.compile("^Switch on")).click()
    expect(
        page.get_by_role("heading", name=re.compile("^You switch to Starter on"))
    ).to_be_visible()
    look(page, "20-switch-planned")
    assert said == []


def test_what_is_over_or_cannot_be_bought_says_so(
    card_network: CardNetwork, shop: cn.Shop, page: Page, live_server: Any
) -> None:
    said = listen(page)
    connection = known(shop)
    over = make_session(shop.merchant, plan=shop.plan, return_url="https://app.example.com/x")
    CheckoutSession.objects.filter(pk=over.pk).update(state="expired")
    page.goto(over.url)
    expect(page.get_by_role("link", name=re.compile("^Return to"))).to_be_visible()
    look(page, "21-expired", dark=True)

    page.goto(confirmed(make_session(shop.merchant, plan=shop.plan)).url)
    expect(page.get_by_role("heading", name="You already have Studio")).to_be_visible()
    expect(page.get_by_role("link", name="See your credits, plan and receipts")).to_have_attribute(
        "href", f"/portal/{shop.merchant.public_id}"
    )
    look(page, "22-same-plan")

    free = factories.make_plan(
        shop.merchant, name="Hobby", price="0", credit="1", when_depleted="block"
    )
    visitor = Visitor(make_session(shop.merchant, plan=free))
    visitor.confirm_phone("+14155550143")
    page.goto(visitor.session.url)
    expect(page.get_by_role("button", name="Start Hobby")).to_be_visible()
    look(page, "23-free-plan")
    visitor.session.refresh_from_db()

    stale = make_session(shop.merchant, plan=free)
    other = Visitor(stale)
    other.confirm_phone("+14155550144")
    CheckoutSession.objects.filter(pk=stale.pk).update(amount="5")
    page.goto(stale.url)
    expect(page.get_by_role("heading", name="The price has changed")).to_be_visible()
    look(page, "24-price-changed")

    Connection.objects.filter(pk=connection.pk).update(status="disabled")
    pro = factories.make_plan(shop.merchant, name="Pro", price="79", credit="90")
    page.goto(confirmed(make_session(shop.merchant, plan=pro)).url)
    expect(page.get_by_role("heading", name="Billing is paused for this number")).to_be_visible()
    look(page, "25-paused")

    # A newer checkout of the same customer takes the place of an older one.
    tabs = [Visitor(make_session(shop.merchant, plan=shop.plan)) for _ in range(2)]
    for tab in tabs:
        tab.confirm_phone("+14155550145")
        assert tab.press_pay().status_code == 200
    page.goto(tabs[0].session.url)
    expect(page.get_by_role("heading", name="A newer checkout took over")).to_be_visible()
    look(page, "26-withdrawn")

    page.goto(f"{live_server.url}/checkout/css_nothing")
    expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()
    look(page, "27-not-found")

    waiting = Visitor(make_session(shop.merchant, plan=pro))
    waiting.confirm_phone("+14155550146")
    waiting.press_pay()
    Payment.objects.filter(connection__customer__phone="+14155550146").update(status="unknown")
    card_network.control("faults", {"action": "drop_before", "path": "*", "times": 40})
    page.goto(waiting.session.url)
    expect(page.get_by_role("heading", name="Your bank is checking the payment")).to_be_visible()
    look(page, "27-waiting")
    # It looks again by itself.
    with page.expect_navigation(timeout=8000):
        pass
    expect(page.get_by_role("heading", name="Your bank is checking the payment")).to_be_visible()
    assert subscriptions.locked(connection.subscription).plan == shop.plan  # type: ignore[arg-type]
    assert said == []


def test_with_the_network_away_nothing_is_charged_and_the_page_goes_on(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    session = confirmed(make_session(shop.merchant, plan=shop.plan))
    page.goto(session.url)
    page.get_by_label("Full name").fill("Mara Lindqvist")
    page.get_by_label("Email").fill("mara@tallgrass.example")
    enter_card(page, "4242424242424242")
    # Our own server is not reached.
    page.route("**/pay", lambda route: route.abort())
    page.get_by_role("button", name="Pay $25.00").click()
    expect(page.get_by_role("alert")).to_contain_text("The connection was lost")
    look(page, "28-server-away")
    page.unroute("**/pay")
    # The card network does not answer our server.
    cn.fault(card_network, "error", status=500, times=9)
    page.get_by_role("button", name="Pay $25.00").click()
    expect(page.get_by_role("alert")).to_contain_text("The card network does not answer")
    look(page, "29-network-away")
    assert cn.taken(shop.merchant) == []


def test_a_customer_in_german_and_in_spanish(
    card_network: CardNetwork, shop: cn.Shop, page: Page
) -> None:
    """All the way, at a browser that speaks it, then at the portal."""
    factories.make_bundle(shop.plan)
    for language, words in {
        "de": ("Telefonnummer", "Code per SMS senden", "Geben Sie Ihren Code ein",
               "Vor- und Nachname", "E-Mail", "25,00\u00a0$ zahlen", "Sie haben 25,00\u00a0$",
               "Guthaben, Tarif und Belege ansehen", "Verfügbares Guthaben"),
        "es": ("Número de teléfono", "Enviarme un código", "Introduce tu código",
               "Nombre completo", "Correo", "Pagar 25,00\u00a0US$", "Tienes 25,00\u00a0US$",
               "Ver tu crédito, plan y recibos", "Crédito disponible"),
    }.items():  # fmt: skip
        phone_word, send, code_word, name, mail, pay, have, see, left = words
        phone = PHONE[:-1] + ("3" if language == "de" else "4")
        page.context.clear_cookies()
        session = make_session(shop.merchant, plan=shop.plan)
        page.goto(f"{session.url}?locale={language}")
        look(page, f"30-start-{language}")
        page.get_by_label(phone_word).fill(phone)
        page.get_by_role("button", name=send).click()
        field = page.get_by_label(code_word)
        field.wait_for()
        look(page, f"31-code-{language}")
        field.press_sequentially(last_code(shop.merchant, phone))
        page.get_by_label(name).fill("Mara Lindqvist")
        page.get_by_label(mail).fill("mara@tallgrass.example")
        page.locator("#card-fields input").first.wait_for()
        look(page, f"32-pay-{language}")
        page.get_by_role("button", name=pay).click()
        look(page, f"33-pay-missing-{language}")
        answer = Visitor(session).pay(card_network.url)
        assert answer.json() == {"status": "done"}, answer.content
        page.goto(f"{session.url}?locale={language}")
        expect(page.get_by_role("heading", name=have.replace("\u00a0", " "))).to_be_visible()
        look(page, f"34-done-{language}")
        page.get_by_role("link", name=see).click()
        page.get_by_label(phone_word).fill(phone)
        shop.merchant.refresh_from_db()
        clock.advance(shop.merchant, to=shop.now + timedelta(minutes=1))
        page.get_by_role("button", name=send).click()
        field = page.get_by_label(code_word)
        field.wait_for()
        field.press_sequentially(last_code(shop.merchant, phone))
        expect(page.get_by_role("heading", name=left)).to_be_visible()
        look(page, f"35-portal-{language}")
        assert page.evaluate("document.documentElement.lang") == language
