"""The official Node client, unchanged, only its base URL set: every method it has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from tests import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("node")]


class Client:
    """Calls of the client, each in the words of its methods: `requests.create`."""

    def __init__(self, node: str, folder: Path, key: str, url: str) -> None:
        self.command = [node, str(folder / "run.cjs")]
        self.key = key
        self.url = f"{url}/v1/"

    def __call__(self, *calls: tuple[str, list[Any]]) -> list[Any]:
        told = {"key": self.key, "baseUrl": self.url, "calls": calls}
        done = subprocess.run(
            self.command, input=json.dumps(told), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return [answer.get("ok", answer.get("error")) for answer in json.loads(done.stdout)]

    def one(self, method: str, *args: Any) -> Any:
        return self((method, list(args)))[0]


@pytest.fixture
def shop(
    node_path: str, clients_dir: Path, live_server: Any, card_network: Any, settings: Any
) -> Any:
    settings.LAVA_BASE_URL = live_server.url

    class Shop:
        merchant = factories.make_merchant()
        plan = factories.make_plan(merchant)
        bundle = factories.make_bundle(plan)
        meter = factories.make_meter(merchant, plan, tiers=[("0", "3"), ("10000000", "2")])
        lava = Client(node_path, clients_dir, factories.make_key(merchant), live_server.url)

    return Shop()


def test_a_customer_is_charged_and_metered_through_the_client(shop: Any) -> None:
    session = shop.lava.one(
        "checkoutSessions.create",
        {
            "checkout_mode": "subscription",
            "origin_url": "https://app.example",
            "subscription_config_id": shop.plan.public_id,
        },
    )
    assert session["checkout_session_id"].startswith("cs_test_")
    assert session["checkout_session_token"]
    done = shop.lava.one(
        "request",
        "POST",
        f"test_helpers/checkout_sessions/{session['checkout_session_id']}/complete",
        {"data": {"phone": "+14155550142", "card": "4242424242424242"}},
    )
    connection_id = done["connection_id"]
    connection = shop.lava.one("connections.retrieve", connection_id)
    assert connection["customer"]["phone"] == "+14155550142"
    assert connection["subscription"]["name"] == "Studio"
    body = {
        "request_id": "job-1",
        "connection_id": connection_id,
        "meter_slug": "chat",
        "input_tokens": 1_000_000,
        "metadata": {"team": "podcasts"},
    }
    first, again, other = shop.lava(
        ("requests.create", [body]),
        ("requests.create", [body]),
        ("requests.create", [body | {"input_tokens": 2}]),
    )
    assert first["fee"]["amount"] == "3.0000000000"
    assert first["balance"]["total_remaining"] == "22.0000000000"
    assert again == first
    assert "409" in other and "request_id_reused" in other
    kept, found, missed, usage = shop.lava(
        ("requests.retrieve", ["job-1"]),
        ("requests.list", [{"metadata_filters": {"team": "podcasts"}}]),
        ("requests.list", [{"metadata_filters": {"team": "other"}}]),
        ("usage.retrieve", [{"start": timezone.now().date().isoformat() + "T00:00:00+00:00"}]),
    )
    assert kept == first
    assert [row["request_id"] for row in found["data"]] == ["job-1"]
    assert missed == {"data": [], "has_more": False}
    assert usage["totals"]["total_fee_amount"] == "3.0000000000"
    assert usage["totals"]["total_usage_tokens"] == 1_000_000


def test_plans_meters_and_bundles_are_listed_and_found(shop: Any) -> None:
    configs, config, meters, meter, bundles, bundle = shop.lava(
        ("subscriptions.listConfigs", []),
        ("subscriptions.retrieveConfig", [shop.plan.public_id]),
        ("meters.list", []),
        ("meters.retrieve", [shop.meter.public_id]),
        ("creditBundles.list", [{"subscription_config_id": shop.plan.public_id}]),
        ("creditBundles.retrieve", [shop.bundle.public_id]),
    )
    assert configs["data"] == [config]
    assert config["period_amount"] == config["included_credit"] == "25.0000000000"
    assert config["linked_meters"] == [{"meter_id": shop.meter.public_id, "name": "Chat"}]
    assert meters["data"] == [meter]
    assert meter["tiers"] == [
        {"start": 0, "rate": "3.0000000000", "type": "tokens_1m"},
        {"start": 10_000_000, "rate": "2.0000000000", "type": "tokens_1m"},
    ]
    assert bundles["data"] == [bundle]
    assert (bundle["cost"], bundle["credit_amount"]) == ("10.0000000000", "10.0000000000")


def test_a_subscription_is_cancelled_at_the_end_of_its_cycle(shop: Any) -> None:
    subscription = factories.make_subscription(shop.plan, now=timezone.now())
    connection_id = subscription.connection.public_id
    cancelled, listed, seen = shop.lava(
        ("subscriptions.cancel", [subscription.public_id]),
        ("subscriptions.list", [{"connection_id": connection_id}]),
        ("connections.getSubscription", [connection_id]),
    )
    assert cancelled == {"success": True}
    assert listed["data"][0]["pending_change"]["type"] == "cancellation"
    assert seen["subscription"]["status"] == "active"
    assert seen["subscription"]["credits"]["total_remaining"] == "25.0000000000"


def test_connections_are_paged_to_the_end_and_deleted(shop: Any) -> None:
    made = {factories.make_connection(shop.merchant).public_id for _ in range(3)}
    first = shop.lava.one("connections.list", {"limit": 2})
    rest = shop.lava.one("connections.list", {"limit": 2, "cursor": first["next_cursor"]})
    assert first["has_more"] and not rest["has_more"] and "next_cursor" not in rest
    assert {row["connection_id"] for row in first["data"] + rest["data"]} == made
    gone = made.pop()
    deleted, missing = shop.lava(("connections.delete", [gone]), ("connections.retrieve", [gone]))
    assert deleted == {"success": True}
    assert "404" in missing


def test_a_forward_token_carries_what_the_client_puts_in_it(shop: Any) -> None:
    token = shop.lava.one("generateForwardToken", {"connection_id": "con_x", "meter_slug": "chat"})
    assert isinstance(token, str) and len(token) > 50
