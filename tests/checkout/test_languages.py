"""Every customer page in every language: no string of one is outside the catalogues, the language
is the browser's or the address's, and it stays through all steps without a cookie."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.utils import translation

from billing import receipts
from billing.models import Customer, Merchant, OutboxMessage, Payment, Plan, Subscription
from checkout import sessions
from checkout.models import CheckoutSession
from lava.demo.card_network.process import CardNetwork
from tests import factories
from tests.checkout.test_portal import Guest
from tests.checkout.visitor import CARD, DECLINED, PHONE, Visitor, last_code, make_session

pytestmark = pytest.mark.django_db

OPEN, CLOSE = "\u27e6", "\u27e7"
# What is data and no word of ours: names, dates in English, addresses, signs of units.
MONTHS = (
    "January|February|March|April|May|June|July|August|September|October|November|December|"
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
)
DATA = re.compile(
    rf"Mara Lindqvist|Northwind Voice|\b({MONTHS})( \d+)?|\bUTC\b|\b[AP]M\b|\bmin\b|\bs\b|"
    r"Visa|USD|US|Studio|Starter|Pro|Chat|Pack 10|[\w.]+@[\w.]+|R-\w+-\d+|\w+-\d{3,}"
)


@contextmanager
def marked() -> Iterator[None]:
    """Every message that comes out of gettext stands in brackets."""
    real = translation._trans  # type: ignore[attr-defined]
    gettext, ngettext = real.gettext, real.ngettext
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real, "gettext", lambda m: f"{OPEN}{gettext(m)}{CLOSE}")
        patch.setattr(real, "ngettext", lambda s, p, n: f"{OPEN}{ngettext(s, p, n)}{CLOSE}")
        yield


class Words(HTMLParser):
    """The texts of a page and of its attributes that people read."""

    READ = ("title", "aria-label", "alt", "placeholder", "content-words")
    SILENT = ("script", "style", "option")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent += tag in self.SILENT
        for name, value in attrs:
            said = name in self.READ or (
                name.startswith("data-") and name.split("-")[1] in ("missing", "busy", "away")
            )
            if said and value and tag not in ("time",):
                self.found.append(value)

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in self.SILENT

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.found.append(data)


def untranslated(answer: Any, *names: str) -> list[str]:
    """The words of a page that did not come out of a catalogue."""
    parser = Words()
    parser.feed(answer.content.decode())
    # In one string: a message may go on over the tags within it.
    text = "\n".join(parser.found)
    depth, outside = 0, []
    for letter in text:
        depth += letter == OPEN
        if not depth:
            outside.append(letter)
        depth -= letter == CLOSE
    assert depth == 0, "a message is cut"
    assert len(outside) < len(text), "nothing is marked: the check does not look"
    rest = "".join(outside)
    for name in names:
        rest = rest.replace(name, "")
    return re.findall(r"[A-Za-z]{2,}", DATA.sub("", rest))


@pytest.fixture
def merchant(network: CardNetwork) -> Merchant:
    merchant = factories.make_merchant()
    organization = merchant.organization
    organization.name = "Northwind Voice"
    organization.terms_url = "https://northwind.example/terms"
    organization.privacy_url = "https://northwind.example/privacy"
    organization.support_email = "help@northwind.example"
    organization.save()
    return Merchant.objects.get(pk=merchant.pk)


@pytest.fixture
def plan(merchant: Merchant) -> Any:
    plan = factories.make_plan(merchant)
    factories.make_bundle(plan)
    factories.make_meter(merchant, plan)
    return plan


def subscriber(merchant: Merchant, plan: Any) -> Subscription:
    session = sessions.complete_with_test_card(
        make_session(merchant, plan=plan), phone=PHONE, card=CARD, now=merchant.now()
    )
    customer = session.buyer.customer
    customer.first_name, customer.last_name = "Mara", "Lindqvist"
    customer.email = "mara@tallgrass.example"
    customer.save()
    found = session.buyer.subscription
    assert found is not None
    return found


def read(get: Callable[[], Any]) -> list[str]:
    with marked():
        answer = get()
    assert answer.status_code < 500
    return untranslated(answer)


def test_no_string_of_the_checkout_is_outside_the_catalogues(
    merchant: Merchant, plan: Any, network: CardNetwork
) -> None:
    visitor = Visitor(make_session(merchant, plan=plan), embedded=True)
    assert read(visitor.get) == []
    nonce = visitor.nonce
    assert read(lambda: visitor.post("phone", nonce=nonce, country="US", phone="12")) == []
    visitor.send()
    assert read(visitor.get) == []
    nonce = visitor.nonce
    assert read(lambda: visitor.post("code", nonce=nonce, code="12")) == []
    assert read(lambda: visitor.post("code", nonce=nonce, code="000000")) == []
    assert read(lambda: visitor.post("resend", nonce=nonce)) == []
    assert read(lambda: visitor.post("phone", nonce="old", country="US", phone=PHONE)) == []
    visitor.session.refresh_from_db()
    visitor.post("code", code=last_code(merchant))
    assert read(visitor.get) == []
    visitor.pay(network.url, DECLINED)
    assert read(lambda: visitor.complete(accept="text/html")) == []
    visitor.pay(network.url)
    assert read(visitor.get) == []
    assert read(lambda: visitor.post("phone", nonce="", phone="x")) == []
    waiting = Visitor(make_session(merchant, plan=plan))
    CheckoutSession.objects.filter(pk=waiting.session.pk).update(state="expired")
    assert read(waiting.get) == []


@pytest.mark.parametrize("mode", ["topup", "credit_bundle", "onboarding", "subscription"])
def test_no_string_for_a_returning_customer_is_outside_the_catalogues(
    merchant: Merchant, plan: Any, network: CardNetwork, mode: str
) -> None:
    current = subscriber(merchant, plan)
    fields: dict[str, Any] = {"connection": current.connection, "mode": mode}
    if mode == "subscription":
        # A switch, now and later, and the plan they have.
        for name, price in (("Pro", "79"), ("Starter", "9")):
            other = factories.make_plan(merchant, name=name, price=price, credit=price)
            visitor = Visitor(make_session(merchant, plan=other))
            visitor.confirm_phone()
            assert read(visitor.get) == []
        fields["plan"] = plan
        del fields["connection"]
    if mode == "credit_bundle":
        fields["bundle"] = plan.live_bundles.get()
    visitor = Visitor(make_session(merchant, **fields))
    assert read(visitor.get) == []
    visitor.post("phone") if "connection" in fields else visitor.send()
    visitor.post("code", code=last_code(merchant))
    assert read(visitor.get) == []
    if mode == "topup":
        visitor.post("bundle", bundle=plan.live_bundles.get().public_id)
        assert read(visitor.get) == []
    if mode != "subscription":
        visitor.pay(network.url)
        assert read(visitor.get) == []


def test_no_string_of_the_portal_is_outside_the_catalogues(
    merchant: Merchant, plan: Any, network: CardNetwork
) -> None:
    current = subscriber(merchant, plan)
    factories.make_plan(merchant, name="Pro", price="79", credit="90")
    later = factories.make_plan(merchant, name="Starter", price="9", credit="9")
    guest = Guest(merchant)
    assert read(guest.get) == []
    guest.send()
    assert read(guest.get) == []
    guest.post("code", code=last_code(merchant))
    for step in ("", "cancel", "switch", "top-up", "activity"):
        assert read(lambda step=step: guest.get(step)) == [], step
    for plan_ in (later, Plan.objects.get(name="Pro")):
        assert read(lambda p=plan_: guest.get("switch", plan=p.public_id)) == []
    assert read(lambda: guest.post("top-up", token=guest.token, bundle="x", cap="1")) == []
    guest.post("cancel")
    assert read(lambda: guest.get("", done="cancelled")) == []
    assert current.connection_id


def test_no_string_behind_the_links_of_mails_is_outside_the_catalogues(
    merchant: Merchant, plan: Any, network: CardNetwork
) -> None:
    current = subscriber(merchant, plan)
    paid = Payment.objects.get()
    for url in (
        receipts.address(paid),
        receipts.card_address(current.connection),
        f"http://testserver/portal/{merchant.public_id}",
        "http://testserver/checkout/css_nothing",
    ):
        assert read(lambda url=url: Client().get(urlsplit(url).path)) == [], url


def test_the_browsers_language_is_spoken_and_said(merchant: Merchant, plan: Any) -> None:
    visitor = Visitor(make_session(merchant, plan=plan))
    answer = visitor.client.get(visitor.base, headers={"Accept-Language": "de-AT,en;q=0.5"})
    html = answer.content.decode()
    assert answer["Content-Language"] == "de"
    assert '<html lang="de">' in html and "25,00\u00a0$" in html and "Telefonnummer" in html
    assert "\u00d6sterreich +43" in html


def test_the_address_outweighs_the_browser_and_stays_through_every_step(
    merchant: Merchant, plan: Any, network: CardNetwork
) -> None:
    visitor = Visitor(make_session(merchant, plan=plan))
    visitor.client.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    page = f"{visitor.base}?locale=es"
    html = visitor.client.get(page).content.decode()
    assert '<html lang="es">' in html
    action = re.search(r'action="([^"]+)"', html)
    assert action is not None and action.group(1).endswith("/phone?locale=es")
    nonce = visitor.nonce
    body = {"nonce": nonce, "country": "US", "phone": PHONE}
    moved = visitor.client.post(action.group(1), body)
    assert moved["Location"] == page
    assert "es tu c\u00f3digo" in OutboxMessage.objects.latest("created_at").body
    wrong = visitor.client.post(f"{visitor.base}/code?locale=es", {"nonce": nonce, "code": "1"})
    assert "Introduce los seis d\u00edgitos" in wrong.content.decode()


@pytest.mark.parametrize("locale", ["xx", "../../etc", "de\u0000", '"><svg onload=1>', "d" * 9999])
def test_a_language_we_do_not_have_is_the_browsers(
    merchant: Merchant, plan: Any, locale: str
) -> None:
    visitor = Visitor(make_session(merchant, plan=plan))
    answer = visitor.client.get(visitor.base, {"locale": locale})
    assert answer["Content-Language"] == "en"
    assert "svg onload" not in answer.content.decode()


def test_mails_speak_the_language_their_customer_was_last_seen_in(
    merchant: Merchant, plan: Any, network: CardNetwork
) -> None:
    visitor = Visitor(make_session(merchant, plan=plan))
    visitor.client.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    visitor.confirm_phone()
    visitor.pay(network.url)
    assert Customer.objects.get().locale == "de"
    mail = OutboxMessage.objects.filter(kind="mail", subject__startswith="Beleg").get()
    assert "Guten Tag Mara," in mail.body and "25,00\u00a0$ bezahlt" in mail.html
    assert '<html lang="de">' in mail.html
    # At the portal they were seen in another one.
    guest = Guest(merchant)
    guest.client.defaults["HTTP_ACCEPT_LANGUAGE"] = "es"
    guest.sign_in()
    assert Customer.objects.get().locale == "es"


def test_the_api_and_the_console_stay_english(merchant: Merchant) -> None:
    key = factories.make_key(merchant)
    answer = Client().get(
        "/v1/subscription_configs/sc_nothing",
        headers={"Authorization": f"Bearer {key}", "Accept-Language": "de"},
    )
    assert answer.status_code == 404 and "Content-Language" not in answer
