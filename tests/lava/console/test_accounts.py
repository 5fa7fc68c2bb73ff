"""People's accounts: the second step, recovery codes, resets by mail, sign-ins that end."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pyotp
import pytest
from django.test import Client
from django.utils import timezone

from billing import errors, second_factors
from billing.models import (
    AuditEntry,
    Membership,
    OutboxMessage,
    RecoveryCode,
    SecondFactor,
    SignIn,
    User,
)
from lava.console import account, resets
from tests.lava.console.shop import PASSWORD, Shop

pytestmark = pytest.mark.django_db
Role = Membership.Role
HOUR = timedelta(hours=1)


def password_of(shop: Shop, browser: Client, password: str = PASSWORD) -> Any:
    owner = shop.people[Role.OWNER]
    return browser.post("/console/login/", {"username": owner.email, "password": password})


def turn_on(shop: Shop) -> tuple[pyotp.TOTP, list[str]]:
    """As the pages do it: begin, scan, type a code, read the recovery codes."""
    client = shop.client()
    client.post("/console/account/two-step")
    page = client.get("/console/account/two-step").content.decode()
    shown = re.search(r"<p><code>([A-Z2-7 ]+)</code></p>", page)
    assert shown and "<svg" in page
    totp = pyotp.TOTP(shown.group(1).replace(" ", ""))
    wrong = client.post("/console/account/two-step", {"code": "000000"})
    assert wrong.status_code == 422 and not second_factors.has(shop.people[Role.OWNER])
    # The code of the step before, so that the one of now is still unused.
    code = totp.at(timezone.now() - timedelta(seconds=30))
    done = client.post("/console/account/two-step", {"code": code}).content.decode()
    codes = re.findall(r"\b[a-z2-9]{5}-[a-z2-9]{5}\b", done)
    assert len(codes) == second_factors.CODES
    return totp, codes


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 "
         "Safari/537.36", "Chrome on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
         "Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0", "Edge on Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
         "Version/18.1 Safari/605.1.15", "Safari on macOS"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
         "Gecko) CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1", "Chrome on iPhone"),
        ("Mozilla/5.0 (Android 15; Mobile; rv:133.0) Gecko/133.0 Firefox/133.0",
         "Firefox on Android"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("x" * 255, "x" * 40),
        ("", "Unknown browser"),
    ],
)  # fmt: skip
def test_a_browser_is_called_as_people_call_it(said: str, name: str) -> None:
    assert account.browser_name(said) == name


def test_after_the_password_the_code_is_asked_for_and_works_once(ours: Shop) -> None:
    totp, _ = turn_on(ours)
    browser = Client()
    answer = password_of(ours, browser)
    assert answer["Location"].startswith("/console/login/code")
    # Half in is not in.
    assert browser.get("/console/connections/").status_code == 302
    assert browser.post("/console/login/code", {"code": "123"}).status_code == 403
    code = totp.now()
    assert browser.post("/console/login/code", {"code": code}).status_code == 302
    assert browser.get("/console/connections/").status_code == 200
    other = Client()
    password_of(ours, other)
    assert other.post("/console/login/code", {"code": code}).status_code == 403


def test_the_code_alone_opens_nothing_and_half_in_ends(ours: Shop) -> None:
    totp, _ = turn_on(ours)
    assert Client().get("/console/login/code")["Location"] == "/console/login/"
    browser = Client()
    password_of(ours, browser)
    session = browser.session
    session["half_in"] |= {"at": (timezone.now() - HOUR).isoformat()}
    session.save()
    answer = browser.post("/console/login/code", {"code": totp.now()})
    assert answer["Location"] == "/console/login/"


def test_five_wrong_codes_stop_even_the_right_one(ours: Shop) -> None:
    totp, codes = turn_on(ours)
    user = ours.people[Role.OWNER]
    now = timezone.now()
    for _ in range(second_factors.MOST_FAILURES):
        assert not second_factors.check(user, "000000", now=now)
    for right in (totp.now(), codes[0]):
        with pytest.raises(errors.Refused):
            second_factors.check(user, right, now=now)
    browser = Client()
    password_of(ours, browser)
    page = browser.post("/console/login/code", {"code": totp.now()})
    assert page.status_code == 403 and b"Wait 15 minutes" in page.content
    later = now + second_factors.PAUSE
    assert second_factors.check(user, codes[0], now=later)


def test_a_recovery_code_opens_once_and_new_ones_end_the_old(ours: Shop) -> None:
    _, codes = turn_on(ours)
    user, now = ours.people[Role.OWNER], timezone.now()
    assert second_factors.check(user, codes[0].upper().replace("-", " "), now=now)
    assert not second_factors.check(user, codes[0], now=now)
    assert second_factors.codes_left(user) == 9
    page = ours.client().post("/console/account/recovery-codes").content.decode()
    fresh = re.findall(r"\b[a-z2-9]{5}-[a-z2-9]{5}\b", page)
    assert len(fresh) == 10 and not set(fresh) & set(codes)
    assert not second_factors.check(user, codes[1], now=now)
    assert second_factors.check(user, fresh[1], now=now)


def test_secrets_and_codes_are_not_in_the_database_in_clear(ours: Shop) -> None:
    totp, codes = turn_on(ours)
    kept = bytes(SecondFactor.objects.get().secret)
    assert totp.secret.encode() not in kept
    hashes = b"".join(bytes(row.code_hash) for row in RecoveryCode.objects.all())
    assert not any(code.encode() in hashes for code in codes)


def test_it_is_turned_off_with_the_password_alone(ours: Shop) -> None:
    turn_on(ours)
    client = ours.client()
    off = "/console/account/two-step/off"
    assert client.post(off, {"password": "wrong"}).status_code == 422
    assert second_factors.has(ours.people[Role.OWNER])
    assert client.post(off, {"password": PASSWORD}).status_code == 302
    assert not second_factors.has(ours.people[Role.OWNER])
    actions = list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))
    assert actions == ["account.two_step_on", "account.two_step_off"]


# Sign-ins ----------------------------------------------------------------------------------------


def test_a_sign_in_is_listed_and_ends_at_the_next_click(ours: Shop) -> None:
    here, there = Client(headers={"user-agent": "Here/1"}), Client(headers={"user-agent": "There"})
    for browser in (here, there):
        assert password_of(ours, browser).status_code == 302
    page = here.get("/console/account").content.decode()
    assert "Here/1" in page and "There" in page and "This one" in page
    row = SignIn.objects.get(browser="There")
    here.post("/console/account/sign-out", {"sign_in": str(row.pk)})
    assert there.get("/console/").status_code == 302
    assert here.get("/console/").status_code == 200


def test_nobody_ends_another_persons_sign_in(ours: Shop, theirs: Shop) -> None:
    browser = Client()
    password_of(theirs, browser)
    row = SignIn.objects.get()
    for asked in (str(row.pk), "others", "x", "9" * 30):
        ours.client().post("/console/account/sign-out", {"sign_in": asked})
    assert browser.get("/console/").status_code == 200


# Resets ------------------------------------------------------------------------------------------


def link_of(shop: Shop) -> str:
    mail = OutboxMessage.objects.get(to=shop.people[Role.OWNER].email, subject=resets.SUBJECT)
    found = re.search(r"/console/reset/\S+", mail.body)
    assert found
    return found.group(0)


def test_a_reset_by_mail_changes_the_password_once_and_signs_everybody_out(ours: Shop) -> None:
    owner = ours.people[Role.OWNER]
    before = Client()
    password_of(ours, before)
    Client().post("/console/forgot", {"email": owner.email.upper()})
    link = link_of(ours)
    browser = Client()
    assert browser.post(link, {"password": "short"}).status_code == 422
    assert before.get("/console/").status_code == 200
    assert b"password is changed" in browser.post(link, {"password": "a new long one"}).content
    assert before.get("/console/").status_code == 302
    assert browser.post(link, {"password": "yet another one"}).status_code == 404
    assert password_of(ours, Client(), "a new long one").status_code == 302
    assert AuditEntry.objects.get().action == "account.password_changed"


def test_a_reset_does_not_turn_the_second_step_off(ours: Shop) -> None:
    turn_on(ours)
    Client().post("/console/forgot", {"email": ours.people[Role.OWNER].email})
    Client().post(link_of(ours), {"password": "a new long one"})
    answer = password_of(ours, Client(), "a new long one")
    assert answer["Location"].startswith("/console/login/code")


def test_known_and_unknown_addresses_are_answered_alike_and_mailed_little(ours: Shop) -> None:
    User.objects.create_user("alone@nobody.example", "a long password")
    known = ours.people[Role.OWNER].email
    pages = {
        Client().post("/console/forgot", {"email": email}).content
        for email in (known, "alone@nobody.example", "nobody@nowhere.example", "", "x" * 999)
    }
    assert len(pages) == 1
    for _ in range(5):
        Client().post("/console/forgot", {"email": known})
    assert OutboxMessage.objects.filter(subject=resets.SUBJECT).count() == resets.MOST


def test_the_link_is_of_the_configured_site_whatever_the_host(ours: Shop, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    settings.LAVA_BASE_URL = "https://billing.example"
    owner = ours.people[Role.OWNER]
    Client().post("/console/forgot", {"email": owner.email}, headers={"host": "evil.example"})
    mail = OutboxMessage.objects.get(to=owner.email, subject=resets.SUBJECT)
    assert "https://billing.example/console/reset/" in mail.body and "evil" not in mail.body


@pytest.mark.parametrize("link", ["x/y", "MQ/abc-def", "////", "%00/%00"])
def test_a_link_that_is_none_has_ended(ours: Shop, link: str) -> None:
    assert Client().get(f"/console/reset/{link}").status_code in (400, 404)
