"""The customers' portal: who gets in, what they see, what each press does."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from moneyed import Money

from billing import cards, topups
from billing.models import (
    Connection,
    Customer,
    Merchant,
    OutboxMessage,
    Payment,
    Plan,
    Subscription,
)
from checkout.models import CheckoutSession, PhoneVerification, PortalVisit
from checkout.portal import visits
from lava.demo.card_network.process import CardNetwork
from tests import factories
from tests.checkout.visitor import CARD, Visitor, another, last_code, make_session

pytestmark = pytest.mark.django_db
PHONE = "+14155550142"
STRANGER = "+14155550199"


class Guest:
    """One browser at a merchant's portal."""

    def __init__(self, merchant: Merchant, *, address: str = "203.0.113.9") -> None:
        self.merchant = merchant
        self.client = Client(REMOTE_ADDR=address, enforce_csrf_checks=True)
        self.base = f"/portal/{merchant.public_id}"

    def get(self, step: str = "", **query: str) -> Any:
        return self.client.get(f"{self.base}/{step}" if step else self.base, query)

    @property
    def token(self) -> str:
        found = re.search(r'name="nonce" value="([^"]+)"', self.get().content.decode())
        assert found is not None
        return found.group(1)

    def post(self, step: str, *, token: str | None = None, **data: str) -> Any:
        body = {"nonce": self.token if token is None else token} | data
        return self.client.post(f"{self.base}/{step}", body)

    def send(self, phone: str = PHONE) -> Any:
        return self.post("phone", country="US", phone=phone)

    def sign_in(self, phone: str = PHONE) -> Any:
        answer = self.send(phone)
        assert answer.status_code == 303, answer.content.decode()
        answer = self.post("code", code=last_code(self.merchant, phone))
        assert answer.status_code == 303, answer.content.decode()
        return answer

    @property
    def cookie(self) -> Any:
        (found,) = (
            each for name, each in self.client.cookies.items() if name.startswith("lava_portal")
        )
        return found

    def sees(self, text: str, step: str = "") -> bool:
        return text in self.get(step).content.decode().replace("\u2019", "'")


@pytest.fixture
def merchant() -> Merchant:
    return factories.make_merchant()


@pytest.fixture
def plan(merchant: Merchant) -> Plan:
    plan = factories.make_plan(merchant)
    factories.make_bundle(plan)
    return plan


@pytest.fixture
def current(merchant: Merchant, plan: Plan) -> Subscription:
    now = merchant.now()
    connection = factories.make_connection(merchant, phone=PHONE, now=now)
    return factories.make_subscription(plan, connection=connection, now=now)


@pytest.fixture
def guest(current: Subscription) -> Guest:
    guest = Guest(current.merchant)
    guest.sign_in()
    return guest


# --- Signing in ----------------------------------------------------------------------------------


def test_a_phone_code_opens_the_portal_of_that_phone(guest: Guest) -> None:
    assert guest.sees("Credits left") and guest.sees("Studio") and guest.sees("$25.00")
    visit = PortalVisit.objects.get()
    assert visit.connection.customer.phone == PHONE


def test_known_and_unknown_numbers_get_the_same_answer(current: Subscription) -> None:
    merchant = current.merchant
    pages = []
    for phone in (PHONE, STRANGER):
        guest = Guest(merchant)
        answer = guest.send(phone)
        text = re.sub(r'value="[^"]{20,}"', "", guest.get().content.decode())
        pages.append((answer.status_code, answer["Location"], text.replace(phone[-4:], "")))
    assert pages[0] == pages[1]
    assert OutboxMessage.objects.of(merchant).count() == 2


def test_a_strangers_number_opens_nothing_and_makes_nobody(current: Subscription) -> None:
    guest = Guest(current.merchant)
    guest.sign_in(STRANGER)
    assert guest.sees("There is nothing for this number")
    assert not Customer.objects.filter(phone=STRANGER).exists()
    assert guest.post("cancel").status_code == 303
    current.refresh_from_db()
    assert current.pending_change is None


def test_the_cookie_is_its_own_and_no_script_reads_it(guest: Guest) -> None:
    cookie = guest.cookie
    assert cookie["httponly"] and cookie["samesite"] == "Lax" and cookie["path"] == "/portal"
    assert "sessionid" not in guest.client.cookies
    visit = PortalVisit.objects.get()
    assert bytes(visit.secret_hash).hex() not in cookie.value


def test_the_cookie_is_secure_where_the_consoles_is(current: Subscription, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = True
    guest = Guest(current.merchant)
    guest.get()
    assert guest.cookie["secure"]


def test_the_secret_changes_with_the_sign_in(current: Subscription) -> None:
    guest = Guest(current.merchant)
    guest.send()
    before = guest.cookie.value
    guest.post("code", code=last_code(current.merchant))
    assert guest.cookie.value != before
    planted = Guest(current.merchant)
    planted.client.cookies[guest.cookie.key] = before
    assert not planted.sees("Credits left")


def test_a_cookie_opens_one_merchants_portal_alone(guest: Guest, current: Subscription) -> None:
    other = factories.make_merchant()
    now = other.now()
    theirs = factories.make_connection(other, phone=PHONE, now=now)
    factories.make_subscription(
        factories.make_plan(other, name="Other"), connection=theirs, now=now
    )
    guest.client.cookies[f"lava_portal_{other.public_id}"] = guest.cookie.value
    answer = guest.client.get(f"/portal/{other.public_id}")
    assert "Text me a code" in answer.content.decode()


def test_a_forged_cookie_opens_nothing(guest: Guest) -> None:
    guest.client.cookies[guest.cookie.key] = guest.cookie.value[:-2] + "xx"
    assert guest.sees("Text me a code")


def test_half_an_hour_of_silence_ends_a_visit(guest: Guest) -> None:
    ago = guest.merchant.now() - visits.IDLE
    PortalVisit.objects.update(seen_at=ago + timedelta(minutes=1))
    assert guest.sees("Credits left")
    # Looking at it was a sign of life.
    assert PortalVisit.objects.get().seen_at > ago + timedelta(minutes=20)
    PortalVisit.objects.update(seen_at=ago)
    assert guest.sees("Text me a code")


def test_half_a_day_ends_a_visit_however_busy(guest: Guest) -> None:
    PortalVisit.objects.update(created_at=guest.merchant.now() - visits.LONGEST)
    assert guest.sees("Text me a code")


def test_signing_out_ends_it_for_the_old_cookie_too(guest: Guest) -> None:
    old, token = guest.cookie.value, guest.token
    assert guest.post("sign-out").status_code == 303
    assert guest.sees("Text me a code")
    thief = Guest(guest.merchant)
    thief.client.cookies[guest.cookie.key] = old
    assert thief.sees("Text me a code")
    assert thief.post("cancel", token=token).status_code == 403


def test_a_phone_that_is_somebody_elses_now_opens_nothing(guest: Guest) -> None:
    Customer.objects.filter(phone=PHONE).update(phone="+14155550100")
    assert guest.sees("Text me a code")


def test_five_wrong_tries_burn_a_code(current: Subscription) -> None:
    guest = Guest(current.merchant)
    guest.send()
    code = last_code(current.merchant)
    for left in ("4 tries are left", "3 tries", "2 tries", "1 try is left", "Send a new one"):
        answer = guest.post("code", code=another(code))
        assert answer.status_code == 422 and left in answer.content.decode()
    assert "Too many wrong codes" in guest.post("code", code=code).content.decode()
    assert PortalVisit.objects.get().verified_at is None


def test_a_second_code_waits_thirty_seconds(current: Subscription) -> None:
    guest = Guest(current.merchant)
    guest.send()
    answer = guest.post("resend")
    assert answer.status_code == 429 and int(answer["Retry-After"]) <= 30
    assert OutboxMessage.objects.of(current.merchant).count() == 1


def test_checkout_and_portal_share_the_limits_of_a_phone(
    merchant: Merchant, plan: Plan, current: Subscription
) -> None:
    for number in range(3):
        session = make_session(merchant, plan=plan)
        Visitor(session, address=f"203.0.113.{number}").send(PHONE)
    for number in range(2):
        assert Guest(merchant, address=f"198.51.100.{number}").send().status_code == 303
    assert Guest(merchant, address="198.51.100.77").send().status_code == 429
    session = make_session(merchant, plan=plan)
    assert Visitor(session, address="203.0.113.77").send(PHONE).status_code == 429
    assert PhoneVerification.objects.count() == 5


def test_a_code_of_the_checkout_does_not_open_the_portal(
    merchant: Merchant, plan: Plan, current: Subscription
) -> None:
    guest = Guest(merchant)
    guest.send()
    theirs = last_code(merchant)
    Visitor(make_session(merchant, plan=plan), address="203.0.113.7").send(PHONE)
    code = last_code(merchant)
    if code != theirs:
        assert guest.post("code", code=code).status_code == 422
    assert guest.post("code", code=theirs).status_code == 303


def test_no_hosted_page_beside_the_portal_sets_a_cookie(merchant: Merchant, plan: Plan) -> None:
    for embedded in (True, False):
        visitor = Visitor(make_session(merchant, plan=plan), embedded=embedded)
        visitor.send()
        assert not visitor.get().cookies and not visitor.client.cookies


def test_the_portal_is_framed_by_nobody_and_not_stored(guest: Guest) -> None:
    for step in ("", "cancel", "switch", "top-up", "activity"):
        answer = guest.get(step)
        assert answer.status_code == 200
        assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
        assert answer["Cache-Control"] == "no-store"
        html = answer.content.decode()
        assert not re.search(r"\son\w+=|style=|<script(?![^>]*src=)", html)


def test_an_unknown_portal_is_no_page(client: Client) -> None:
    assert client.get("/portal/mer_nonsense").status_code == 404


# --- Forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step", ["cancel", "resume", "switch", "top-up", "credits", "card", "sign-out", "restart"]
)
def test_a_form_without_the_browsers_token_does_nothing(
    guest: Guest, current: Subscription, step: str
) -> None:
    other = Guest(guest.merchant)
    for token in ("", "x" * 64, other.token):
        assert guest.post(step, token=token, off="yes").status_code == 403
    current.refresh_from_db()
    assert current.pending_change is None
    assert guest.sees("Credits left")
    assert not CheckoutSession.objects.exists()


@pytest.mark.parametrize(
    "step", ["cancel", "resume", "switch", "top-up", "credits", "card", "activity", "csv"]
)
def test_nobody_is_led_to_the_sign_in(current: Subscription, step: str) -> None:
    guest = Guest(current.merchant)
    assert guest.get(step).status_code == 303
    assert guest.post(step).status_code == 303
    assert not CheckoutSession.objects.exists()


@pytest.mark.parametrize(
    ("language", "heads", "given", "planned"),
    [
        (
            "de",
            "Zeit,Was,Verbraucht,Guthaben,Rest danach,Währung,Beleg",
            "Guthaben geschenkt",
            "Guthaben aus Studio",
        ),
        (
            "es",
            "Hora,Qué,Usado,Crédito,Queda,Moneda,Recibo",
            "Crédito regalado",
            "Crédito de Studio",
        ),
    ],
    ids=["de", "es"],
)
def test_the_file_of_all_lines_is_in_the_customers_language(
    guest: Guest, current: Subscription, language: str, heads: str, given: str, planned: str
) -> None:
    factories.give(current.connection, "5", now=current.merchant.now())
    answer = guest.get("csv", locale=language)
    first, *lines = answer.getvalue().decode().splitlines()
    assert first == "\ufeff" + heads
    assert [line.split(",")[1] for line in lines] == [given, planned]
    assert [line.split(",")[3] for line in lines] == ["5.0000000000", "25.0000000000"]


# --- The plan ------------------------------------------------------------------------------------


def test_cancel_and_resume_each_twice(guest: Guest, current: Subscription) -> None:
    assert guest.sees("Cancel Studio", "cancel")
    for _ in range(2):
        assert guest.post("cancel")["Location"].endswith("?done=cancelled")
    current.refresh_from_db()
    assert current.pending_change == "cancellation"
    assert guest.sees("Keep Studio") and not guest.sees("Cancel plan")
    for _ in range(2):
        assert guest.post("resume")["Location"].endswith("?done=resumed")
    current.refresh_from_db()
    assert current.pending_change is None


def subscriber(network: CardNetwork, current: Subscription, card: str = CARD) -> None:
    """Save a card, as `/card` does."""
    connection = current.connection
    intent = cards.begin_setup(connection, key=f"portal-{card}")
    card_id = cards.from_test_card(connection.merchant, card)
    cards.confirm_setup(connection, setup_intent_id=intent.id, card_id=card_id)
    cards.finish_setup(connection, setup_intent_id=intent.id, now=connection.merchant.now())


def test_an_upgrade_charges_the_card_once_though_pressed_twice(
    network: CardNetwork, guest: Guest, current: Subscription
) -> None:
    subscriber(network, current)
    bigger = factories.make_plan(guest.merchant, name="Pro", price="79", credit="90")
    assert guest.sees("Pro", "switch")
    page = guest.get("switch", plan=bigger.public_id).content.decode()
    assert "Due today" in page and "$79.00" in page
    price = re.search(r'name="price" value="([^"]+)"', page).group(1)  # type: ignore[union-attr]
    for _ in range(2):
        answer = guest.post("switch", plan=bigger.public_id, price=price)
        assert answer["Location"].endswith("?done=switched")
    current.refresh_from_db()
    assert current.plan_id == bigger.pk
    assert Payment.objects.filter(purpose="upgrade", status="succeeded").count() == 1


def test_a_price_that_changed_since_the_page_is_not_charged(
    network: CardNetwork, guest: Guest, current: Subscription
) -> None:
    subscriber(network, current)
    bigger = factories.make_plan(guest.merchant, name="Pro", price="79")
    answer = guest.post("switch", plan=bigger.public_id, price="49.0000000000")
    assert answer.status_code == 409 and "The price has changed" in answer.content.decode()
    assert not Payment.objects.filter(purpose="upgrade").exists()


def test_a_declined_upgrade_leaves_the_plan_and_says_so(
    network: CardNetwork, guest: Guest, current: Subscription
) -> None:
    subscriber(network, current, "4000000000000341")
    bigger = factories.make_plan(guest.merchant, name="Pro", price="79")
    answer = guest.post("switch", plan=bigger.public_id, price="79.0000000000")
    assert answer.status_code == 402
    assert "Nothing was charged and your plan is as it was" in answer.content.decode()
    current.refresh_from_db()
    assert current.plan_id != bigger.pk


def test_a_downgrade_waits_for_the_cycles_end(guest: Guest, current: Subscription) -> None:
    smaller = factories.make_plan(guest.merchant, name="Starter", price="9", credit="9")
    page = guest.get("switch", plan=smaller.public_id).content.decode()
    assert "Nothing is charged today" in page
    for _ in range(2):
        answer = guest.post("switch", plan=smaller.public_id, price="9.0000000000")
        assert answer["Location"].endswith("?done=scheduled")
    current.refresh_from_db()
    assert (current.pending_change, current.pending_plan_id) == ("downgrade", smaller.pk)
    assert guest.sees("Starter, $9.00 a month") and guest.sees("Keep Studio")


def test_plans_that_are_not_offered_cannot_be_switched_to(
    guest: Guest, current: Subscription
) -> None:
    foreign = factories.make_plan(factories.make_merchant(), price="1")
    gone = factories.make_plan(guest.merchant, name="Gone", price="1")
    gone.archived_at = guest.merchant.now()
    gone.save()
    for plan in (foreign, gone):
        answer = guest.post("switch", plan=plan.public_id, price="1.0000000000")
        assert answer.status_code == 404
    assert guest.post("switch", plan="sc_x", price="1").status_code == 404
    current.refresh_from_db()
    assert current.pending_change is None


# --- Credits and cards ---------------------------------------------------------------------------


def test_adding_credits_opens_a_checkout_that_knows_the_customer(
    network: CardNetwork, guest: Guest, current: Subscription
) -> None:
    answer = guest.post("credits")
    assert answer.status_code == 303 and answer["Location"].startswith("/checkout/css_")
    session = CheckoutSession.objects.get()
    assert (session.mode, session.state, session.phone) == ("topup", "verified", PHONE)
    assert session.connection_id == current.connection_id
    assert "Pack 10" in guest.client.get(answer["Location"]).content.decode()


def test_replacing_the_card_opens_a_checkout_that_saves_one(
    network: CardNetwork, guest: Guest
) -> None:
    answer = guest.post("card")
    session = CheckoutSession.objects.get()
    assert (session.mode, session.state) == ("onboarding", "verified")
    assert "Nothing is charged today" in guest.client.get(answer["Location"]).content.decode()


def test_auto_top_up_needs_a_card_a_pack_and_a_limit(guest: Guest, current: Subscription) -> None:
    bundle = current.plan.live_bundles.get()
    assert guest.sees("Save a card first", "top-up")
    answer = guest.post("top-up", bundle=bundle.public_id, cap="30")
    assert answer.status_code == 409 and "Save a card first" in answer.content.decode()
    factories.make_card(current.connection)
    for cap, said in (
        ("", "Enter a limit."),
        ("5", "One pack costs $10.00"),
        ("nan", "Enter an amount such as 30.00."),
        ("-1", "Enter an amount such as 30.00."),
    ):
        answer = guest.post("top-up", bundle=bundle.public_id, cap=cap)
        assert answer.status_code == 422 and said in answer.content.decode(), cap
    foreign = factories.make_bundle(factories.make_plan(guest.merchant, name="Else"))
    assert guest.post("top-up", bundle=foreign.public_id, cap="30").status_code == 404
    current.refresh_from_db()
    assert current.auto_top_up_bundle_id is None


def test_auto_top_up_on_and_off_each_twice(guest: Guest, current: Subscription) -> None:
    factories.make_card(current.connection)
    bundle = current.plan.live_bundles.get()
    assert guest.sees("By switching it on you let", "top-up")
    for _ in range(2):
        answer = guest.post("top-up", bundle=bundle.public_id, cap="30.00")
        assert answer["Location"].endswith("?done=top-up-on")
    current.refresh_from_db()
    assert current.auto_top_up_bundle == bundle
    assert current.top_up_monthly_cap == Decimal(30)
    assert guest.sees("When credits run out, buy Pack 10 for $10.00.")
    assert guest.sees("It stops at $30.00 a month")
    for _ in range(2):
        assert guest.post("top-up", off="yes")["Location"].endswith("?done=top-up-off")
    current.refresh_from_db()
    assert current.auto_top_up_bundle_id is None


def test_changing_the_limit_keeps_the_threshold(guest: Guest, current: Subscription) -> None:
    factories.make_card(current.connection)
    bundle = current.plan.live_bundles.get()
    topups.configure(current, bundle=bundle, threshold=Decimal(2), now=guest.merchant.now())
    guest.post("top-up", bundle=bundle.public_id, cap="40")
    current.refresh_from_db()
    assert (current.top_up_threshold, current.top_up_monthly_cap) == (Decimal(2), Decimal(40))
    assert guest.sees("Below $2.00 of credits, buy Pack 10")


def test_a_paused_customer_looks_and_changes_nothing(guest: Guest, current: Subscription) -> None:
    Connection.objects.filter(pk=current.connection_id).update(status="disabled")
    assert guest.sees("Billing is paused") and not guest.sees("Cancel plan")
    bigger = factories.make_plan(guest.merchant, name="Pro", price="79")
    assert guest.post("switch", plan=bigger.public_id, price="79.0000000000").status_code == 409
    assert not Payment.objects.exists()


def test_the_browser_is_told_only_what_was_done(guest: Guest) -> None:
    answer = guest.get(done="<script>alert(1)</script>").content.decode()
    assert "alert(1)" not in answer


def test_money_of_the_plan_is_in_the_merchants_currency() -> None:
    merchant = factories.make_merchant(currency="JPY")
    now = merchant.now()
    plan = factories.make_plan(merchant, price="2500", credit="2500")
    assert plan.price == Money(2500, "JPY")
    connection = factories.make_connection(merchant, phone=PHONE, now=now)
    factories.make_subscription(plan, connection=connection, now=now)
    guest = Guest(merchant)
    guest.sign_in()
    assert guest.sees("\u00a52,500")
