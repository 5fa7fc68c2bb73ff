"""Faults on demand: the line drops after the work, 500s come, keys are in use; and the journal saw
it all."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest
import stripe

from lava.demo.card_network.process import CardNetwork


@pytest.fixture
def client(network: CardNetwork) -> stripe.StripeClient:
    return make_client(network)


@pytest.fixture
def key() -> str:
    return f"payment:{uuid4()}"


def make_client(network: CardNetwork, retries: int = 0) -> stripe.StripeClient:
    return stripe.StripeClient(
        "sk_test_local", base_addresses={"api": network.url}, max_network_retries=retries
    )


def pay(client: stripe.StripeClient, key: str) -> stripe.PaymentIntent:
    return client.v1.payment_intents.create(
        {
            "amount": 2500,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "allowed_payment_method_types": ["card"],
            "confirm": True,
            "metadata": {"key": key},
        },
        {"idempotency_key": key},
    )


def charges_of(client: stripe.StripeClient, key: str) -> int:
    listed = client.v1.charges.list({"limit": 100}).auto_paging_iter()
    return sum(charge.metadata.to_dict()["key"] == key for charge in listed)


def journal_of(network: CardNetwork, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = network.control(f"journal?idempotency_key={key}")["data"]
    return found


def test_it_charges_and_drops_the_line_and_the_retry_finds_it_charged(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    network.control("faults", {"action": "drop", "method": "POST", "path": "/v1/payment_intents"})
    with pytest.raises(stripe.APIConnectionError):
        pay(client, key)
    assert charges_of(client, key) == 1
    again = pay(client, key)
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert charges_of(client, key) == 1
    assert [(entry["status"], entry["fault"]) for entry in journal_of(network, key)] == [
        (None, "drop"),
        (200, None),
    ]


def test_it_drops_the_line_before_charging(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    network.control("faults", {"action": "drop_before", "path": "/v1/payment_intents"})
    with pytest.raises(stripe.APIConnectionError):
        pay(client, key)
    assert charges_of(client, key) == 0
    assert pay(client, key).status == "succeeded"


def test_it_answers_500_without_charging_as_often_as_told(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    network.control("faults", {"action": "error", "path": "/v1/payment_intents*", "times": 2})
    for _ in range(2):
        with pytest.raises(stripe.APIError) as raised:
            pay(client, key)
        assert raised.value.http_status == 500
    assert charges_of(client, key) == 0
    assert pay(client, key).status == "succeeded"


def test_a_stored_500_is_replayed_as_stripe_replays_its_own(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    network.control("faults", {"action": "error", "stored": True, "path": "/v1/payment_intents"})
    for _ in range(2):
        with pytest.raises(stripe.APIError) as raised:
            pay(client, key)
        assert raised.value.http_status == 500
    assert charges_of(client, key) == 0
    assert [entry["replayed"] for entry in journal_of(network, key)] == [False, True]


def test_it_charges_and_answers_502(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    network.control("faults", {"action": "error_after", "path": "/v1/payment_intents"})
    with pytest.raises(stripe.APIError) as raised:
        pay(client, key)
    assert raised.value.http_status == 502
    assert charges_of(client, key) == 1
    assert pay(client, key).status == "succeeded"
    assert charges_of(client, key) == 1


def test_it_says_that_the_key_is_in_use_and_the_library_tries_again(
    network: CardNetwork, key: str
) -> None:
    network.control("faults", {"action": "in_use", "path": "/v1/payment_intents"})
    client = make_client(network, retries=2)
    assert pay(client, key).status == "succeeded"
    assert [entry["status"] for entry in journal_of(network, key)] == [409, 200]
    assert charges_of(client, key) == 1


def test_it_answers_429(network: CardNetwork, client: stripe.StripeClient, key: str) -> None:
    network.control("faults", {"action": "error", "status": 429})
    with pytest.raises(stripe.RateLimitError):
        pay(client, key)
    assert charges_of(client, key) == 0


def test_a_late_answer_has_been_done_in_time(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    order = {"action": "delay_after", "delay_ms": 400, "path": "/v1/payment_intents"}
    network.control("faults", order)
    start = time.monotonic()
    assert pay(client, key).status == "succeeded"
    assert time.monotonic() - start >= 0.4


def test_a_fault_strikes_only_what_it_is_meant_for(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    network.control("faults", {"action": "error", "path": "/v1/refunds", "mode": "live"})
    try:
        paid = pay(client, key)
        assert client.v1.refunds.create({"payment_intent": paid.id}).status == "succeeded"
        assert [fault["times"] for fault in network.control("faults")["data"]] == [1]
    finally:
        network.control("faults", method="DELETE")
    assert network.control("faults")["data"] == []


def test_an_armed_fault_and_a_shifted_clock_survive_a_restart(
    tmp_path_factory: pytest.TempPathFactory, key: str
) -> None:
    with CardNetwork(tmp_path_factory.mktemp("restart") / "state.sqlite3") as network:
        network.control("faults", {"action": "error", "path": "/v1/payment_intents"})
        network.control("clock", {"offset_s": 3600})
        network.kill()
        network.start()
        assert network.control("clock")["offset_s"] == 3600
        with pytest.raises(stripe.APIError):
            pay(make_client(network), key)


@pytest.mark.parametrize(
    ("path", "order"),
    [
        ("faults", {"action": "explode"}),
        ("faults", {"action": "error", "times": 0}),
        ("faults", {"action": "error", "status": 200}),
        ("faults", {"action": "error", "colour": "red"}),
        ("webhooks", {"mode": "sometimes"}),
        ("webhooks", {"url": "file:///etc/passwd"}),
        ("cards", {"payment_method": "pm_none", "behave_as": "4242424242424242"}),
        ("disputes/open", {"charge": "ch_none"}),
        ("reset", {"mode": "both"}),
    ],
)
def test_a_wrong_order_is_refused(network: CardNetwork, path: str, order: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^400: "):
        network.control(path, order)


def test_reset_forgets_one_mode_and_then_everything(
    tmp_path_factory: pytest.TempPathFactory, key: str
) -> None:
    with CardNetwork(tmp_path_factory.mktemp("reset") / "state.sqlite3") as network:
        client = make_client(network)
        live = stripe.StripeClient("sk_live_local", base_addresses={"api": network.url})
        first = pay(client, key)
        kept = pay(live, key)
        network.control("reset", {"mode": "test"})
        assert client.v1.payment_intents.list().data == []
        assert live.v1.payment_intents.retrieve(kept.id).status == "succeeded"
        assert pay(client, key).id != first.id
        network.control("reset", {})
        assert live.v1.payment_intents.list().data == []
        assert live.v1.events.list().data == []
