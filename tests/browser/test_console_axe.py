"""axe-core on the console's pages that were made with it in hand: no violation."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from billing.models import Membership
from tests.browser import axe
from tests.lava.console.shop import Shop
from tests.lava.console.test_wall import CASES, address

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PAGES = (
    "account", "approval", "approvals", "calendar", "connection-switch", "margin",
    "payment-refund", "plan-move",
    "reconcile", "refunds", "safety", "webhook-new", "webhooks",
)  # fmt: skip


def test_the_pages_have_no_violation(page: Page, live_server: Any) -> None:
    shop = Shop("Northwind", number=1)
    session = shop.client(Membership.Role.OWNER).cookies["sessionid"].value
    page.context.add_cookies(
        [{"name": "sessionid", "value": session, "url": f"{live_server.url}/console/"}]
    )
    found: dict[str, list[str]] = {}
    for name in PAGES:
        where = address(name, CASES[name].ids(shop, shop.sandbox))
        answer = page.goto(f"{live_server.url}{where}")
        assert answer is not None and answer.status == 200, name
        found[name] = axe.violations(page)
    assert {name: rows for name, rows in found.items() if rows} == {}
