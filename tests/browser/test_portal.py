"""The portal in a real browser: sign in by code, look around, cancel and resume, top up, sign out.
Under the pages' own content security policy."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from billing import clock
from billing.models import Connection, PaymentMethod, Subscription
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.browser.keys import press, reach, write
from tests.browser.looking import listen, look
from tests.browser.pictures import picture
from tests.checkout.visitor import last_code, make_session

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PHONE = "+14155550142"
STRANGER = "+14155550199"


def customer(shop: cn.Shop) -> Connection:
    """Somebody ten days into their plan, with a pack and some use."""
    bundle = factories.make_bundle(shop.plan)
    factories.make_plan(shop.merchant, name="Pro", price="79", credit="90")
    factories.make_plan(shop.merchant, name="Starter", price="9", credit="9")
    known = factories.make_connection(shop.merchant, phone=PHONE, now=shop.now)
    cn.subscribe(shop.plan, now=shop.now, connection=known)
    minutes = factories.make_meter(
        shop.merchant, shop.plan, slug="minutes", tiers=[("0", "0.009")], unit="minutes"
    )
    minutes.name = "Transcription minutes"
    minutes.save()
    code = factories.make_meter(
        shop.merchant, shop.plan, slug="code", tiers=[("0", "3"), ("1000000", "2")],
        free_allowance=Decimal(500), tier_window="cycle",
    )  # fmt: skip
    from tests.meters.test_charge import report

    report(shop.key, known, "c", meter_slug=code.slug, input_tokens=1500)
    for number, seconds in enumerate((252, 1890, 30, 63000)):
        report(shop.key, known, f"m{number}", meter_slug="minutes", input_seconds=Decimal(seconds))
    clock.advance(shop.merchant, to=shop.now + timedelta(days=10))
    for number, amount in enumerate(("0.014976", "2.1576", "0.001032")):
        shop.use(known, f"t{number}", amount)
    cn.buy(known, bundle, now=shop.now)
    known.refresh_from_db()
    return known


def test_a_customer_at_the_portal(shop: cn.Shop, page: Page, live_server: Any) -> None:
    known = customer(shop)
    home = f"{live_server.url}/portal/{shop.merchant.public_id}"
    page.goto(home)
    picture(page, "sign-in")
    page.get_by_label("Phone number").fill(PHONE.removeprefix("+1"))
    page.get_by_role("button", name="Text me a code").click()
    field = page.get_by_label("Enter your code")
    field.wait_for()
    picture(page, "code")
    field.press_sequentially(last_code(shop.merchant, PHONE))
    expect(page.get_by_role("heading", name="Credits left")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("Transcription minutes")).first).to_be_visible()
    look(page, "home")

    page.get_by_role("link", name="Cancel plan").click()
    page.wait_for_url("**/cancel")
    look(page, "cancel")
    page.get_by_role("button", name="Cancel Studio").click()
    expect(page.get_by_role("status")).to_contain_text("Your plan is cancelled")
    picture(page, "cancelled")
    page.get_by_role("button", name="Keep Studio").click()
    expect(page.get_by_role("link", name="Cancel plan")).to_be_visible()

    page.get_by_role("link", name="Set up auto top-up").click()
    page.wait_for_url("**/top-up")
    look(page, "top-up")
    page.get_by_role("button", name="Switch on auto top-up").click()
    expect(page.get_by_role("switch", name="Auto top-up")).to_have_attribute("aria-checked", "true")
    picture(page, "home-top-up")
    page.get_by_role("switch", name="Auto top-up").click()
    expect(page.get_by_role("status")).to_contain_text("Auto top-up is off")

    page.get_by_role("link", name="Switch plan").click()
    picture(page, "choose")
    page.get_by_role("radio", name=re.compile("Pro")).check()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("button", name=re.compile("^Pay .* and switch"))).to_be_visible()
    look(page, "upgrade")
    page.get_by_role("button", name=re.compile("^Pay .* and switch")).click()
    expect(page.get_by_role("status")).to_contain_text("You switched plan")
    known.refresh_from_db()
    assert known.subscription is not None
    assert known.subscription.plan.name == "Pro"
    assert known.balance > Decimal(90)

    page.get_by_role("link", name="All activity").click()
    page.wait_for_url("**/activity")
    look(page, "activity")
    page.get_by_role("link", name="Back to billing").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Text me a code")).to_be_visible()
    page.go_back()
    assert "Credits left" not in page.content()


def test_the_portal_in_every_state(
    shop: cn.Shop, page: Page, live_server: Any, card_network: CardNetwork
) -> None:
    """From nothing used to no plan; each fits a phone, in both themes, and has a way on."""
    said = listen(page)
    factories.make_bundle(shop.plan)
    starter = factories.make_plan(shop.merchant, name="Starter", price="9", credit="9")
    known = factories.make_connection(shop.merchant, phone=PHONE, now=shop.now)
    home = f"{live_server.url}/portal/{shop.merchant.public_id}"
    page.goto(home)
    page.get_by_label("Phone number").fill("4155550199")
    page.get_by_role("button", name="Text me a code").click()
    page.get_by_label("Enter your code").press_sequentially(last_code(shop.merchant, STRANGER))
    expect(page.get_by_role("heading", name="There is nothing for this number")).to_be_visible()
    look(page, "portal-nobody")
    page.get_by_role("button", name="Use another number").click()
    page.get_by_label("Phone number").fill(PHONE)
    page.get_by_role("button", name="Text me a code").click()
    page.get_by_label("Enter your code").press_sequentially(last_code(shop.merchant, PHONE))
    expect(page.get_by_text("You have no plan at Northwind Voice now")).to_be_visible()
    look(page, "portal-no-plan", dark=True)

    cn.subscribe(shop.plan, now=shop.now, connection=known)
    page.reload()
    expect(page.get_by_text("Nothing was used since")).to_be_visible()
    look(page, "portal-unused", dark=True)
    shop.use(known, "a", "30")
    known.refresh_from_db()
    page.reload()
    expect(page.get_by_text("You owe for past use")).to_be_visible()
    look(page, "portal-owes", dark=True)

    current = known.subscription
    assert current is not None
    Subscription.objects.filter(pk=current.pk).update(
        pending_change="downgrade", pending_plan=starter
    )
    page.reload()
    expect(page.get_by_text("Starter, $9.00 a month")).to_be_visible()
    look(page, "portal-switch-planned")
    Subscription.objects.filter(pk=current.pk).update(
        pending_change=None, pending_plan=None, status="past_due", past_due_since=shop.now
    )
    page.reload()
    expect(page.get_by_text("once its payment has gone through")).to_be_visible()
    look(page, "portal-past-due")
    PaymentMethod.objects.filter(connection=known).update(detached_at=shop.now, is_default=False)
    page.reload()
    expect(page.get_by_text("No card is saved.")).to_be_visible()
    page.get_by_role("link", name="Set up auto top-up").click()
    expect(page.get_by_role("button", name="Save a card first")).to_be_visible()
    look(page, "portal-top-up-no-card")
    Connection.objects.filter(pk=known.pk).update(status="disabled")
    page.goto(home)
    expect(page.get_by_role("heading", name="You owe")).to_be_visible()
    look(page, "portal-paused")
    assert said == []


def test_a_customer_switches_at_the_checkout(
    shop: cn.Shop, page: Page, card_network: CardNetwork
) -> None:
    known = factories.make_connection(shop.merchant, phone=PHONE, now=shop.now)
    cn.subscribe(shop.plan, now=shop.now, connection=known)
    pro = factories.make_plan(shop.merchant, name="Pro", price="79", credit="90")
    session = make_session(shop.merchant, plan=pro)
    page.goto(session.url)
    page.get_by_label("Phone number").fill(PHONE.removeprefix("+1"))
    page.get_by_role("button", name="Text me a code").click()
    field = page.get_by_label("Enter your code")
    field.wait_for()
    field.press_sequentially(last_code(shop.merchant, PHONE))
    expect(page.get_by_role("heading", name="You are on Studio. Switch to Pro?")).to_be_visible()
    look(page, "checkout-switch")
    page.get_by_label("Full name").fill("Mara Lindqvist")
    page.get_by_label("Email").fill("mara@tallgrass.example")
    page.get_by_role("button", name="Pay $54.00 and switch").click()
    expect(page.get_by_text("Pro is active and ready to use.")).to_be_visible()
    picture(page, "checkout-switched")
    page.get_by_role("link", name="See your credits, plan and receipts").click()
    expect(page.get_by_role("heading", name="Your credits and plan")).to_be_visible()


def test_the_portals_processes_by_keyboard_alone(
    shop: cn.Shop, page: Page, live_server: Any, card_network: CardNetwork
) -> None:
    known = customer(shop)
    said = listen(page)
    page.goto(f"{live_server.url}/portal/{shop.merchant.public_id}")
    write(page, "Phone number", PHONE.removeprefix("+1"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Enter your code")).to_be_focused()
    page.keyboard.type(last_code(shop.merchant, PHONE))
    expect(page.get_by_role("heading", name="Credits left")).to_be_visible()

    press(page, "Cancel plan", role="link")
    press(page, "Cancel Studio")
    expect(page.get_by_role("status")).to_contain_text("Your plan is cancelled")
    press(page, "Keep Studio")
    expect(page.get_by_role("link", name="Cancel plan")).to_be_visible()

    press(page, "Set up auto top-up", role="link")
    write(page, "At most in a calendar month", "5")
    press(page, "Switch on auto top-up")
    expect(page.get_by_label("At most in a calendar month")).to_be_focused()
    write(page, "At most in a calendar month", "30")
    press(page, "Switch on auto top-up")
    press(page, "Auto top-up", role="switch", key="Space")
    expect(page.get_by_role("status")).to_contain_text("Auto top-up is off")

    press(page, "Switch plan", role="link")
    reach(page, page.get_by_role("radio", name="Starter"))
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="Pro")).to_be_checked()
    page.keyboard.press("ArrowUp")
    press(page, "Continue")
    press(page, "^Switch on")
    expect(page.get_by_role("status")).to_contain_text("The switch is planned")
    press(page, "Keep Studio")

    press(page, "Add credits")
    press(page, "Continue")
    write(page, "Full name", "Mara Lindqvist")
    write(page, "Email for receipts", "mara@tallgrass.example")
    press(page, "Pay \\$10.00")
    expect(page.get_by_role("heading", name=re.compile("^You have .* of credits"))).to_be_visible()
    press(page, "See your credits", role="link")

    press(page, "Replace your card")
    write(page, "Card number", "5555555555554444")
    write(page, "Expiration date", "0831")
    write(page, "Security code", "123")
    write(page, "ZIP code", "04101")
    press(page, "Save card")
    expect(page.get_by_role("heading", name="Your card is saved")).to_be_visible()
    known.refresh_from_db()
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500, 1000, 1000]
    assert said == []
