"""A merchant in a running product, from outside: its backend, customers by the test helpers, what
the card network took, and whether everything has come to rest."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from tests.product import Backend, Product

MAKE = """
import json
from tests import factories
merchant = factories.make_merchant()
plan = factories.make_plan(merchant, overage_threshold={threshold!r})
bundle = factories.make_bundle(plan)
factories.make_meter(merchant, plan)
print(json.dumps({{"key": factories.make_key(merchant), "plan": plan.public_id,
                   "bundle": bundle.public_id}}))
"""

# What is still under way, and what is not as it should be.
STATE = """
import json
from billing.models import Delivery, Event, Payment, Refund, StripeEvent
from billing import sweep
from django.utils import timezone
from meters.models import GatewayCall
print(json.dumps({
    "calls": GatewayCall.objects.filter(status="pending").count(),
    "payments": Payment.objects.filter(off_session=True, status__in=Payment.OPEN).count(),
    "refunds": Refund.objects.filter(status__in=Refund.OPEN).count(),
    "deliveries": Delivery.objects.filter(state="pending", endpoint__deleted_at=None).count(),
    "untold": Event.objects.filter(is_told=False).count(),
    "unhandled": StripeEvent.objects.filter(handled_at=None).count(),
    "renewals": len(sweep.renewals_due(timezone.now())) + sweep.free_renewals_due(timezone.now()),
    "overage": len(sweep.overage_due(timezone.now())),
}))
"""

# A renewal's charge that never reached the network, of a cycle that is over by now (the storm's
# months last seconds), is not made again: it waits until the network has forgotten its key, a day
# of real time, and ends as one that never arrived. This plays the day, for these alone.
DAY = """
import json
from datetime import timedelta
from unittest import mock
from billing import payments
from billing.models import Payment
ended = 0
with mock.patch.object(payments, "KEY_MEMORY", timedelta(0)):
    for payment in Payment.objects.filter(off_session=True, status__in=Payment.OPEN):
        now = payment.merchant.now()
        if not payments.is_wanted(payment, now=now):
            ended += payments.refresh(payment, now=now).status == Payment.Status.FAILED
print(json.dumps(ended))
"""

CHARGED = """
import json
from meters.models import UsageRequest
print(json.dumps([(row.request_id, str(row.fee)) for row in UsageRequest.objects.all()]))
"""


# After so long what can be answered has been: workers ask each half minute.
A_DAY_AFTER_S = 75


class Shop:
    """A merchant with a plan of 25 (25 of credit, overage, a bundle of 10) and its own backend."""

    def __init__(self, product: Product, *, threshold: str = "10") -> None:
        facts = asked(product, MAKE.format(threshold=threshold))
        self.product = product
        self.backend = Backend(product, facts["key"])
        self.plan: str = facts["plan"]
        self.bundle: str = facts["bundle"]

    def subscribe(self, phone: str, card: str = "4242424242424242") -> str:
        """A new customer of the plan; their connection's id."""
        session = self.post(
            "checkout_sessions",
            checkout_mode="subscription",
            origin_url="https://app.example",
            subscription_config_id=self.plan,
        )
        path = f"checkout_sessions/{session['checkout_session_id']}"
        while not session.get("connection_id"):
            try:
                session = self.backend.post(f"test_helpers/{path}/complete", phone=phone, card=card)
            except (httpx.HTTPError, AssertionError):
                # Its process died; whether it had come to an end, the session says.
                time.sleep(0.2)
                session = acknowledged(self.product, self.backend.key, path)
        connection: str = session["connection_id"]
        return connection

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        return acknowledged(self.product, self.backend.key, path, body)

    def use(self, connection: str, request_id: str, tokens: int) -> dict[str, Any]:
        """Post usage as backends do: again and again until it is acknowledged."""
        body = {
            "request_id": request_id,
            "connection_id": connection,
            "meter_slug": "chat",
            "input_tokens": tokens,
        }
        return acknowledged(self.product, self.backend.key, "requests", body)


def acknowledged(
    product: Product, key: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Post, or get, until it is answered; only what a fault may answer is tried again."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.request(
                "GET" if body is None else "POST",
                f"{product.url}/v1/{path}",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
                timeout=10,
            )
        except httpx.HTTPError:
            time.sleep(0.05)
            continue
        if answer.is_success:
            told: dict[str, Any] = answer.json()
            return told
        assert answer.status_code in (429, 500, 503), answer.text
        assert answer.json()["error"]["code"], answer.text
        time.sleep(0.05)
    raise AssertionError("never acknowledged\n" + product.output())


def asked(product: Product, code: str) -> Any:
    """Run code in the product's own shell; what it prints last, as JSON. Tried again while the
    database is away."""
    for _ in range(20):
        done = product.manage("shell", "-v", "0", "-c", code)
        if done.returncode == 0:
            return json.loads(done.stdout.strip().splitlines()[-1])
        time.sleep(1)
    raise AssertionError(done.stderr)


def taken(product: Product) -> list[dict[str, Any]]:
    """Every charge that the card network made, newest first."""
    found: list[dict[str, Any]] = []
    query = {"limit": "100"}
    while True:
        page = httpx.get(
            f"{product.facts['card_network']['url']}/v1/payment_intents",
            params=query,
            headers={"Authorization": "Bearer sk_test_local"},
        ).json()
        found += page["data"]
        if not page["has_more"]:
            return [row for row in found if row["status"] == "succeeded"]
        query["starting_after"] = page["data"][-1]["id"]


def rest(product: Product, *, within_s: float = 180) -> None:
    """Wait until nothing is under way any more."""
    deadline = time.monotonic() + within_s
    a_day_later = time.monotonic() + A_DAY_AFTER_S
    while any((left := asked(product, STATE)).values()):
        assert time.monotonic() < deadline, f"{left}\n{product.output()}"
        if time.monotonic() > a_day_later and {name for name, count in left.items() if count} == {
            "payments"
        }:
            asked(product, DAY)
        time.sleep(1)


def quarrels(product: Product) -> str:
    """What the audit and the card network find wrong; empty when all is well."""
    return "".join(
        found.stdout + found.stderr
        for found in (product.manage("audit"), product.manage("reconcile"))
        if found.returncode or found.stdout
    )
