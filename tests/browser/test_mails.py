"""Every mail as a mail reader shows it, and its preview in the console: it fits a phone, and
axe-core finds nothing in it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Page, expect

from billing import locales, mails
from lava.console import mails as previews
from tests import card_network as cn
from tests import factories
from tests.browser import axe
from tests.browser.looking import listen
from tests.browser.pictures import picture

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_every_mail_is_readable_everywhere(shop: cn.Shop, page: Page) -> None:
    merchant = shop.merchant
    said = listen(page)
    for number, (name, (_, compose)) in enumerate(previews.MAILS.items()):
        language = ("en", "de", "es")[number % 3]
        with locales.speak(language):
            letter = compose(previews._Facts(merchant))
            written = mails.write(merchant, letter, first_name="Mara")
        page.set_viewport_size({"width": 390, "height": 900})
        page.set_content(written.html)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        assert page.evaluate("document.documentElement.lang") == language
        picture(page, f"mail-{name}")
        # A mail is one table after another, and has no landmarks.
        found = [line for line in axe.violations(page) if not line.startswith(("region", "landm"))]
        assert found == [], name
        # The same words without the page; the button's address in full.
        assert letter.lead in written.body and letter.link.url in written.body
    assert said == []


def test_the_console_previews_them(shop: cn.Shop, page: Page, live_server: Any) -> None:
    owner = factories.make_user("owner@northwind.example")
    organization = shop.merchant.organization
    organization.memberships.create(user=owner, role="owner")
    client = Client()
    client.force_login(owner, backend="billing.tenancy.RoleBackend")
    page.context.add_cookies(
        [
            {
                "name": "sessionid",
                "value": client.cookies["sessionid"].value,
                "url": f"{live_server.url}/console/",
            }
        ]
    )
    page.goto(f"{live_server.url}/console/mails")
    expect(page.get_by_role("heading", name="Mails")).to_be_visible()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Studio is active")).to_be_visible()
    page.get_by_role("link", name="Payment failed").click()
    page.get_by_role("link", name="Deutsch").click()
    expect(frame.get_by_role("heading", name="konnten nicht abgebucht werden")).to_be_visible()
    picture(page, "console-mails")

    page.goto(f"{live_server.url}/console/plans/{shop.plan.public_id}")
    expect(page.get_by_role("heading", name="Link and QR code")).to_be_visible()
    picture(page, "console-plan-link")
    offer = page.locator("[data-offer]").get_attribute("data-offer")
    assert offer is not None
    page.goto(offer)
    expect(page.get_by_role("button", name="Text me a code")).to_be_visible()
    assert axe.violations(page) == []
    picture(page, "offer")
