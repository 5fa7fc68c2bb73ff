"""A customer at the hosted pages, without a browser: reads forms, posts them, confirms cards."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from typing import Any

from django.test import Client

from billing.models import Merchant, OutboxMessage
from checkout import sessions
from checkout.models import CheckoutSession

CARD = "4242424242424242"
DECLINED = "4000000000000002"
PHONE = "+14155550142"


def make_session(merchant: Merchant, **fields: Any) -> CheckoutSession:
    """A subscription checkout of the merchant; `fields` say otherwise."""
    values: dict[str, Any] = {
        "mode": "subscription",
        "origin_url": "https://app.example.com",
        "now": merchant.now(),
    }
    return sessions.create(merchant, **(values | fields))


def last_code(merchant: Merchant, phone: str = PHONE) -> str:
    """The code of the newest text to a phone."""
    message = OutboxMessage.objects.of(merchant).filter(to=phone).order_by("-id").first()
    assert message is not None
    return re.match(r"\d{6}", message.body).group()  # type: ignore[union-attr]


def another(code: str) -> str:
    """A code that is not this one."""
    return f"{(int(code) + 1) % 10**6:06d}"


class Visitor:
    """One browser on one session's page."""

    def __init__(
        self, session: CheckoutSession, *, embedded: bool = False, address: str = "203.0.113.9"
    ) -> None:
        self.session = session
        self.client = Client(REMOTE_ADDR=address, enforce_csrf_checks=True)
        self.seen = ""
        self.base = f"{'/embed' if embedded else ''}/checkout/{session.secret}"

    def get(self) -> Any:
        return self.client.get(self.base)

    @property
    def nonce(self) -> str:
        """Of the page as it stands now; a page without a form has the last one's."""
        found = re.search(r'name="nonce" value="([^"]+)"', self.get().content.decode())
        self.seen = found.group(1) if found else self.seen
        return self.seen

    def post(
        self, step: str, *, nonce: str | None = None, follow: bool = False, **data: str
    ) -> Any:
        body = {"nonce": self.nonce if nonce is None else nonce} | data
        return self.client.post(f"{self.base}/{step}", body, follow=follow)

    def send(self, phone: str = PHONE) -> Any:
        return self.post("phone", country="US", phone=phone)

    def confirm_phone(self, phone: str = PHONE) -> None:
        self.send(phone)
        answer = self.post("code", code=last_code(self.session.merchant, phone))
        assert answer.status_code == 303, answer.content.decode()
        self.session.refresh_from_db()

    def press_pay(self, *, nonce: str | None = None, **fields: Any) -> Any:
        body = {
            "nonce": self.nonce if nonce is None else nonce,
            "name": "Mara Lindqvist",
            "email": "mara@tallgrass.example",
            "card": "new",
        } | fields
        return self.client.post(
            f"{self.base}/pay", json.dumps(body), content_type="application/json"
        )

    def complete(self, *, nonce: str | None = None, accept: str = "application/json") -> Any:
        body = {"nonce": self.seen if nonce is None else nonce}
        return self.client.post(f"{self.base}/complete", body, headers={"Accept": accept})

    def pay(self, url: str, card: str = CARD) -> Any:
        """Press, confirm at the network as the page's script does, and report back."""
        intent = self.press_pay().json()
        confirm_card(url, intent["client_secret"], card)
        return self.complete()


def confirm_card(url: str, client_secret: str, card: str = CARD) -> dict[str, Any]:
    """What stripe.confirmCardPayment and confirmCardSetup do, with the publishable key."""
    intent = client_secret.partition("_secret_")[0]
    kind = "payment_intents" if intent.startswith("pi_") else "setup_intents"
    params: dict[str, Any] = {"client_secret": client_secret}
    if card.startswith("pm_"):
        params["payment_method"] = card
    else:
        params |= {
            "payment_method_data[type]": "card",
            "payment_method_data[card][number]": card,
            "payment_method_data[card][exp_month]": "8",
            "payment_method_data[card][exp_year]": str(datetime.now().year + 3),
            "payment_method_data[card][cvc]": "123",
        }
    request = urllib.request.Request(
        f"{url}/v1/{kind}/{intent}/confirm",
        data=urllib.parse.urlencode(params).encode(),
        headers={"Authorization": "Bearer pk_test_local"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as refusal:
        return json.load(refusal)  # type: ignore[no-any-return]
