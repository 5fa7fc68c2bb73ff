"""The local card network for stories about money: a process of its own, one a test worker, empty
for each test that asks; and the few steps every story begins with."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections as databases
from django.test import Client, override_settings
from moneyed import Money

from billing import cards, clock, payments
from billing.models import Connection, CreditBundle, Merchant, Payment, Plan
from lava.demo.card_network import events
from lava.demo.card_network.process import CardNetwork
from tests import factories

GOOD = "4242424242424242"
DECLINES = "4000000000000002"
# Can be saved, and declines every charge.
DECLINES_LATER = "4000000000000341"
# 3-D Secure: once, when it is saved; and for every charge.
ASKS_ONCE = "4000002500003155"
ASKS_ALWAYS = "4000002760003184"


@pytest.fixture(scope="session")
def running_card_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CardNetwork]:
    with CardNetwork(tmp_path_factory.mktemp("network") / "network.sqlite") as network:
        yield network


def _settings(network: CardNetwork) -> dict[str, Any]:
    return {
        "STRIPE_API_BASE": network.url,
        "STRIPE_JS_URL": f"{network.url}/v3/",
        "STRIPE_KEYS": {
            "live": ("sk_live_local", "pk_live_local"),
            "test": ("sk_test_local", "pk_test_local"),
        },
        "STRIPE_WEBHOOK_SECRETS": ["whsec_live_local", "whsec_test_local"],
    }


@pytest.fixture
def card_network(running_card_network: CardNetwork, settings: Any) -> CardNetwork:
    for name, value in _settings(running_card_network).items():
        setattr(settings, name, value)
    running_card_network.control("reset", {})
    return running_card_network


@contextmanager
def reached(network: CardNetwork) -> Iterator[None]:
    """The same for what stands longer than one test."""
    with override_settings(**_settings(network)):
        network.control("reset", {})
        yield


def fault(network: CardNetwork, action: str, **order: Any) -> None:
    """Arm a fault for the next call that makes a payment intent."""
    values: dict[str, Any] = {"method": "POST", "path": "/v1/payment_intents"}
    network.control("faults", {"action": action, **(values | order)})


def taken(merchant: Merchant) -> list[tuple[str, int, str]]:
    """What the network took for a merchant's books: (our payment, minor units, currency)."""
    return sorted(
        (row["metadata"]["lava_payment"], row["amount"], row["currency"].upper())
        for row in all_at_network(merchant, "payment_intents")
        if row["status"] == "succeeded"
    )


def ours(merchant: Merchant) -> list[tuple[str, int, str]]:
    """What our books say the network took, in the same shape."""
    from billing import money

    return sorted(
        (row.public_id, money.to_minor(row.amount), str(row.amount.currency))
        for row in Payment.objects.of(merchant).filter(status=Payment.Status.SUCCEEDED)
    )


def given_back(merchant: Merchant) -> list[tuple[str, int, str]]:
    """What the network gave back of a merchant's payments: (intent, minor units, currency)."""
    return sorted(
        (row["payment_intent"], row["amount"], row["currency"].upper())
        for row in all_at_network(merchant, "refunds")
        if row["status"] == "succeeded"
    )


def all_at_network(merchant: Merchant, kind: str) -> Iterator[dict[str, Any]]:
    """Every object of a kind in the merchant's mode, newest first."""
    after: dict[str, str] = {}
    while rows := at_network(merchant, kind, **after):
        yield from rows
        after = {"starting_after": rows[-1]["id"]}


def at_network(merchant: Merchant, kind: str, **query: str) -> list[dict[str, Any]]:
    """The network's newest hundred objects of a kind in the merchant's mode."""
    import httpx
    from django.conf import settings

    mode = "test" if merchant.is_sandbox else "live"
    answer = httpx.get(
        f"{settings.STRIPE_API_BASE}/v1/{kind}",
        params={"limit": "100"} | query,
        headers={"Authorization": f"Bearer {settings.STRIPE_KEYS[mode][0]}"},
    )
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


def post(merchant: Merchant, path: str, **form: str) -> dict[str, Any]:
    """What somebody does in the network's dashboard."""
    import httpx
    from django.conf import settings

    mode = "test" if merchant.is_sandbox else "live"
    answer = httpx.post(
        f"{settings.STRIPE_API_BASE}/v1/{path}",
        data=form,
        headers={"Authorization": f"Bearer {settings.STRIPE_KEYS[mode][0]}"},
    )
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def signed(
    kind: str,
    subject: dict[str, Any],
    *,
    secret: str = "whsec_test_local",
    at: float | None = None,
    live: bool = False,
    name: str = "",
    **more: Any,
) -> tuple[bytes, str]:
    """An event as the network sends it: body and signature."""
    moment = time.time() if at is None else at
    event = {
        "id": name or f"evt_{subject['id']}_{kind}",
        "object": "event",
        "type": kind,
        "livemode": live,
        "data": {"object": subject},
    }
    body = json.dumps(event | more, indent=2).encode()
    return body, events.signature(body, secret, at=int(moment))


def deliver(body: bytes, signature: str, *, to: str = "/webhooks/stripe") -> int:
    """Post an event to us; the status we answer."""
    answer = Client().post(
        to, data=body, content_type="application/json", headers={"Stripe-Signature": signature}
    )
    return answer.status_code


def deliver_all(network: CardNetwork, *kinds: str, merchant: Merchant) -> int:
    """Deliver what the network has to say, oldest first, of the kinds named; how many."""
    rows = [row for row in at_network(merchant, "events") if not kinds or row["type"] in kinds]
    for row in reversed(rows):
        body, signature = signed(row["type"], row["data"]["object"], name=row["id"])
        assert deliver(body, signature) == 200
    return len(rows)


def subscribe(
    plan: Plan,
    *,
    now: datetime,
    card: str = GOOD,
    connection: Connection | None = None,
    key: str = "",
) -> Connection:
    """A first subscription, paid with a test card through the whole way of a payment."""
    connection = connection or factories.make_connection(plan.merchant, now=now)
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.SUBSCRIPTION,
        amount=plan.price,
        plan=plan,
        key=key or f"checkout:{connection.public_id}:{now.timestamp()}",
        now=now,
    )
    payments.present(payment, now=now)
    payment = payments.confirm(payment, card_id=cards.from_test_card(plan.merchant, card), now=now)
    assert payment.status == Payment.Status.SUCCEEDED, payment.failure_message
    connection.refresh_from_db()
    return connection


class Shop:
    """A sandbox merchant with a plan of 25 and a meter at 1 a million tokens."""

    def __init__(self, *, currency: str = "USD", zone: str = "UTC", **plan: Any) -> None:
        self.merchant = factories.make_merchant(currency=currency, zone=zone)
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(self.merchant, **plan)
        self.meter = factories.make_meter(self.merchant, self.plan, tiers=[("0", "1")])

    @property
    def now(self) -> datetime:
        return self.merchant.now()

    def subscribe(self, card: str = GOOD) -> Connection:
        return subscribe(self.plan, now=self.now, card=card)

    def use(self, connection: Connection, name: str, amount: str) -> Any:
        """Usage that costs `amount`, to the sixth decimal."""
        from tests.meters.test_charge import report

        tokens = Decimal(amount) * 1_000_000
        assert tokens == int(tokens)
        return report(self.key, connection, name, input_tokens=int(tokens))

    def renew(self, connection: Connection) -> None:
        """Move the clock to the end of the connection's cycle; what falls due runs."""
        end = connection.subscription.cycle_end
        clock.advance(self.merchant, to=end)


def buy(
    connection: Connection, bundle: CreditBundle, *, now: datetime, quantity: int = 1
) -> Payment:
    """A bundle, bought by the customer at the page with their saved card."""
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.BUNDLE,
        amount=Money(bundle.cost.amount * quantity, connection.currency),
        bundle=bundle,
        quantity=quantity,
        key=f"buy:{connection.public_id}:{now.timestamp()}",
        now=now,
    )
    payments.present(payment, now=now)
    return payments.confirm(payment, card_id=connection.card.card_id, now=now)


def save_card(connection: Connection, number: str, *, now: datetime) -> None:
    """The customer replaces their saved card."""
    intent = cards.begin_setup(connection, key=f"{number}:{now.timestamp()}")
    card_id = cards.from_test_card(connection.merchant, number)
    cards.confirm_setup(connection, setup_intent_id=intent.id, card_id=card_id)
    cards.finish_setup(connection, setup_intent_id=intent.id, now=now)


def behave_as(network: CardNetwork, connection: Connection, number: str) -> None:
    """From now on the saved card behaves as another test card."""
    network.control("cards", {"payment_method": connection.card.card_id, "behave_as": number})


def at_once(count: int, act: Callable[[], Any]) -> list[Any]:
    """Run `act` in so many threads at the same time; gives what each gave or raised."""
    barrier = threading.Barrier(count)
    answers: list[Any] = []

    def run() -> None:
        try:
            barrier.wait()
            answers.append(act())
        except Exception as error:
            answers.append(error)
        finally:
            databases.close_all()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
