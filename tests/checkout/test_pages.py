from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from billing import merchants
from billing.models import Connection, Merchant, Organization
from checkout.models import CheckoutSession
from tests import factories
from tests.checkout.visitor import PHONE, Visitor, another, last_code, make_session

pytestmark = pytest.mark.django_db
HOSTILE = '"><svg onload=alert(1)>'


@pytest.fixture
def merchant() -> Merchant:
    return factories.make_merchant()


@pytest.fixture
def session(merchant: Merchant) -> CheckoutSession:
    return make_session(
        merchant, plan=factories.make_plan(merchant), return_url="https://app.example.com/done"
    )


@pytest.fixture
def visitor(session: CheckoutSession) -> Visitor:
    return Visitor(session)


def directives(answer: Any) -> dict[str, str]:
    policy = answer["Content-Security-Policy"]
    return {part.split()[0]: part.partition(" ")[2] for part in policy.split("; ")}


def test_the_frame_is_open_to_the_sessions_origin_alone(session: CheckoutSession) -> None:
    framed = Visitor(session, embedded=True).get()
    assert directives(framed)["frame-ancestors"] == "https://app.example.com"
    assert "X-Frame-Options" not in framed
    alone = Visitor(session).get()
    assert directives(alone)["frame-ancestors"] == "'none'"
    assert alone["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("embedded", [True, False])
def test_a_page_is_not_stored_not_told_and_runs_no_inline_code(
    session: CheckoutSession, embedded: bool
) -> None:
    answer = Visitor(session, embedded=embedded).get()
    html = answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    assert answer["Referrer-Policy"] == "no-referrer"
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son[a-z]+=", html)
    assert "Set-Cookie" not in answer
    assert not answer.cookies


def test_with_stripes_own_script_only_stripe_is_let_in(visitor: Visitor, settings: Any) -> None:
    settings.STRIPE_JS_URL = "https://js.stripe.com/endive/stripe.js"
    found = directives(visitor.get())
    assert found["script-src"] == "'self' https://js.stripe.com https://*.js.stripe.com"
    assert found["connect-src"] == "'self' https://api.stripe.com"
    assert "https://hooks.stripe.com" in found["frame-src"]


def test_every_page_says_its_language_title_and_colour_scheme(visitor: Visitor) -> None:
    html = visitor.get().content.decode()
    assert '<html lang="en">' in html
    assert "<title>Confirm your phone \u2013 Northwind Voice</title>" in html
    assert 'name="viewport"' in html
    assert 'name="color-scheme" content="light dark"' in html


def test_the_steps_follow_each_other(visitor: Visitor, merchant: Merchant) -> None:
    assert "Step 1 of 3" in visitor.get().content.decode()
    assert visitor.send().status_code == 303
    html = visitor.get().content.decode()
    assert "Step 2 of 3" in html
    assert "0142" in html and PHONE not in html
    wrong = visitor.post("code", code=another(last_code(merchant)))
    assert wrong.status_code == 422
    assert "That is not the code we sent. 4 tries are left." in wrong.content.decode()
    assert visitor.post("code", code=last_code(merchant)).status_code == 303
    html = visitor.get().content.decode()
    assert "Step 3 of 3" in html
    assert "Pay $25.00" in html


def test_a_code_may_be_typed_with_spaces(visitor: Visitor, merchant: Merchant) -> None:
    visitor.send()
    code = last_code(merchant)
    assert visitor.post("code", code=f"{code[:3]} {code[3:]}").status_code == 303


@pytest.mark.parametrize("code", ["", "12345", "１２３４５６", "abcdef", "0' OR 1"])
def test_what_is_no_code_is_not_counted(
    visitor: Visitor, session: CheckoutSession, code: str
) -> None:
    visitor.send()
    assert visitor.post("code", code=code).status_code == 422
    assert session.verifications.get().attempts == 0


def test_a_wrong_number_keeps_what_was_typed(visitor: Visitor) -> None:
    answer = visitor.post("phone", country="GB", phone="12")
    html = answer.content.decode()
    assert answer.status_code == 422
    assert 'value="12"' in html
    assert "GB +44" in html and '<option value="GB" data-face="GB +44" selected>' in html
    assert "That is not a phone number of the chosen country." in html


def test_a_skipped_step_is_409_and_changes_nothing(
    visitor: Visitor, session: CheckoutSession
) -> None:
    nonce = visitor.nonce
    for step in ("code", "bundle", "complete"):
        answer = visitor.post(step, nonce=nonce, code="123456")
        assert answer.status_code == 409, step
        assert "Step 1 of 3" in answer.content.decode()
    assert visitor.press_pay(nonce=nonce).status_code == 409
    session.refresh_from_db()
    assert session.state == "open"


def test_a_form_of_an_earlier_step_is_409_and_shows_the_present_one(visitor: Visitor) -> None:
    old = visitor.nonce
    visitor.send()
    answer = visitor.post("resend", nonce=old)
    assert answer.status_code == 409
    assert "This page had moved on" in answer.content.decode()
    assert "Enter your code" in answer.content.decode()


def test_a_form_without_its_nonce_is_refused(visitor: Visitor) -> None:
    assert visitor.post("phone", nonce="", country="US", phone=PHONE).status_code == 409


def test_the_number_can_be_changed_before_the_payment(
    visitor: Visitor, session: CheckoutSession
) -> None:
    visitor.confirm_phone()
    assert visitor.post("restart").status_code == 303
    session.refresh_from_db()
    assert (session.state, session.connection_id, session.phone) == ("open", None, "")


def test_a_reload_of_a_posted_step_leads_to_the_page(visitor: Visitor) -> None:
    for step in ("phone", "code", "resend", "restart", "bundle", "pay", "complete"):
        answer = visitor.client.get(f"{visitor.base}/{step}")
        assert (answer.status_code, answer["Location"]) == (303, visitor.base)


def test_too_many_codes_is_a_sentence_on_the_page(visitor: Visitor) -> None:
    visitor.send()
    answer = visitor.post("resend")
    assert answer.status_code == 429
    assert int(answer["Retry-After"]) <= 30
    assert "A code was just sent." in answer.content.decode()


def test_an_unknown_secret_is_404_for_everybody() -> None:
    for base in ("/checkout/", "/embed/checkout/"):
        for secret in ("css_nothing", "x", "css_" + "0" * 43, "css_%00"):
            answer = Client().get(base + secret)
            assert answer.status_code == 404
            assert directives(answer)["frame-ancestors"] == "'none'"
            assert "There is nothing here" in answer.content.decode()


def test_an_expired_checkout_is_410_and_takes_no_step(
    visitor: Visitor, session: CheckoutSession
) -> None:
    nonce = visitor.nonce
    CheckoutSession.objects.filter(pk=session.pk).update(
        created_at=session.created_at - timedelta(hours=25),
        expires_at=session.expires_at - timedelta(hours=24, seconds=1),
    )
    answer = visitor.get()
    assert answer.status_code == 410
    assert "This checkout has expired" in answer.content.decode()
    assert visitor.post("phone", nonce=nonce, country="US", phone=PHONE).status_code == 410
    assert visitor.press_pay(nonce=nonce).status_code == 410


def test_a_confirmed_phone_left_alone_is_asked_for_again(
    visitor: Visitor, session: CheckoutSession
) -> None:
    visitor.confirm_phone()
    CheckoutSession.objects.filter(pk=session.pk).update(
        verified_at=session.verified_at - timedelta(hours=1)
    )
    assert "Confirm your phone" in visitor.get().content.decode()


def test_the_same_plan_again_is_a_page_that_says_so(merchant: Merchant) -> None:
    plan = factories.make_plan(merchant)
    known = factories.make_connection(merchant, phone=PHONE, now=merchant.now())
    factories.make_subscription(plan, connection=known, now=merchant.now())
    visitor = Visitor(make_session(merchant, plan=plan))
    visitor.confirm_phone()
    assert "You already have Studio" in visitor.get().content.decode()
    assert visitor.press_pay(nonce=visitor.session.nonce).status_code == 409


def test_a_plan_that_cannot_be_switched_to_is_said_and_nothing_is_charged(
    merchant: Merchant,
) -> None:
    known = factories.make_connection(merchant, phone=PHONE, now=merchant.now())
    factories.make_subscription(
        factories.make_plan(merchant, name="Starter"), connection=known, now=merchant.now()
    )
    plan = factories.make_plan(merchant)
    visitor = Visitor(make_session(merchant, plan=plan))
    visitor.confirm_phone()
    plan.archived_at = merchant.now()
    plan.save()
    html = visitor.get().content.decode()
    assert "You already have Starter" in html
    assert "Studio was not started and nothing was charged." in html


def test_a_pack_without_its_plan_is_not_sold(merchant: Merchant) -> None:
    bundle = factories.make_bundle(factories.make_plan(merchant))
    visitor = Visitor(make_session(merchant, mode="credit_bundle", bundle=bundle))
    visitor.confirm_phone()
    assert "Packs come with a plan" in visitor.get().content.decode()
    assert visitor.press_pay(nonce=visitor.session.nonce).status_code == 409


def test_a_price_that_changed_is_not_charged(visitor: Visitor, session: CheckoutSession) -> None:
    visitor.confirm_phone()
    session.plan.price = session.plan.price * 2
    session.plan.save()
    assert "The price has changed" in visitor.get().content.decode()
    assert visitor.press_pay(nonce=session.nonce).status_code == 409


def test_a_paused_customer_cannot_pay(visitor: Visitor, session: CheckoutSession) -> None:
    visitor.confirm_phone()
    Connection.objects.filter(pk=session.connection_id).update(status="disabled")
    assert "Billing is paused for this number" in visitor.get().content.decode()


def test_the_parent_is_named_exactly(session: CheckoutSession) -> None:
    html = Visitor(session, embedded=True).get().content.decode()
    assert 'data-origin="https://app.example.com"' in html
    assert f'data-session="{session.public_id}"' in html
    assert "data-completed" not in html
    assert "data-origin" not in Visitor(session).get().content.decode()


def test_texts_of_the_merchant_are_words_and_never_markup(merchant: Merchant) -> None:
    Organization.objects.filter(pk=merchant.organization_id).update(
        name=HOSTILE, support_email="x@y.example"
    )
    plan = factories.make_plan(merchant, name=HOSTILE)
    bundle = factories.make_bundle(plan)
    bundle.name = HOSTILE
    bundle.save()
    meter = factories.make_meter(merchant, plan)
    meter.name = HOSTILE
    meter.save()
    session = make_session(Merchant.objects.get(pk=merchant.pk), plan=plan)
    visitor = Visitor(session)
    for answer in (visitor.get(), visitor.send(HOSTILE), visitor.send(PHONE)):
        assert "<svg onload" not in answer.content.decode()
    visitor.post("code", code=last_code(merchant))
    html = visitor.get().content.decode()
    assert "<svg onload" not in html
    assert "&lt;svg onload=alert(1)&gt;" in html


def test_hostile_form_fields_break_nothing(visitor: Visitor) -> None:
    for phone in ("\x00", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "9" * 5000):
        assert visitor.post("phone", country="\x00\x00", phone=phone).status_code == 422
    nonce = visitor.nonce
    for raw in (b"", b"[]", b"{", b'"x"', b"[" * 5000, b'{"nonce": 1}', b"{}" + b" " * 9000):
        answer = visitor.client.post(f"{visitor.base}/pay", raw, content_type="application/json")
        assert answer.status_code in (400, 409, 422), raw[:20]
    visitor.post("phone", nonce=nonce, country="US", phone=PHONE)
    assert visitor.get().status_code == 200


def test_half_characters_in_a_name_are_refused_in_words(visitor: Visitor) -> None:
    visitor.confirm_phone()
    for name in ("\ud800", "a\x00b", "\u202e", "\n"):
        answer = visitor.press_pay(name=name)
        assert answer.status_code == 422
        assert "name" in answer.json()["problems"]


def test_a_brand_has_its_own_stylesheet_and_address(merchant: Merchant) -> None:
    Organization.objects.filter(pk=merchant.organization_id).update(brand_color="#e11d48")
    fresh = Merchant.objects.get(pk=merchant.pk)
    html = Visitor(make_session(fresh, plan=factories.make_plan(fresh))).get().content.decode()
    address = re.search(r'href="(/hosted/brand/[^"]+)"', html).group(1)  # type: ignore[union-attr]
    sheet = Client().get(address)
    assert sheet["Content-Type"].startswith("text/css")
    assert "immutable" in sheet["Cache-Control"]
    assert "--accent:#" in sheet.content.decode()
    assert Client().get(address.replace(".css", "0.css")).status_code == 404


def test_a_logo_is_served_as_an_image_and_nothing_else(merchant: Merchant) -> None:
    merchants.set_logo(merchant.organization, b"\x89PNG\r\n\x1a\n" + HOSTILE.encode())
    fresh = Merchant.objects.get(pk=merchant.pk)
    html = Visitor(make_session(fresh, plan=factories.make_plan(fresh))).get().content.decode()
    address = re.search(r'src="(/hosted/logo/[^"]+)"', html).group(1)  # type: ignore[union-attr]
    answer = Client().get(address)
    assert answer["Content-Type"] == "image/png"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer["Content-Security-Policy"]


def test_a_live_page_is_not_marked_as_sandbox() -> None:
    for sandbox in (True, False):
        merchant = factories.make_merchant(sandbox=sandbox)
        page = Visitor(make_session(merchant, plan=factories.make_plan(merchant))).get()
        assert (">Sandbox<" in page.content.decode()) is sandbox


def test_behind_proxies_the_address_is_what_the_trusted_one_saw(
    session: CheckoutSession, settings: Any
) -> None:
    settings.LAVA_PROXIES = 1
    visitor = Visitor(session, address="10.0.0.1")
    visitor.client.post(
        f"{visitor.base}/phone",
        {"nonce": visitor.nonce, "country": "US", "phone": PHONE},
        headers={"X-Forwarded-For": "6.6.6.6, 198.51.100.7"},
    )
    assert session.verifications.get().address == "198.51.100.7"


def test_a_forged_forwarding_header_is_ignored_without_proxies(session: CheckoutSession) -> None:
    visitor = Visitor(session)
    visitor.client.post(
        f"{visitor.base}/phone",
        {"nonce": visitor.nonce, "country": "US", "phone": PHONE},
        headers={"X-Forwarded-For": "6.6.6.6"},
    )
    assert session.verifications.get().address == "203.0.113.9"


def test_the_script_for_sites_without_a_build_is_under_five_kilobytes() -> None:
    path = finders.find("checkout/embed.js")
    assert path is not None and Path(path).stat().st_size < 5000
