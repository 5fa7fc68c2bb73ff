"""The official Node client, unchanged, only its base URL set: every method it has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from tests import factories
from tests.clients import newer
from tests.clients.node import NEWER, Client, check_types

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("node")]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Client]]:
    """Every client of the module; TypeScript, slow to start, looks at all their answers at once."""
    made: list[Client] = []
    yield made
    check_types(made, tmp_path_factory.mktemp("answers"))


@pytest.fixture
def shop(
    node_path: str,
    clients_dir: Path,
    live_server: Any,
    card_network: Any,
    settings: Any,
    clients: list[Client],
) -> Any:
    settings.LAVA_BASE_URL = live_server.url
    at = (node_path, clients_dir)

    class Shop:
        merchant = factories.make_merchant()
        plan = factories.make_plan(merchant)
        bundle = factories.make_bundle(plan)
        meter = factories.make_meter(merchant, plan, tiers=[("0", "3"), ("10000000", "2")])
        key = factories.make_key(merchant)
        lava = Client(*at, key, live_server.url)
        newer = Client(*at, key, live_server.url, NEWER)

    clients += [Shop.lava, Shop.newer]
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


# The gateway's calls are played in tests/meters/gateway and tests/clients/test_provider_sdks.py.
ELSEWHERE = {"gateway", "request"}


def test_every_method_of_the_older_client_answers_as_declared(shop: Any) -> None:
    lava, plan = shop.lava, shop.plan
    customer = factories.make_subscription(plan, now=timezone.now()).connection
    gone = factories.make_connection(shop.merchant).public_id
    here = customer.public_id
    told = {"request_id": "r", "connection_id": here, "meter_slug": "chat", "output_tokens": 7}
    lava(
        ("generateForwardToken", [{"connection_id": here, "meter_slug": "chat"}]),
        *(
            (
                "checkoutSessions.create",
                [{"checkout_mode": mode, "origin_url": "https://app.example"} | fields],
            )
            for mode, fields in (
                ("subscription", {"subscription_config_id": plan.public_id}),
                (
                    "credit_bundle",
                    {"credit_bundle_id": shop.bundle.public_id, "connection_id": here},
                ),
                ("topup", {"connection_id": here}),
                ("onboarding", {}),
            )
        ),
        ("connections.list", []),
        ("connections.retrieve", [here]),
        ("connections.getSubscription", [here]),
        ("connections.getSubscription", [gone]),
        ("connections.delete", [gone]),
        ("requests.create", [told]),
        ("requests.list", [{"connection_id": here, "meter_id": shop.meter.public_id}]),
        ("requests.retrieve", ["r"]),
        ("usage.retrieve", [{"start": newer.today(), "connection_id": here}]),
        ("meters.list", [{"limit": 1}]),
        ("meters.retrieve", [shop.meter.public_id]),
        ("creditBundles.list", []),
        ("creditBundles.retrieve", [shop.bundle.public_id]),
        ("subscriptions.listConfigs", []),
        ("subscriptions.retrieveConfig", [plan.public_id]),
        ("subscriptions.list", [{"status": "all"}]),
        ("subscriptions.cancel", [customer.subscription.public_id]),
        ("subscriptions.list", []),
    )
    assert lava.methods() - lava.worked() == {"request"}


def test_every_method_of_the_newer_client_answers_as_declared(
    shop: Any, tmp_path: Path, monkeypatch: Any, client: Any
) -> None:
    lava = shop.newer
    meter, other = newer.makes_meters(lava)
    plan, bundle = newer.makes_and_changes_a_plan(lava, meter, other)
    here, subscription = newer.serves_a_customer(lava, plan, meter, paid=shop.plan.public_id)
    newer.reads_what_there_is(lava, here, meter, plan, bundle)
    newer.changes_and_ends(lava, here, meter, plan, bundle, subscription)
    newer.keeps_webhooks_and_keys(lava)
    newer.keeps_spend_keys(lava)
    newer.logs_in(lava, shop, client, tmp_path, monkeypatch)
    assert lava.methods() - lava.worked() == ELSEWHERE


def test_lists_are_read_to_the_last_page_and_by_metadata(shop: Any) -> None:
    customer = factories.make_subscription(shop.plan, now=timezone.now()).connection
    told = [
        {
            "request_id": f"job-{number}",
            "customer_id": customer.public_id,
            "meter_slug": "chat",
            "input_tokens": 1000,
            "metadata": {"team": "even" if number % 2 == 0 else "odd", "n": str(number)},
        }
        for number in range(5)
    ]
    shop.newer(*(("requests.create", [body]) for body in told))
    seen, cursor = [], {}
    for has_more in (True, True, False):
        page = shop.newer.one("requests.list", {"limit": 2, **cursor})
        seen += [row["request_id"] for row in page["data"]]
        assert page["has_more"] is has_more and ("next_cursor" in page) is has_more
        cursor = {"cursor": page.get("next_cursor")}
    assert seen == [f"job-{number}" for number in (4, 3, 2, 1, 0)]
    found = shop.newer.one("requests.list", {"limit": 2, "metadata_filters": {"team": "even"}})
    rest = shop.newer.one(
        "requests.list",
        {"metadata_filters": {"team": "even"}, "cursor": found["next_cursor"]},
    )
    assert [row["request_id"] for row in found["data"] + rest["data"]] == [
        "job-4",
        "job-2",
        "job-0",
    ]
    both = {"metadata_filters": {"team": "even", "n": "2"}}
    (one,) = shop.newer.one("requests.list", both)["data"]
    assert one["request_id"] == "job-2"
    usage = shop.newer.one("usage.retrieve", {"start": newer.today(), **both})
    assert usage["totals"]["total_requests"] == 1


def test_usage_falls_on_the_days_of_the_zone_that_asks(shop: Any) -> None:
    customer = factories.make_subscription(shop.plan, now=timezone.now()).connection
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    noon = midnight - timedelta(hours=12)
    # 20:00 in London is the day after in Mumbai.
    at = (noon + timedelta(hours=8)).isoformat()
    told = {
        "request_id": "late",
        "connection_id": customer.public_id,
        "meter_slug": "chat",
        "input_tokens": 1,
        "timestamp": at,
    }
    london, mumbai = (
        {"start": f"{(noon - timedelta(days=1)).date()}T00:00:00{zone}", "end": _end(noon, zone)}
        for zone in ("+00:00", "+05:30")
    )
    _, utc, ist = shop.lava(
        ("requests.create", [told]), ("usage.retrieve", [london]), ("usage.retrieve", [mumbai])
    )
    day = {row["date"]: row["total_requests"] for row in utc["items"]}
    assert day[str(noon.date())] == 1
    day = {row["date"]: row["total_requests"] for row in ist["items"]}
    assert day[str(midnight.date())] == 1 and day[str(noon.date())] == 0


def _end(noon: datetime, zone: str) -> str:
    return f"{(noon + timedelta(days=2)).date()}T00:00:00{zone}"


def test_a_customer_made_by_a_backend_confirms_their_own_phone_at_checkout(shop: Any) -> None:
    here = shop.newer.one("customers.create", {"email": "ana@shop.example"})["customer_id"]
    session = shop.newer.one(
        "checkoutSessions.create",
        {
            "checkout_mode": "subscription",
            "origin_url": "https://app.example",
            "customer_id": here,
            "plan_id": shop.plan.public_id,
        },
    )
    complete = f"test_helpers/checkout_sessions/{session['checkout_session_id']}/complete"
    done = shop.newer.one(
        "request", "POST", complete, {"data": {"phone": "+14155550177", "card": "4242424242424242"}}
    )
    assert done["status"] == "completed" and done["customer_id"] == here
    found, twice = shop.newer(
        ("customers.retrieve", [here]), ("customers.create", [{"phone": "+14155550177"}])
    )
    assert found["contact"]["phone"] == "+14155550177"
    assert found["subscription"]["name"] == "Studio"
    assert "409" in twice and "phone_taken" in twice
