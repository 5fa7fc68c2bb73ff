"""One key, one outcome: replays, other bodies, keys in use, 24 hours, and kill -9 in the middle of
work."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import stripe

from lava.demo.card_network.process import CardNetwork


@pytest.fixture
def client(network: CardNetwork) -> stripe.StripeClient:
    return make_client(network)


@pytest.fixture
def key() -> str:
    return f"payment:{uuid4()}"


def make_client(network: CardNetwork, key: str = "sk_test_local") -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": network.url}, max_network_retries=0)


def pay(client: stripe.StripeClient, key: str, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 2500,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "allowed_payment_method_types": ["card"],
        "confirm": True,
        "metadata": {"key": key},
        **more,
    }
    return client.v1.payment_intents.create(params, {"idempotency_key": key})


def paid_with(client: stripe.StripeClient, key: str) -> list[str]:
    """The charges that were made under a key."""
    listed = client.v1.charges.list({"limit": 100})
    return [
        charge.id
        for charge in listed.auto_paging_iter()
        if charge.metadata.to_dict().get("key") == key
    ]


def headers_of(answered: Any) -> Any:
    return answered.last_response.headers


def test_a_key_replays_the_first_answer_byte_for_byte(
    client: stripe.StripeClient, key: str
) -> None:
    first, again = pay(client, key), pay(client, key)
    assert again.last_response is not None
    assert first.last_response is not None
    assert again.last_response.body == first.last_response.body
    assert "Idempotent-Replayed" not in headers_of(first)
    assert headers_of(again)["Idempotent-Replayed"] == "true"
    assert headers_of(again)["Original-Request"] == headers_of(first)["Request-Id"]
    assert headers_of(again)["Idempotency-Key"] == key
    assert len(paid_with(client, key)) == 1


def test_a_decline_is_replayed_too(client: stripe.StripeClient, key: str) -> None:
    answers = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as raised:
            pay(client, key, payment_method="pm_card_chargeDeclined")
        answers.append(raised.value)
    assert answers[0].http_body == answers[1].http_body
    assert (answers[1].headers or {})["Idempotent-Replayed"] == "true"
    assert len(paid_with(client, key)) == 1


def test_a_key_with_another_body_is_refused(client: stripe.StripeClient, key: str) -> None:
    pay(client, key)
    with pytest.raises(stripe.IdempotencyError, match="same parameters") as raised:
        pay(client, key, amount=2600)
    assert raised.value.http_status == 400
    assert len(paid_with(client, key)) == 1


def test_a_key_on_another_endpoint_is_refused(client: stripe.StripeClient, key: str) -> None:
    pay(client, key)
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        client.v1.customers.create({"name": "Mara"}, {"idempotency_key": key})


def test_what_fails_validation_is_not_remembered(client: stripe.StripeClient, key: str) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        pay(client, key, amount=1)
    assert pay(client, key).status == "succeeded"


def test_live_and_test_remember_apart(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    first = pay(client, key)
    live = pay(make_client(network, "sk_live_local"), key)
    assert live.id != first.id
    assert live.livemode is True


def test_a_key_is_forgotten_after_24_hours_and_not_before(
    network: CardNetwork, client: stripe.StripeClient, key: str
) -> None:
    first = pay(client, key)
    try:
        network.control("clock", {"offset_s": 24 * 3600 - 60})
        assert pay(client, key).id == first.id
        network.control("clock", {"offset_s": 25 * 3600})
        second = pay(client, key)
        assert second.id != first.id
        assert "Idempotent-Replayed" not in headers_of(second)
    finally:
        network.control("clock", {"offset_s": 0})
    assert len(paid_with(client, key)) == 2


def test_a_key_in_use_is_409(network: CardNetwork, client: stripe.StripeClient, key: str) -> None:
    network.control("faults", {"action": "delay", "delay_ms": 1500, "path": "/v1/payment_intents"})
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(pay, client, key)
        time.sleep(0.5)
        with pytest.raises(stripe.APIError) as raised:
            pay(client, key)
        first = slow.result()
    assert raised.value.http_status == 409
    assert isinstance(raised.value.json_body, dict)
    error = raised.value.json_body["error"]
    assert (error["type"], error["code"]) == ("idempotency_error", "idempotency_key_in_use")
    assert pay(client, key).id == first.id
    assert len(paid_with(client, key)) == 1


def test_twenty_at_once_under_one_key_charge_once(client: stripe.StripeClient, key: str) -> None:
    def attempt(_: int) -> str:
        while True:
            try:
                return pay(client, key).id
            except stripe.APIError as error:
                assert error.http_status == 409
                time.sleep(0.02)

    with ThreadPoolExecutor(8) as pool:
        intents = set(pool.map(attempt, range(20)))
    assert len(intents) == 1
    assert len(paid_with(client, key)) == 1


def test_twenty_confirmations_of_one_intent_charge_once(client: stripe.StripeClient) -> None:
    intent = client.v1.payment_intents.create(
        {
            "amount": 2500,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "allowed_payment_method_types": ["card"],
        }
    )

    def confirm(_: int) -> bool:
        try:
            return client.v1.payment_intents.confirm(intent.id).status == "succeeded"
        except stripe.InvalidRequestError as error:
            assert error.code == "payment_intent_unexpected_state"
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(confirm, range(20))) == 1
    assert len(client.v1.charges.list({"payment_intent": intent.id}).data) == 1


def test_a_key_that_is_too_long_is_refused(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="1 to 255"):
        pay(client, "k" * 256)


def test_kill_9_in_the_middle_of_work_leaves_whole_payments_and_their_keys(tmp_path: Path) -> None:
    """Six clients pay until acknowledged while the network is killed five times."""
    acknowledged: dict[str, str] = {}
    stop = threading.Event()
    with CardNetwork(tmp_path / "state.sqlite3") as network:
        client = make_client(network)

        def keep_paying(number: int) -> None:
            count = 0
            while not stop.is_set():
                key = f"worker-{number}-{count}"
                try:
                    acknowledged[key] = pay(client, key).id
                    count += 1
                except (stripe.APIConnectionError, stripe.APIError):
                    time.sleep(0.02)

        threads = [threading.Thread(target=keep_paying, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            time.sleep(0.4)
            network.kill()
            network.start()
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()

        assert len(acknowledged) > 20
        charges: dict[str, list[str]] = {}
        for charge in client.v1.charges.list({"limit": 100}).auto_paging_iter():
            key = charge.metadata.to_dict()["key"]
            charges.setdefault(key, []).append(str(charge.payment_intent))
        for key, intent in acknowledged.items():
            assert charges[key] == [intent]
        assert all(len(found) == 1 for found in charges.values())
        told = [
            event.data.object["id"]
            for event in client.v1.events.list(
                {"type": "payment_intent.succeeded", "limit": 100}
            ).auto_paging_iter()
        ]
        assert sorted(told) == sorted(intent for found in charges.values() for intent in found)
        sample = sorted(acknowledged)[:5]
        assert [pay(client, key).id for key in sample] == [acknowledged[key] for key in sample]


def test_a_replay_needs_no_library(network: CardNetwork, key: str) -> None:
    headers = {"Authorization": "Bearer sk_test_local", "Idempotency-Key": key}
    body = {"name": "Mara"}
    first = httpx.post(f"{network.url}/v1/customers", data=body, headers=headers)
    again = httpx.post(f"{network.url}/v1/customers", data=body, headers=headers)
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
