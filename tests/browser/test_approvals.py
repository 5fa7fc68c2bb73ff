"""Two people in a browser: one asks for a refund above the limit, the other approves it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from billing.models import Membership, Refund
from tests import card_network as cn
from tests.browser.pictures import picture
from tests.factories import make_user
from tests.lava.console.shop import signed_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
Role = Membership.Role


def test_a_refund_above_the_limit_takes_two(page: Page, live_server: Any, shop: cn.Shop) -> None:
    organization = shop.merchant.organization
    people = {}
    for name, role in (("Olga Till", Role.OWNER), ("Ben Support", Role.SUPPORT)):
        people[name] = make_user(name=name)
        Membership.objects.create(user=people[name], organization=organization, role=role)
    shop.subscribe()

    def sit_down(name: str) -> None:
        session = signed_in(people[name]).cookies["sessionid"].value
        page.context.add_cookies(
            [{"name": "sessionid", "value": session, "url": f"{live_server.url}/console/"}]
        )

    sit_down("Olga Till")
    page.goto(f"{live_server.url}/console/approvals/")
    picture(page, "approvals-off")
    page.get_by_role("link", name="Set a limit").click()
    page.get_by_label("Needed above").fill("10")
    page.get_by_label("May refund up to").fill("25")
    picture(page, "safety")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.goto(f"{live_server.url}/console/payments/")
    page.locator("a.cl-cover").first.click()
    page.get_by_role("link", name="Refund").last.click()
    page.get_by_label("Amount").fill("20")
    page.get_by_label("Reason").fill("The month was down for a week")
    page.get_by_role("button", name="Show what will change").click()
    expect(page.get_by_text("A second person is needed.")).to_be_visible()
    picture(page, "refund-needs-two")
    page.get_by_role("button", name="Ask to refund $20.00").click()
    expect(page.get_by_text("Nothing moves until another person")).to_be_visible()
    picture(page, "approval-mine")
    assert not Refund.objects.exists()

    sit_down("Ben Support")
    page.goto(f"{live_server.url}/console/")
    page.get_by_role("link", name="Approvals").click()
    picture(page, "approvals")
    page.locator("a.cl-cover").click()
    expect(page.get_by_role("heading", name="Ledger lines this writes")).to_be_visible()
    picture(page, "approval")
    page.get_by_role("button", name="Approve and refund $20.00").click()
    expect(page.get_by_text("$20.00 is paid back.")).to_be_visible()
    picture(page, "approval-done")
    assert [amount for _, amount, _ in cn.given_back(shop.merchant)] == [2000]
    page.goto(f"{live_server.url}/console/audit")
    picture(page, "audit-two-names")
