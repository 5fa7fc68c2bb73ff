"""What a backend does with the newest official client, step by step; together every method it has.

Each step checks what its answers mean; that they are shaped as declared, TypeScript says
(`tests.clients.node`).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from django.utils import timezone

from billing import ids, keys
from billing.models import Connection, SecretKey
from tests import factories
from tests.clients.node import Client


def today() -> str:
    return timezone.now().date().isoformat() + "T00:00:00+00:00"


def makes_meters(lava: Client) -> tuple[Any, Any]:
    """One by the call, named by its slug; one of a share of the cost."""
    images = {
        "name": "Images",
        "rate_type": "fixed",
        "tier_type": "requests",
        "tiers": [{"start": "0", "rate": "0.05"}, {"start": "100", "rate": "0.04"}],
    }
    margin = {
        "name": "Margin",
        "meter_slug": "margin",
        "rate_type": "percentage",
        "tier_type": "tokens_1m",
        "tiers": [{"start": "0", "rate": "20"}],
    }
    meter, other = lava(("meters.create", [images]), ("meters.create", [margin]))
    assert (meter["meter_slug"], meter["tiers"][1]["start"]) == ("images", 100)
    return meter, other


def makes_and_changes_a_plan(lava: Client, meter: Any, other: Any) -> tuple[Any, str]:
    """A free plan with two bundles, one changed, one removed, one added; gives it and a bundle."""
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
    return changed, changed["credit_bundles"][1]["credit_bundle_id"]


def serves_a_customer(lava: Client, plan: Any, meter: Any, *, paid: str) -> tuple[str, str]:
    """Made by the backend, on the free plan, charged once; a plan that costs goes by checkout."""
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
    told = {"request_id": "r", "customer_id": here, "meter_slug": meter["meter_slug"]}
    checkout = {
        "checkout_mode": "subscription",
        "origin_url": "https://app.example",
        "customer_id": here,
        "plan_id": paid,
    }
    charged, refused, _, _ = lava(
        ("requests.create", [told]),
        ("subscriptions.create", [{"customer_id": here, "plan_id": paid}]),
        ("checkoutSessions.create", [checkout]),
        ("generateForwardToken", [{"customer_id": here, "meter_slug": meter["meter_slug"]}]),
    )
    assert charged["charge"]["amount"] == "0.0500000000"
    assert "plan_needs_checkout" in refused
    return here, made["subscription"]["subscription_id"]


def reads_what_there_is(lava: Client, here: str, meter: Any, plan: Any, bundle: str) -> None:
    """Every list and every retrieve."""
    lava(
        ("customers.list", [{"limit": 1}]),
        ("customers.retrieve", [here]),
        ("customers.getSubscription", [here]),
        ("requests.list", [{"customer_id": here}]),
        ("requests.retrieve", ["r"]),
        ("usage.retrieve", [{"start": today(), "customer_id": here}]),
        ("meters.list", []),
        ("meters.retrieve", [meter["meter_id"]]),
        ("creditBundles.list", [{"plan_id": plan["plan_id"]}]),
        ("creditBundles.retrieve", [bundle]),
        ("subscriptions.listPlans", []),
        ("subscriptions.retrievePlan", [plan["plan_id"]]),
        ("subscriptions.list", [{"customer_id": here, "status": "active"}]),
        ("models.list", []),
    )


def changes_and_ends(
    lava: Client, here: str, meter: Any, plan: Any, bundle: str, subscription: str
) -> None:
    """Updates; a cancellation that stands as a pending change; deletions, and what refuses one."""
    assert "meter_in_use" in lava.one("meters.delete", meter["meter_id"])
    dearer = {"name": "Pictures", "tiers": [{"start": "0", "rate": "0.06"}]}
    _, priced, _, topped, _, pending = lava(
        ("customers.update", [here, {"phone": "+14155550142", "metadata": None}]),
        ("meters.update", [meter["meter_id"], dearer]),
        ("subscriptions.update", [subscription, {"auto_top_up_bundle_id": bundle}]),
        ("customers.getSubscription", [here]),
        ("subscriptions.cancel", [subscription]),
        ("subscriptions.list", [{"customer_id": here}]),
    )
    assert priced["tiers"][0]["rate"] == "0.0600000000"
    assert topped["subscription"]["auto_top_up_bundle_id"] == bundle
    change = pending["data"][0]["pending_change"]
    assert change["type"] == "cancellation"
    assert change["effective_at"] == pending["data"][0]["cycle_end_at"]
    unused = {"name": "Once", "rate_type": "fixed", "tier_type": "minutes"}
    once = lava.one("meters.create", unused | {"tiers": [{"start": "0", "rate": "0.1"}]})
    gone, _, _ = lava(
        ("meters.delete", [once["meter_id"]]),
        ("subscriptions.deletePlan", [plan["plan_id"]]),
        ("customers.delete", [here]),
    )
    assert gone == {"id": once["meter_id"], "deleted": True}


def keeps_webhooks_and_keys(lava: Client) -> None:
    """Webhooks and secret keys, from made to gone."""
    webhook, key = lava(
        ("webhooks.create", [{"name": "Mine", "url": "https://hooks.example/lava"}]),
        ("secretKeys.create", [{"name": "CI"}]),
    )
    _, _, renamed, _, _, _ = lava(
        ("webhooks.list", []),
        ("webhooks.retrieve", [webhook["webhook_id"]]),
        ("webhooks.update", [webhook["webhook_id"], {"name": "Ours"}]),
        ("webhooks.delete", [webhook["webhook_id"]]),
        ("secretKeys.list", []),
        ("secretKeys.delete", [key["secret_key_id"]]),
    )
    assert renamed["name"] == "Ours"


def keeps_spend_keys(lava: Client) -> None:
    """Spend keys, from made to revoked; a change keeps what it does not name."""
    made = lava.one(
        "spendKeys.create",
        {
            "name": "Notebook",
            "request_shape": "anthropic",
            "allowed_models": ["claude-sonnet-4"],
            "spend_limit": {"amount": "10", "cycle": "monthly"},
            "request_limit": {"count": 100, "cycle": "daily"},
            "rate_limit": {"rpm": 60, "burst": 10},
            "expires_at": "2999-01-01T00:00:00Z",
        },
    )
    name = made["spend_key_id"]
    assert made["key"].startswith("lft_test_") and made["key"].endswith(made["key_preview"][-4:])
    listed, kept, changed, rotated = lava(
        ("spendKeys.list", [{"limit": 1}]),
        ("spendKeys.retrieve", [name]),
        ("spendKeys.update", [name, {"status": "paused", "spend_limit": None}]),
        ("spendKeys.rotate", [name]),
    )
    assert listed["data"] == [kept] and "key" not in kept
    assert kept["spend_limit"] == {"amount": "10.0000000000", "cycle": "monthly"}
    assert changed == kept | {"status": "paused", "spend_limit": None}
    assert rotated["key"] != made["key"] and rotated["key_preview"] != kept["key_preview"]
    revoked, missing = lava(("spendKeys.revoke", [name]), ("spendKeys.retrieve", [name]))
    assert revoked == {"success": True} and "404" in missing


def logs_in(lava: Client, shop: Any, browser: Any, tmp: Path, monkeypatch: Any) -> None:
    """`Lava.login`: it opens a browser, a person says yes in the console, it has a key. Once."""
    opened = tmp / "opened"
    opener = tmp / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{opener.parent}:{os.environ['PATH']}")
    base = lava.url.removesuffix("/v1/")
    answers: list[Any] = []
    login = threading.Thread(
        target=lambda: answers.append(lava.one("Lava.login", {"baseUrl": base}))
    )
    login.start()
    for _ in range(300):
        if opened.exists():
            break
        time.sleep(0.1)
    asked = urlsplit(opened.read_text().strip())
    browser.force_login(owner(shop), backend="billing.tenancy.RoleBackend")
    page = browser.get(f"{asked.path}?{asked.query}", follow=True)
    assert b"Give it a key" in page.content
    port = parse_qs(asked.query)["port"][0]
    assert f"form-action 'self' http://127.0.0.1:{port};" in page["Content-Security-Policy"]
    sent = browser.post(page.wsgi_request.get_full_path())
    code = parse_qs(urlsplit(sent["Location"]).query)["code"][0]
    assert b"logged in" in httpx.get(sent["Location"], trust_env=False).content
    login.join(30)
    (credentials,) = answers
    assert credentials["merchant_id"] == shop.merchant.public_id
    key = SecretKey.objects.of(shop.merchant).by_public_id(credentials["secret_key_id"])
    assert key.secret_hash == ids.secret_hash(credentials["secret_key"])
    again = lava.one("Lava.exchangeAuthCode", {"code": code, "baseUrl": lava.url})
    assert "invalid_code" in again or "was used" in again
    # By hand, as a program without a browser does it.
    other = keys.offer(shop.merchant, user=owner(shop), now=timezone.now())
    lava.one("Lava.exchangeAuthCode", {"code": other, "baseUrl": lava.url})


def owner(shop: Any) -> Any:
    return shop.merchant.organization.memberships.get(role="owner").user
