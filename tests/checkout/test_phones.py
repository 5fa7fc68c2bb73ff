from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from billing import errors
from billing.models import Connection, Customer, OutboxMessage
from checkout import phones, sessions
from checkout.models import CheckoutSession, PhoneVerification
from tests import factories
from tests.checkout.visitor import PHONE, another, last_code, make_session

pytestmark = pytest.mark.django_db
ADDRESS = "203.0.113.9"


@pytest.fixture
def session() -> CheckoutSession:
    merchant = factories.make_merchant()
    return make_session(merchant, plan=factories.make_plan(merchant))


def send(session: CheckoutSession, *, after_s: int = 0, **fields: Any) -> CheckoutSession:
    session.refresh_from_db()
    values = {"phone": PHONE, "address": ADDRESS, "nonce": session.nonce}
    return sessions.send_code(
        session, now=session.created_at + timedelta(seconds=after_s), **(values | fields)
    )


def verify(session: CheckoutSession, code: str, *, after_s: int = 1) -> CheckoutSession:
    session.refresh_from_db()
    now = session.created_at + timedelta(seconds=after_s)
    return sessions.verify_code(session, code=code, nonce=session.nonce, now=now)


def refused(session: CheckoutSession, code: str, *, after_s: int = 1) -> str:
    with pytest.raises(errors.Refused) as refusal:
        verify(session, code, after_s=after_s)
    return refusal.value.code


def test_the_code_is_texted_and_only_its_mac_is_stored(session: CheckoutSession) -> None:
    send(session)
    code = last_code(session.merchant)
    row = PhoneVerification.objects.get()
    assert len(code) == 6
    assert len(bytes(row.code_hash)) == 32
    assert code not in str(PhoneVerification.objects.values().get())


def test_the_right_code_confirms_the_phone_once(session: CheckoutSession) -> None:
    send(session)
    code = last_code(session.merchant)
    verify(session, code)
    session.refresh_from_db()
    assert session.state == "verified"
    assert session.connection.customer.phone == PHONE
    assert session.connection.status == Connection.Status.PENDING
    CheckoutSession.objects.filter(pk=session.pk).update(state="phone_sent")
    assert refused(session, code) == "code_expired"


def test_five_wrong_tries_burn_the_code(session: CheckoutSession) -> None:
    send(session)
    code = last_code(session.merchant)
    assert [refused(session, another(code)) for _ in range(5)] == ["wrong_code"] * 5
    assert refused(session, code) == "code_burnt"


def test_a_code_is_good_for_ten_minutes(session: CheckoutSession) -> None:
    send(session)
    assert refused(session, last_code(session.merchant), after_s=600) == "code_expired"
    verify(session, last_code(session.merchant), after_s=599)


def test_a_new_code_ends_the_old_one(session: CheckoutSession) -> None:
    send(session)
    old = last_code(session.merchant)
    send(session, after_s=30)
    new = last_code(session.merchant)
    if old != new:
        assert refused(session, old, after_s=31) == "wrong_code"
    verify(session, new, after_s=31)


def test_a_code_is_bound_to_its_session_and_phone(session: CheckoutSession) -> None:
    other = make_session(session.merchant, plan=session.plan, now=session.created_at)
    send(session)
    code = last_code(session.merchant)
    send(other, phone="+14155550199")
    if last_code(session.merchant, "+14155550199") != code:
        assert refused(other, code) == "wrong_code"
    send(session, phone="+14155550198", after_s=30)
    CheckoutSession.objects.filter(pk=session.pk).update(phone=PHONE)
    assert refused(session, code, after_s=31) == "code_expired"


def test_a_second_code_waits_thirty_seconds(session: CheckoutSession) -> None:
    send(session)
    with pytest.raises(errors.Throttled) as refusal:
        send(session, after_s=29)
    assert refusal.value.retry_after_s == 1
    send(session, after_s=30)


def test_a_phone_gets_five_codes_in_ten_minutes_over_all_sessions(session: CheckoutSession) -> None:
    for number in range(5):
        again = make_session(session.merchant, plan=session.plan, now=session.created_at)
        send(again, after_s=number, address=f"203.0.113.{number}")
    with pytest.raises(errors.Throttled, match="Try again in 10 minutes"):
        send(session, after_s=20, address="203.0.113.77")
    send(session, after_s=601, address="203.0.113.77")


def test_an_address_gets_ten_codes_an_hour(session: CheckoutSession) -> None:
    for number in range(10):
        again = make_session(session.merchant, plan=session.plan, now=session.created_at)
        send(again, phone=f"+141555502{number:02d}", after_s=number)
    with pytest.raises(errors.Throttled):
        send(session, phone="+14155550300", after_s=1800)
    send(session, phone="+14155550300", after_s=3601)


def test_a_refused_code_is_not_texted(session: CheckoutSession) -> None:
    send(session)
    with pytest.raises(errors.Throttled):
        send(session, after_s=1)
    assert OutboxMessage.objects.of(session.merchant).count() == 1


def test_known_and_unknown_numbers_get_the_same_answer(session: CheckoutSession) -> None:
    known = factories.make_connection(session.merchant, phone="+14155550177")
    other = make_session(session.merchant, plan=session.plan, now=session.created_at)
    one, two = send(session, phone=known.customer.phone), send(other, phone="+14155550188")
    assert (one.state, one.connection_id) == (two.state, two.connection_id) == ("phone_sent", None)
    assert Customer.objects.of(session.merchant).count() == 1


def test_a_given_customer_is_texted_at_their_own_number(session: CheckoutSession) -> None:
    known = factories.make_connection(session.merchant, phone="+14155550177")
    theirs = make_session(
        session.merchant, plan=session.plan, connection=known, now=session.created_at
    )
    send(theirs, phone="+19998887777")
    assert OutboxMessage.objects.of(session.merchant).get().to == "+14155550177"


@pytest.fixture
def twilio(settings: Any) -> Iterator[list[tuple[str, str, dict[str, list[str]]]]]:
    calls: list[tuple[str, str, dict[str, list[str]]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            calls.append((self.path, self.headers["Authorization"], parse_qs(body)))
            self.send_response(201 if "AC1" in self.path else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"sid": "SM1"}).encode())

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.TWILIO_API_BASE = f"http://127.0.0.1:{server.server_port}"
    settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKEN = "AC1", "token"
    settings.TWILIO_FROM = "+15005550006"
    yield calls
    server.shutdown()
    server.server_close()


def test_twilio_is_handed_the_text(twilio: list[Any]) -> None:
    phones.TwilioSender().send(to=PHONE, body="407912 is your code")
    path, login, body = twilio[0]
    assert path == "/2010-04-01/Accounts/AC1/Messages.json"
    assert login == "Basic QUMxOnRva2Vu"
    assert body == {"To": [PHONE], "From": ["+15005550006"], "Body": ["407912 is your code"]}


def test_a_text_twilio_did_not_take_is_an_error(twilio: list[Any], settings: Any) -> None:
    settings.TWILIO_ACCOUNT_SID = "AC9"
    with pytest.raises(errors.Unavailable):
        phones.TwilioSender().send(to=PHONE, body="x")
