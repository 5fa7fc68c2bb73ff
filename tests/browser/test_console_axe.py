"""axe-core on every page of the console, light and dark, wide and narrow: no violation.

The pages are the console's addresses themselves (`test_wall.EVERY`), each with the rows its ids
need, so that a page that is added is judged without being named here.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from billing.models import Membership
from tests.browser import axe
from tests.browser.pictures import picture
from tests.lava.console.shop import Shop
from tests.lava.console.test_wall import CASES, EVERY, address

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
# What says something else once it is asked for something.
ASKED = {"clock": "?go=renewal", "search": "?q=northwind"}
THEMES = (("light", 1440), ("dark", 390))


@pytest.mark.parametrize(
    "both", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["by turns", "in both"]
)
def test_every_page_has_no_violation(page: Page, live_server: Any, both: bool) -> None:
    shop = Shop("Northwind", number=1)
    session = shop.client(Membership.Role.OWNER).cookies["sessionid"].value
    page.context.add_cookies(
        [{"name": "sessionid", "value": session, "url": f"{live_server.url}/console/"}]
    )
    found: dict[str, list[str]] = {}
    judged = 0
    for name in sorted({name for name, method, _ in EVERY if method == "get"}):
        where = address(name, CASES[name].ids(shop, shop.sandbox)) + CASES[name].query
        answer = page.request.get(f"{live_server.url}{where}")
        assert answer.status == 200, name
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        # No page of its own: a part of one, or a mail in its frame, which `test_mails` looks at.
        if "<html" not in answer.text() or "sandbox" in answer.headers["content-security-policy"]:
            continue
        page.goto(f"{live_server.url}{where}{ASKED.get(name, '')}")
        judged += 1
        for scheme, width in THEMES if both else THEMES[judged % 2 :][:1]:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size({"width": width, "height": 900})
            rows = axe.violations(page)
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                rows.append(f"it is {wide} wide")
            if rows:
                found[f"{name}, {scheme}, {width}"] = rows
        picture(page, f"console-{name}")
    assert found == {}
    assert judged > 40, "the console's addresses were not found"
