"""The official Node client, unchanged, only its base URL set: every method it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing import ids
from billing.models import Connection
from tests import factories
from tests.clients.node import NEWER, Client, check_types

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("node")]


@pytest.fixture
def shop(
    node_path: str,
    clients_dir: Path,
    live_server: Any,
    card_network: Any,
    settings: Any,
    tmp_path: Path,
) -> Iterator[Any]:
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

    yield Shop()
    check_types([Shop.lava, Shop.newer], tmp_path)


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


# What the browser flow of the newer client asks of a person is played in
# tests/browser; the gateway's calls in tests/clients/test_gateway.py.
ELSEWHERE = {"gateway", "request", "Lava.login", "Lava.exchangeAuthCode"}


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
        ("usage.retrieve", [{"start": _today(), "connection_id": here}]),
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


def test_every_method_of_the_newer_client_answers_as_declared(shop: Any) -> None:
    lava = shop.newer
    meter, other = lava(
        (
            "meters.create",
            [
                {
                    "name": "Images",
                    "rate_type": "fixed",
                    "tier_type": "requests",
                    "tiers": [{"start": "0", "rate": "0.05"}, {"start": "100", "rate": "0.04"}],
                }
            ],
        ),
        (
            "meters.create",
            [
                {
                    "name": "Margin",
                    "meter_slug": "margin",
                    "rate_type": "percentage",
                    "tier_type": "tokens_1m",
                    "tiers": [{"start": "0", "rate": "20"}],
                }
            ],
        ),
    )
    assert (meter["meter_slug"], meter["tiers"][1]["start"]) == ("images", 100)
    plan = lava.one(
        "subscriptions.createPlan",
        {
            "name": "Free",
            "period_amount": "0",
            "billing_interval": "month",
            "included_credit": "5",
            "rollover_type": "none",
            "meter_ids": [meter["meter_id"]],
            "credit_bundles": [
                {"name": "Small", "cost": "10", "credit_amount": "10"},
                {"name": "Large", "cost": "45", "credit_amount": "50"},
            ],
            "default_auto_top_up_bundle_index": 1,
        },
    )
    small, large = plan["credit_bundles"]
    assert plan["default_auto_top_up_bundle_id"] == large["credit_bundle_id"]
    assert "subscription_config_id" not in plan
    changed = lava.one(
        "subscriptions.updatePlan",
        plan["plan_id"],
        {
            "name": "Starter",
            "credit_bundles": [
                {**small, "cost": "12"},
                {**large, "is_deleted": True},
                {"name": "Third", "cost": "20", "credit_amount": "21"},
            ],
            "meter_ids": [meter["meter_id"], other["meter_id"]],
        },
    )
    assert changed["default_auto_top_up_bundle_id"] is None
    assert [row["cost"] for row in changed["credit_bundles"]] == ["12.0000000000", "20.0000000000"]
    assert {row["name"] for row in changed["linked_meters"]} == {"Images", "Margin"}
    who = lava.one(
        "customers.create",
        {
            "name": "Ana Maria Ruiz",
            "email": "ana@shop.example",
            "reference_id": "user-1",
            "metadata": {"tier": "gold"},
        },
    )
    assert who["contact"]["first_name"] == "Ana Maria" and "connection_id" not in who
    here = who["customer_id"]
    # What tops up by itself needs a saved card.
    factories.make_card(Connection.objects.get(pk=ids.parse("con", here)))
    made = lava.one("subscriptions.create", {"customer_id": here, "plan_id": plan["plan_id"]})
    subscription = made["subscription"]
    told = {"request_id": "r", "customer_id": here, "meter_slug": "images"}
    charged, paid, webhook, key = lava(
        ("requests.create", [told]),
        ("subscriptions.create", [{"customer_id": here, "plan_id": shop.plan.public_id}]),
        ("webhooks.create", [{"name": "Mine", "url": "https://hooks.example/lava"}]),
        ("secretKeys.create", [{"name": "CI"}]),
    )
    assert charged["charge"]["amount"] == "0.0500000000"
    assert "plan_needs_checkout" in paid
    refused = lava.one("meters.delete", meter["meter_id"])
    assert "meter_in_use" in refused
    last = changed["credit_bundles"][1]["credit_bundle_id"]
    lava(
        (
            "checkoutSessions.create",
            [
                {
                    "checkout_mode": "subscription",
                    "origin_url": "https://app.example",
                    "customer_id": here,
                    "plan_id": shop.plan.public_id,
                }
            ],
        ),
        ("generateForwardToken", [{"customer_id": here, "meter_slug": "images"}]),
        ("customers.list", [{"limit": 1}]),
        ("customers.retrieve", [here]),
        ("customers.update", [here, {"phone": "+14155550142", "metadata": None}]),
        ("customers.getSubscription", [here]),
        ("requests.list", [{"customer_id": here}]),
        ("requests.retrieve", ["r"]),
        ("usage.retrieve", [{"start": _today(), "customer_id": here}]),
        ("meters.list", []),
        ("meters.retrieve", [meter["meter_id"]]),
        (
            "meters.update",
            [meter["meter_id"], {"name": "Pictures", "tiers": [{"start": "0", "rate": "0.06"}]}],
        ),
        ("creditBundles.list", [{"plan_id": plan["plan_id"]}]),
        ("creditBundles.retrieve", [last]),
        ("subscriptions.listPlans", []),
        ("subscriptions.retrievePlan", [plan["plan_id"]]),
        ("subscriptions.list", [{"customer_id": here, "status": "active"}]),
        (
            "subscriptions.update",
            [subscription["subscription_id"], {"auto_top_up_bundle_id": last}],
        ),
        ("customers.getSubscription", [here]),
        ("subscriptions.cancel", [subscription["subscription_id"]]),
        ("subscriptions.deletePlan", [plan["plan_id"]]),
        ("webhooks.list", []),
        ("webhooks.retrieve", [webhook["webhook_id"]]),
        ("webhooks.update", [webhook["webhook_id"], {"name": "Ours"}]),
        ("webhooks.delete", [webhook["webhook_id"]]),
        ("secretKeys.list", []),
        ("secretKeys.delete", [key["secret_key_id"]]),
        ("customers.delete", [here]),
        ("models.list", []),
    )
    seen = lava.called[-11][1] if lava.called[-11][0] == "customers.getSubscription" else None
    assert seen is not None and seen["subscription"]["auto_top_up_bundle_id"] == last
    unused = {"name": "Once", "rate_type": "fixed", "tier_type": "minutes"}
    once = lava.one("meters.create", unused | {"tiers": [{"start": "0", "rate": "0.1"}]})
    assert lava.one("meters.delete", once["meter_id"]) == {"id": once["meter_id"], "deleted": True}
    made = lava.one(
        "spendKeys.create",
        {"name": "CI", "spend_limit": {"amount": "5.00", "cycle": "monthly"}, "rate_limit": None},
    )
    assert made["key"].startswith("lft_test_") and made["spend_limit"]["cycle"] == "monthly"
    spend_key = made["spend_key_id"]
    changed = {"name": "Nightly", "request_limit": {"count": 9, "cycle": "daily"}}
    rotated, updated, _, listed, revoked = lava(
        ("spendKeys.rotate", [spend_key]),
        ("spendKeys.update", [spend_key, changed]),
        ("spendKeys.retrieve", [spend_key]),
        ("spendKeys.list", [{"limit": 1}]),
        ("spendKeys.revoke", [spend_key]),
    )
    assert rotated["key"] != made["key"] and updated["spend_limit"] == made["spend_limit"]
    assert [row["name"] for row in listed["data"]] == ["Nightly"] and revoked == {"success": True}
    assert lava.methods() - lava.worked() == ELSEWHERE


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


def _today() -> str:
    return timezone.now().date().isoformat() + "T00:00:00+00:00"
