"""Signed events: verified by the Stripe library, tried again while the receiver is down, told to
misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stripe

from lava.demo.card_network.process import CardNetwork


@dataclass
class Receiver:
    """Takes events in; `statuses` are answered first, then 200."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    received: list[tuple[bytes, str]] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    def start(self) -> Receiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((body, self.headers["Stripe-Signature"]))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/stripe"

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for body, _ in self.received]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver().start()
    yield running
    running.stop()


@pytest.fixture
def network(tmp_path: Path, receiver: Receiver) -> Iterator[CardNetwork]:
    options = ["--webhook-url", receiver.url, "--webhook-secret-test", "whsec_of_the_test_mode"]
    with CardNetwork(tmp_path / "state.sqlite3", options=options) as running:
        yield running


def make_client(network: CardNetwork, key: str = "sk_test_local") -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": network.url}, max_network_retries=0)


def pay(client: stripe.StripeClient, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 2500,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "allowed_payment_method_types": ["card"],
        "confirm": True,
        **more,
    }
    return client.v1.payment_intents.create(params, {"idempotency_key": "the-key"})


def wait_for(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


PAID = ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]


def test_events_are_signed_as_stripe_signs_them(network: CardNetwork, receiver: Receiver) -> None:
    client = make_client(network)
    paid = pay(client)
    wait_for(lambda: len(receiver.received) == 3)

    assert receiver.types() == PAID
    for body, signature in receiver.received:
        event = stripe.Webhook.construct_event(body, signature, "whsec_of_the_test_mode")
        assert event.livemode is False
        assert event.api_version == "2026-10-28.endive"
        assert event.request is not None
        assert event.request.idempotency_key == "the-key"
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, signature, "whsec_live_local")
        with pytest.raises(stripe.SignatureVerificationError):
            compact = json.dumps(json.loads(body))
            stripe.Webhook.construct_event(compact, signature, "whsec_of_the_test_mode")
    told = json.loads(receiver.received[2][0])
    assert told["data"]["object"]["id"] == paid.id
    assert told["data"]["object"]["status"] == "succeeded"
    assert client.v1.events.retrieve(told["id"]).type == "payment_intent.succeeded"


def test_the_live_mode_has_its_own_secret(network: CardNetwork, receiver: Receiver) -> None:
    pay(make_client(network, "sk_live_local"))
    wait_for(lambda: len(receiver.received) == 3)
    body, signature = receiver.received[0]
    assert stripe.Webhook.construct_event(body, signature, "whsec_live_local").livemode is True


def test_each_turn_of_a_payment_is_told(network: CardNetwork, receiver: Receiver) -> None:
    client = make_client(network)
    customer = client.v1.customers.create({}).id
    with pytest.raises(stripe.CardError):
        pay(client, customer=customer, payment_method="pm_card_chargeDeclined")
    intent = client.v1.setup_intents.create(
        {
            "customer": customer,
            "payment_method": "pm_card_authenticationRequiredOnSetup",
            "allowed_payment_method_types": ["card"],
            "confirm": True,
        }
    )
    network.control("authenticate", {"intent": intent.id})
    open_intent = client.v1.payment_intents.create({"amount": 2500, "currency": "usd"})
    client.v1.payment_intents.cancel(open_intent.id)
    expected = [
        "customer.created",
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
        "setup_intent.created",
        "setup_intent.requires_action",
        "payment_method.attached",
        "setup_intent.succeeded",
        "payment_intent.created",
        "payment_intent.canceled",
    ]
    wait_for(lambda: len(receiver.received) >= len(expected))
    assert receiver.types() == expected


def test_what_the_receiver_refuses_comes_again(network: CardNetwork, receiver: Receiver) -> None:
    receiver.statuses = [500, 404]
    pay(make_client(network))
    wait_for(lambda: len(receiver.received) == 5)
    time.sleep(0.2)
    assert sorted(set(receiver.types())) == sorted(PAID)
    counts = network.control("webhooks")["counts"]
    assert (counts["delivered"], counts["pending"]) == (3, 0)


def test_events_wait_for_a_receiver_that_is_down_also_over_kill_9(
    network: CardNetwork, receiver: Receiver
) -> None:
    receiver.stop()
    pay(make_client(network))
    wait_for(lambda: any(item["attempts"] for item in network.control("webhooks")["deliveries"]))
    network.kill()
    network.start()
    assert network.control("webhooks")["counts"]["pending"] == 3
    receiver.start()
    wait_for(lambda: len(receiver.received) == 3)
    assert sorted(receiver.types()) == sorted(PAID)
    for body, signature in receiver.received:
        stripe.Webhook.construct_event(body, signature, "whsec_of_the_test_mode")


def test_events_are_held_and_then_come_in_reverse(network: CardNetwork, receiver: Receiver) -> None:
    network.control("webhooks", {"mode": "hold"})
    pay(make_client(network))
    time.sleep(0.3)
    assert receiver.received == []
    network.control("webhooks", {"mode": "send", "reverse": True})
    wait_for(lambda: len(receiver.received) == 3)
    assert receiver.types() == PAID[::-1]


def test_events_come_many_times(network: CardNetwork, receiver: Receiver) -> None:
    network.control("webhooks", {"copies": 20})
    pay(make_client(network))
    wait_for(lambda: len(receiver.received) == 60)
    ids = {json.loads(body)["id"] for body, _ in receiver.received}
    assert len(ids) == 3


def test_events_never_come(network: CardNetwork, receiver: Receiver) -> None:
    network.control("webhooks", {"mode": "drop"})
    client = make_client(network)
    pay(client)
    network.control("webhooks", {"mode": "send"})
    time.sleep(0.3)
    assert receiver.received == []
    assert network.control("webhooks")["counts"]["dropped"] == 3
    listed = client.v1.events.list({"types": ["charge.succeeded", "payment_intent.succeeded"]})
    assert sorted(event.type for event in listed.data) == sorted(PAID[1:])


def test_an_event_is_sent_again_on_demand(network: CardNetwork, receiver: Receiver) -> None:
    client = make_client(network)
    pay(client)
    wait_for(lambda: len(receiver.received) == 3)
    event = client.v1.events.list({"type": "payment_intent.succeeded"}).data[0]
    network.control("webhooks/resend", {"event": event.id, "times": 2})
    wait_for(lambda: len(receiver.received) == 5)
    assert receiver.types()[3:] == ["payment_intent.succeeded"] * 2


def test_events_are_late_when_told(network: CardNetwork, receiver: Receiver) -> None:
    network.control("webhooks", {"delay_ms": 600})
    start = time.monotonic()
    pay(make_client(network))
    wait_for(lambda: len(receiver.received) == 3)
    assert time.monotonic() - start >= 0.55


def test_signatures_stay_on_the_real_clock_when_the_network_is_shifted(
    network: CardNetwork, receiver: Receiver
) -> None:
    network.control("clock", {"offset_s": 40 * 86400})
    paid = pay(make_client(network))
    wait_for(lambda: len(receiver.received) == 3)
    body, signature = receiver.received[0]
    event = stripe.Webhook.construct_event(body, signature, "whsec_of_the_test_mode")
    assert event.created == paid.created
    assert paid.created > time.time() + 39 * 86400
    sent_at = int(signature.split(",")[0].removeprefix("t="))
    assert abs(sent_at - time.time()) < 30
