"""Checkout on a site of another origin: by our own script without a build, and by the official
React package. Both ways out: paid, and closed."""

from __future__ import annotations

import functools
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from billing.models import Merchant, Payment
from checkout import api
from checkout.models import CheckoutSession
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests.browser import customer
from tests.browser.looking import listen
from tests.checkout.visitor import last_code, make_session

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PHONE = "+14155550142"
SITE = """<!doctype html><html lang="en"><title>Another site</title>
<script src="SCRIPT"></script>
<main><button data-lava-checkout="">Subscribe</button><p id="told">waiting</p></main>
<script src="site.js"></script></html>"""
SCRIPT = """
const told = document.getElementById('told');
for (const kind of ['success', 'cancel', 'error']) {
  document.addEventListener(`lava:${kind}`, (event) => {
    told.textContent = `${kind} ${JSON.stringify(event.detail)}`;
  });
}
document.querySelector('[data-lava-checkout]').dataset.lavaCheckout =
  new URLSearchParams(location.search).get('token');
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder served as a site of its own origin."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
        server.shutdown()


def pay_in(frame: Any, merchant: Merchant) -> None:
    frame.get_by_label("Phone number").fill(PHONE)
    frame.get_by_role("button", name="Text me a code").click()
    field = frame.get_by_label("Enter your code")
    field.wait_for()
    field.press_sequentially(last_code(merchant, PHONE))
    customer.pay(frame, name="Mara Lindqvist", email="mara@tallgrass.example")


def token_for(shop: cn.Shop, origin: str) -> tuple[CheckoutSession, str]:
    session = make_session(shop.merchant, plan=shop.plan, origin_url=origin)
    return session, api.token(session)


def facts(page: Page, kind: str) -> Any:
    told = page.locator("#told")
    expect(told).to_have_text(re.compile(f"^{kind}"), timeout=15_000)
    return json.loads(told.inner_text().partition(" ")[2])


def test_our_own_script_without_a_build(
    card_network: CardNetwork, shop: cn.Shop, page: Page, site: tuple[str, Path], live_server: Any
) -> None:
    origin, folder = site
    script = f"{live_server.url}/static/checkout/embed.js"
    (folder / "index.html").write_text(SITE.replace("SCRIPT", script))
    (folder / "site.js").write_text(SCRIPT)
    said = listen(page)
    session, token = token_for(shop, origin)
    page.goto(f"{origin}/?token={token}")
    button = page.get_by_role("button", name="Subscribe")

    # Closed: a cancellation, and the site has its page and its focus back.
    button.click()
    shown = page.locator("iframe[title=Checkout]")
    expect(shown).to_have_attribute("sandbox", "allow-forms allow-scripts allow-same-origin")
    frame = page.frame_locator("iframe[title=Checkout]")
    frame.get_by_role("button", name="Close this checkout").click()
    assert facts(page, "cancel") == {"checkoutSessionId": session.public_id}
    expect(shown).to_have_count(0)
    expect(button).to_be_focused()

    # A stranger's messages, and those of the site itself, count for nothing.
    button.click()
    shown.wait_for()
    page.evaluate("postMessage({type: 'lava_checkout_success', checkoutSessionId: 'x'}, '*')")
    page.evaluate("postMessage(null, '*')")

    # Paid: told once, with who it is.
    pay_in(frame, shop.merchant)
    told = facts(page, "success")
    session.refresh_from_db()
    assert told == {
        "checkoutSessionId": session.public_id,
        "connectionId": session.buyer.public_id,
        "customerId": session.buyer.public_id,
    }
    expect(shown).to_have_count(0)
    assert [row[1] for row in cn.taken(shop.merchant)] == [2500]
    assert page.context.cookies() == []
    assert said == []


def test_our_script_opens_no_frame_of_another_host(
    card_network: CardNetwork, shop: cn.Shop, page: Page, site: tuple[str, Path], live_server: Any
) -> None:
    origin, folder = site
    script = f"{live_server.url}/static/checkout/embed.js"
    (folder / "index.html").write_text(SITE.replace("SCRIPT", script))
    (folder / "site.js").write_text(SCRIPT)
    page.goto(origin)
    for told in (
        {"secret": "css_1", "base": "https://evil.example/"},
        {"secret": "css_1/../../portal", "base": f"{live_server.url}/"},
        {"secret": "css_1", "base": "javascript:alert(1)//"},
        None,
    ):
        said = page.evaluate(
            "told => new Promise((done) => LavaCheckout.open("
            "told ? btoa(JSON.stringify(told)) : '%%', {onError: (facts) => done(facts.error)}))",
            told,
        )
        assert said
        expect(page.locator("iframe")).to_have_count(0)


def test_a_site_that_was_not_named_cannot_frame_it(
    card_network: CardNetwork, shop: cn.Shop, page: Page, site: tuple[str, Path], live_server: Any
) -> None:
    origin, folder = site
    script = f"{live_server.url}/static/checkout/embed.js"
    (folder / "index.html").write_text(SITE.replace("SCRIPT", script))
    (folder / "site.js").write_text(SCRIPT)
    _, token = token_for(shop, "https://somebody.else.example")
    # The browser says that it refused: that is what is asked for here, and no fault of the page.
    opened = page.context.new_page()
    opened.goto(f"{origin}/?token={token}")
    opened.get_by_role("button", name="Subscribe").click()
    expect(opened.locator("iframe")).to_have_count(1)
    opened.wait_for_function("() => document.querySelector('iframe').contentDocument === null")
    (refused,) = opened.frames[1:]
    assert "/embed/checkout/" not in refused.url
    assert "Text me a code" not in refused.content()
    opened.close()


def test_the_official_react_package_is_told_of_both(
    card_network: CardNetwork,
    shop: cn.Shop,
    page: Page,
    site: tuple[str, Path],
    clients_dir: Path,
) -> None:
    origin, folder = site
    subprocess.run(
        [
            str(clients_dir / "node_modules/.bin/esbuild"),
            str(clients_dir / "parent.jsx"),
            "--bundle",
            f"--outfile={folder / 'parent.js'}",
            "--define:process.env.NODE_ENV='production'",
            "--log-level=error",
        ],
        check=True,
    )
    (folder / "index.html").write_text(
        '<!doctype html><div id="root"></div><script src="parent.js"></script>'
    )
    session, token = token_for(shop, origin)
    page.goto(f"{origin}/?token={token}")
    page.get_by_role("button", name="Subscribe").click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("button", name="Close this checkout").click()
    expect(page.locator("#told")).to_have_text(f"cancelled {session.public_id}")
    assert not Payment.objects.exists()
    page.get_by_role("button", name="Subscribe").click()
    pay_in(frame, shop.merchant)
    told = page.locator("#told")
    expect(told).to_have_text(re.compile(f"^success {session.public_id} con_"), timeout=15_000)
