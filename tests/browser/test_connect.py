"""A terminal's login in a real browser: the page asks, and yes leads to the terminal alone."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page

from billing import keys
from tests import factories
from tests.browser.pictures import picture

pytestmark = [pytest.mark.django_db(transaction=True)]


def test_yes_sends_a_code_to_the_terminal(page: Page, live_server: Any) -> None:
    merchant = factories.make_merchant()
    owner = merchant.organization.memberships.get(role="owner").user
    session = Client()
    session.force_login(owner, backend="billing.tenancy.RoleBackend")
    cookie = session.cookies[settings.SESSION_COOKIE_NAME].value
    page.context.add_cookies(
        [{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": live_server.url}]
    )
    asked: list[str] = []

    class Terminal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"You're logged in.")

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    terminal = HTTPServer(("127.0.0.1", 0), Terminal)
    thread = threading.Thread(target=terminal.serve_forever, daemon=True)
    thread.start()
    try:
        page.goto(f"{live_server.url}/auth/connect?state=abcdef0123&port={terminal.server_port}")
        picture(page, "connect-terminal")
        page.get_by_role("button", name="Give it a key").click()
        page.get_by_text("You're logged in.").wait_for()
    finally:
        terminal.shutdown()
        thread.join()
    (path,) = [path for path in asked if path.startswith("/callback")]
    told = parse_qs(urlsplit(path).query)
    assert told["state"] == ["abcdef0123"]
    key, _ = keys.redeem(told["code"][0], now=timezone.now())
    assert key.merchant == merchant
