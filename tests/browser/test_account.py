"""A person and their account: a password forgotten, another browser, the second step."""

from __future__ import annotations

import re
from typing import Any

import pyotp
import pytest
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page, expect

from billing.models import AuditEntry, Membership, OutboxMessage, SignIn
from lava.console import resets
from tests.browser.looking import listen, look
from tests.browser.merchant import press_twice
from tests.lava.console.shop import PASSWORD, Shop

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
NEWER = "a longer battery staple"


def enter(client: Client, email: str, password: str) -> int:
    """Sign in with another browser."""
    typed = {"username": email, "password": password}
    return client.post("/console/login/", typed).status_code


def sign_in(page: Page, email: str, password: str) -> None:
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_forgotten_password_another_browser_and_the_second_step(
    page: Page, live_server: Any, settings: Any
) -> None:
    settings.LAVA_BASE_URL = live_server.url
    said = listen(page)
    shop = Shop("Northwind")
    email = shop.people[Membership.Role.OWNER].email
    other = Client(headers={"User-Agent": "Nobody/9.80(a_very_old_machine)" + "x" * 150})
    assert (
        other.post("/console/login/", {"username": email, "password": PASSWORD}).status_code == 302
    )

    page.goto(f"{live_server.url}/console/")
    sign_in(page, email, "no idea at all")
    expect(page.get_by_role("alert")).to_contain_text("do not belong together")
    look(page, "door-wrong", dark=True)
    page.get_by_role("link", name="Forgot the password?").click()
    look(page, "door-forgot", dark=True)
    page.get_by_label("E-mail").fill(email.upper())
    press_twice(page, "Mail the link")
    expect(page.get_by_role("heading", name="Look at your mail")).to_be_visible()
    look(page, "door-asked", dark=True)
    mails = OutboxMessage.objects.filter(to=email, subject=resets.SUBJECT)
    (link,) = re.findall(r"https?://\S+/console/reset/\S+", mails.get().body)
    page.goto(link)
    page.get_by_label("New password").fill("short")
    page.get_by_role("button", name="Change the password").click()
    expect(page.get_by_text("too short")).to_be_visible()
    look(page, "door-reset", dark=True)
    page.get_by_label("New password").fill(NEWER)
    press_twice(page, "Change the password")
    expect(page.get_by_role("heading", name="The password is changed")).to_be_visible()
    look(page, "door-changed", dark=True)
    assert other.get("/console/account").status_code == 302
    page.goto(link)
    expect(page.get_by_role("heading", name="This link has ended")).to_be_visible()
    look(page, "door-ended", dark=True)

    assert enter(other, email, NEWER) == 302
    page.goto(f"{live_server.url}/console/account")
    sign_in(page, email, NEWER)
    expect(page.get_by_text("This one")).to_be_visible()
    look(page, "account", dark=True)
    # However long a name a browser gives itself, its button is to be seen on a phone.
    page.set_viewport_size({"width": 390, "height": 900})
    box = page.get_by_role("button", name="Sign out", exact=True).last.bounding_box()
    assert box is not None and box["x"] + box["width"] <= 390 - 16
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("button", name="Sign out everywhere else").click()
    expect(page.get_by_text("1 other browser signed out.")).to_be_visible()
    assert other.get("/console/account").status_code == 302
    assert SignIn.objects.filter(user__email=email).count() == 1
    press_twice(page, "Mail me the link")
    expect(page.get_by_text(f"A link is on its way to {email}")).to_be_visible()
    assert mails.count() == 2

    page.get_by_role("button", name="Turn on").click()
    look(page, "account-two-step", dark=True)
    key = page.locator("main code").inner_text().replace(" ", "")
    page.get_by_label("The code it shows").fill("000000")
    page.get_by_role("button", name="Turn on").click()
    expect(page.locator("#code-help")).to_have_class("lv-error")
    page.get_by_label("The code it shows").fill(pyotp.TOTP(key).at(timezone.now()))
    press_twice(page, "Turn on")
    expect(page.get_by_role("heading", name="Two-step sign-in is on")).to_be_visible()
    look(page, "account-codes", dark=True)
    (code, *_) = page.locator("#recovery-codes").inner_text().split()
    page.get_by_role("link", name="I have kept them").click()
    look(page, "account-on", dark=True)
    page.context.clear_cookies()
    page.goto(f"{live_server.url}/console/account")
    sign_in(page, email, NEWER)
    look(page, "door-code", dark=True)
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("recovery codes are left")).to_be_visible()
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True)) == [
        "account.password_changed", "account.signed_out", "account.two_step_on",
    ]  # fmt: skip
    assert said == []
