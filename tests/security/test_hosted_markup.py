"""XSS: markup in every text that a merchant, a customer or a browser can set, on every customer
page, in a real browser, under the pages' own policy without `unsafe-inline`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page

from billing import clock, receipts
from billing.models import Merchant, Payment
from checkout import offers
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.browser.conftest import page, shop
from tests.browser.looking import listen
from tests.checkout.visitor import Visitor, last_code, make_session

__all__ = ["page", "shop"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PHONE = "+14155550142"
HOSTILE = "\"><svg onload=alert(1)>'{{7*7}}</script>"


def test_xss_in_every_text_on_every_customer_page(
    card_network: CardNetwork, shop: cn.Shop, page: Page, live_server: Any
) -> None:
    bundle = factories.make_bundle(shop.plan)
    known = factories.make_connection(shop.merchant, phone=PHONE, now=shop.now)
    customer = known.customer
    customer.first_name = customer.last_name = HOSTILE
    customer.email = "mara@tallgrass.example"
    customer.save()
    cn.subscribe(shop.plan, now=shop.now, connection=known)
    shop.use(known, "one", "0.5")
    organization = shop.merchant.organization
    organization.name = organization.support_email = HOSTILE
    organization.terms_url = organization.privacy_url = f"https://x.example/{HOSTILE}"
    organization.save()
    other = factories.make_plan(shop.merchant, name=HOSTILE, price="79", credit="90")
    for row in (shop.plan, bundle, shop.meter):
        row.name = HOSTILE
        row.save(update_fields=["name"])
    merchant = Merchant.objects.get(pk=shop.merchant.pk)
    said = listen(page)
    page.on("dialog", lambda dialog: said.append(f"ran: {dialog.message}"))

    switch = Visitor(make_session(merchant, plan=other))
    switch.confirm_phone(PHONE)
    choose = Visitor(make_session(merchant, mode="topup", connection=known))
    choose.post("phone")
    choose.post("code", code=last_code(merchant, PHONE))
    base, portal = live_server.url, f"{live_server.url}/portal/{merchant.public_id}"
    page.goto(portal)
    page.locator("#phone").fill(PHONE)
    # The texts of three codes are told apart by time.
    clock.advance(merchant, to=merchant.now() + timedelta(minutes=1))
    page.get_by_role("button", name="Text me a code").click()
    page.locator("#code").wait_for()
    page.locator("#code").press_sequentially(last_code(merchant, PHONE))
    page.get_by_role("heading", name="Credits left").wait_for()
    looked = 0
    for url in (
        make_session(merchant, plan=other, return_url="https://app.example.com/x").url,
        f"{switch.session.url}?locale={HOSTILE}",
        choose.session.url,
        make_session(merchant, mode="onboarding", connection=known).url,
        offers.address(other),
        receipts.address(Payment.objects.get()),
        receipts.card_address(known),
        portal,
        f"{portal}?done={HOSTILE}",
        *(f"{portal}/{step}" for step in ("cancel", "switch", "top-up", "activity")),
        f"{portal}/switch?plan={other.public_id}",
        f"{base}/checkout/{HOSTILE}",
    ):
        page.goto(url)
        assert page.locator("svg[onload], script:not([src])").count() == 0, url
        looked += "svg onload=alert(1)" in page.locator("body").inner_text()
    # It stands there as words: what was looked for is really on the pages.
    assert looked >= 12
    assert said == []
