"""Secrets: known by their own text, sent through every door of the product, then looked for in all
that it keeps, says or passes on. None may be found; each place is shown to be looked at."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyotp
import pytest
from celery.signals import before_task_publish
from django.conf import settings as django_settings
from django.core import mail
from django.db import connection as database
from django.test import Client
from django.utils import timezone

from billing import accounts, deliveries, events, outbox, tasks
from billing.models import Merchant, OutboxMessage
from lava.demo.card_network.process import CardNetwork
from lava.operations import logs
from meters.gateway import keyring
from tests import factories
from tests.checkout.visitor import PHONE, Visitor, last_code, make_session
from tests.meters.gateway.direct import OUR, Direct
from tests.meters.gateway.upstream_server import Script, Upstream
from tests.receiver import Receiver

# Entered by a merchant; all others are made by the product.
PROVIDER_KEY = "sk-proj-CanaryProvider0123456789abcdef"
STRIPE_KEY = "sk_test_51CanaryStripe0123456789abcdef"
STRIPE_HOOK = "whsec_CanaryStripeHook0123456789abcdef"
PASSWORD = "canary battery staple 0123456789"
PLACES = ("log, JSON", "log, console", "database", "tasks", "mails", "refusals", "metrics",
          "upstream", "webhooks")  # fmt: skip


@dataclass
class Found:
    """What there is to look through, and what is looked for: by kind, with where it belongs."""

    texts: dict[str, str] = field(default_factory=lambda: dict.fromkeys(PLACES, ""))
    secrets: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)

    def keep(self, kind: str, secret: str, *, belongs: frozenset[str] = frozenset()) -> str:
        assert len(secret) >= 6 and kind not in self.secrets
        self.secrets[kind] = (secret, belongs)
        return secret

    def look(self) -> set[tuple[str, str]]:
        """Each kind of secret that is where it should not be."""
        return {
            (kind, place)
            for place, text in self.texts.items()
            for lowered in [text.lower()]
            for kind, (secret, belongs) in self.secrets.items()
            if place not in belongs and stands_in(secret, lowered)
        }

    def refused(self, answer: Any, *statuses: int) -> None:
        assert answer.status_code in statuses, (answer.status_code, answer.content[:500])
        self.texts["refusals"] += f"{answer.content.decode()}\n{dict(answer.items())}\n"


def stands_in(secret: str, lowered: str) -> bool:
    """Whether a text has a secret: as it is, in hex as a dump writes bytes, or in base64."""
    if secret.isdecimal():
        # So short that it stands in other numbers too.
        return re.search(rf"(?<![\w.]){secret}(?!\w)", lowered) is not None
    coded = (secret.encode().hex(), base64.b64encode(secret.encode()).decode().rstrip("="))
    return any(form.lower() in lowered for form in (secret, *coded))


@contextmanager
def listening(found: Found) -> Iterator[None]:
    """Keep every line of the log in both forms, from INFO on, and every message to a worker."""
    root, outs, handlers = logging.getLogger(), [], []
    for place, production in (("log, JSON", True), ("log, console", False)):
        out = io.StringIO()
        handler = logging.StreamHandler(out)
        handler.setFormatter(logs.Formatter(production=production))
        root.addHandler(handler)
        outs.append((place, out))
        handlers.append(handler)

    def published(headers: Any = None, body: Any = None, **_: Any) -> None:
        found.texts["tasks"] += f"{headers} {body}\n"

    level = root.level
    root.setLevel(logging.INFO)
    before_task_publish.connect(published)
    try:
        yield
    finally:
        before_task_publish.disconnect(published)
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
        for place, out in outs:
            found.texts[place] += out.getvalue()


def dump() -> str:
    """Every column of every row of every table, as PostgreSQL writes them."""
    told = []
    with database.cursor() as cursor:
        for table in database.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            told += [row for (row,) in cursor.fetchall()]
    return "\n".join(told)


def test_no_secret_is_kept_said_or_passed_on_in_clear(
    card_network: CardNetwork, transactional_db: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found, upstream = Found(), Upstream()
    try:
        with listening(found):
            direct = Direct(upstream, sandbox=True)
            backend(found, direct)
            gateway(found, direct)
            cards(found, direct.merchant)
            checkout(found, card_network, monkeypatch)
            console(found)
            failure(found, direct, monkeypatch)
            planted(found)
    finally:
        upstream.close()
    found.texts["database"] = dump()
    found.texts["mails"] = "\n".join(str(message.message()) for message in mail.outbox)
    found.texts["metrics"] = Client().get("/metrics").content.decode()
    # Each place has something to look at, and each kind of secret was there to be found.
    assert all(found.texts.values()), [name for name, text in found.texts.items() if not text]
    assert len(found.secrets) == 14
    control = {("control", "log, JSON"), ("control", "log, console"), ("control", "tasks")}
    assert found.look() == control, found.look() ^ control
    for place in PLACES:
        for kind, (secret, belongs) in found.secrets.items():
            for form in (secret, secret.encode().hex()) if len(secret) > 6 else (secret,):
                planted_there = Found({place: f'({form},"x")'}, found.secrets)
                assert place in belongs or (kind, place) in planted_there.look()


def backend(found: Found, direct: Direct) -> None:
    """A merchant's server: keys, tokens and webhooks made by the API, and then refused."""
    key = found.keep("secret key", direct.key)
    client = Client(headers={"Authorization": f"Bearer {key}"})

    def made(path: str, **body: Any) -> dict[str, Any]:
        answer = client.post(f"/v1/{path}", body, content_type="application/json")
        assert answer.status_code in (200, 201), answer.content
        told: dict[str, Any] = answer.json()
        return told

    found.keep("second key", texts(made("secret_keys", name="two"), "aks_"))
    found.keep("forward token", texts(made("forward_tokens", name="bot"), "lft_"))
    receiver = Receiver()
    try:
        hook = made("webhooks", name="x", url=receiver.url)
        found.keep("webhook secret", texts(hook, "whsec_"))
        usage = {"request_id": "one", "meter_slug": "chat", "input_tokens": 9}
        made("requests", **usage, connection_id=direct.connection.public_id)
        events.record(direct.merchant, "payment.succeeded", now=direct.merchant.now())
        for row in deliveries.tell(direct.merchant.pk, now=timezone.now()) or []:
            deliveries.deliver(row)
        found.texts["webhooks"] = str(receiver.received)
        assert receiver.received
    finally:
        receiver.close()
    for path, body in (("requests", "{"), ("requests", '{"request_id": 1}'), ("nothing", "{}")):
        answer = client.post(f"/v1/{path}", body, content_type="application/json")
        found.refused(answer, 400, 404)
    for query in (f"api_key={key}", f"key={key}", f"secret={hook['webhook_id']}"):
        found.refused(Client().get(f"/v1/requests?{query}"), 400, 401)
    wrong = {"Authorization": f"Bearer {key[:-1]}"}
    found.refused(Client().get("/v1/requests", headers=wrong), 401)


def texts(told: Any, start: str) -> str:
    """The text in an answer that begins so, whole and not as it is shown later."""
    found = [str(value) for value in told.values() if str(value).startswith(start)]
    assert found, told
    return max(found, key=len)


def gateway(found: Found, direct: Direct) -> None:
    """A provider that says its key and all it was sent wherever it can."""
    found.keep("provider key", PROVIDER_KEY, belongs=frozenset(["upstream"]))
    found.keep("caller's token", direct.token)
    keyring.set_key(direct.merchant, provider="replay", key=PROVIDER_KEY, actor="x",
                    now=timezone.now())  # fmt: skip
    echo = json.dumps({
        "model": PROVIDER_KEY, "id": PROVIDER_KEY, "error": {"message": f"no {PROVIDER_KEY}"},
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "x": PROVIDER_KEY},
    }).encode()  # fmt: skip
    head = [f"X-Key: {PROVIDER_KEY}"]
    packed = [*head, "Content-Encoding: gzip"]
    told = json.dumps({"provider_key": PROVIDER_KEY, "secret_key": direct.key}).encode()
    bare = base64.b64encode(told).decode()
    for script in (
        Script([echo], headers=head),
        Script([echo], status="401 Unauthorized", headers=head),
        Script([b"data: " + echo + b"\n\n"], "text/event-stream", headers=head),
        Script([gzip.compress(echo)], headers=packed),
        Script([gzip.compress(b"data: " + echo + b"\n\n")], "text/event-stream", headers=packed),
        Script([], raw=b"HTTP/1.1 200 OK\r\nX: " + PROVIDER_KEY.encode() * 9999, breaks=True),
    ):
        for token in (direct.token, direct.key, bare):
            upstream = direct.upstream
            upstream.answers(script)
            answer = direct.ask(headers={
                "authorization": f"Bearer {token}", "cookie": f"a={direct.key}",
                "x-lava-metadata-a": "b", "x-api-key": token,
            })  # fmt: skip
            found.texts["upstream"] += b"\n".join(upstream.requests).decode()
            found.texts["refusals"] += f"{answer.body!r} {answer.headers}\n"
            for line in answer.pieces if "content-encoding" in answer.headers else ():
                found.texts["refusals"] += repr(line)
    for path in (OUR.replace("replay", "gone"), f"/v1/forward?key={direct.key}&u=x"):
        answer = direct.ask(path=path)
        found.texts["refusals"] += f"{answer.body!r} {answer.headers}\n"
    assert PROVIDER_KEY in found.texts["upstream"]


def cards(found: Found, merchant: Merchant) -> None:
    """A merchant's own keys at the card network, used for a customer's card and declined."""
    accounts.set_keys(
        merchant, secret_key=found.keep("Stripe key", STRIPE_KEY),
        publishable_key="pk_test_51Canary", actor="Ana Ruiz",
        webhook_secret=found.keep("Stripe webhook secret", STRIPE_HOOK),
    )  # fmt: skip
    plan = factories.make_plan(merchant)
    client = Client(headers={"Authorization": f"Bearer {factories.make_key(merchant)}"})
    session = make_session(merchant, plan=plan)
    path = f"/v1/test_helpers/checkout_sessions/{session.public_id}/complete"
    for card, statuses in (("4000000000000002", (402,)), ("4242424242424242", (200,))):
        body = {"phone": "+14155550177", "card": card}
        answer = client.post(path, body, content_type="application/json")
        found.refused(answer, *statuses)
    hook = f"/webhooks/stripe/{merchant.public_id}"
    found.refused(Client().post(hook, b"{}", content_type="application/json"), 400)


def checkout(found: Found, card_network: CardNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customer of live books: a code by a sender that reaches a phone, a card, a wrong page."""
    monkeypatch.setattr(django_settings, "PHONE_SENDER", f"{__name__}.Sender")
    merchant = factories.make_merchant(sandbox=False)
    session = make_session(merchant, plan=factories.make_plan(merchant))
    # A page's address holds its secret, and its forms lead there.
    found.keep("checkout secret", session.secret, belongs=frozenset(["refusals"]))
    visitor = Visitor(session)
    visitor.send()
    code = found.keep("phone code", last_code(merchant))
    (message,) = OutboxMessage.objects.of(merchant).filter(to=PHONE)
    assert outbox.deliver(message.pk) and code in Sender.sent[-1]
    found.refused(visitor.post("code", code="000000" if code != "000000" else "000001"), 422)
    assert visitor.post("code", code=code).status_code == 303
    session.refresh_from_db()
    assert visitor.pay(card_network.url).status_code == 200


class Sender:
    """Hands a text to a phone."""

    sent: list[str] = []

    def send(self, *, to: str, body: str) -> None:
        self.sent.append(body)


def console(found: Found) -> None:
    """A person: signs in, wrongly too, turns two-step sign-in on, asks for a new password."""
    user = factories.make_user(password=found.keep("password", PASSWORD))
    factories.make_organization("Canary", owner=user)
    browser = Client(raise_request_exception=False)
    told = {"username": user.email, "password": PASSWORD}
    found.refused(browser.post("/console/login/", told | {"password": PASSWORD + "!"}), 200, 422)
    answer = browser.post("/console/login/", told)
    assert answer.status_code in (302, 303), answer.content[:2000]
    browser.post("/console/account/two-step")
    page = browser.get("/console/account/two-step").content.decode()
    shown = re.search(r"((?:[A-Z2-7]{4} ){7}[A-Z2-7]{4})", page)
    assert shown is not None, page
    seed = found.keep("TOTP seed", shown[1].replace(" ", ""))
    found.refused(browser.post("/console/account/two-step", {"code": "000000"}), 422)
    done = browser.post("/console/account/two-step", {"code": pyotp.TOTP(seed).now()})
    assert done.status_code == 200
    found.keep("session cookie", browser.cookies["sessionid"].value)
    found.refused(browser.get("/console/nothing-here"), 404)
    mail.EmailMessage("Hello", "Nothing", to=[user.email]).send()


def failure(found: Found, direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of our own whose words hold what was sent."""
    from billing import connections

    def breaks(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{direct.key} {PROVIDER_KEY} {STRIPE_KEY} {STRIPE_HOOK}")

    with monkeypatch.context() as patch:
        patch.setattr(connections, "identify", breaks)
        client = Client(raise_request_exception=False)
        answer = client.post(
            "/v1/connections", {"phone": "+14155550199"}, content_type="application/json",
            headers={"Authorization": f"Bearer {direct.key}"},
        )  # fmt: skip
    found.texts["refusals"] += answer.content.decode()


def planted(found: Found) -> None:
    """The control: a secret of no known shape that is logged and sent to a worker is found."""
    control = found.keep("control", "canary control 0123456789")
    logging.getLogger("tests.canaries").warning("it is %s", control)
    tasks.deliver_message.apply_async((control,))
