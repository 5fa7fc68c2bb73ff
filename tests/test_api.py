"""The wire: what every endpoint refuses, in one envelope, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from billing.models import LedgerEntry
from meters.models import UsageRequest
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop() -> Any:
    class Shop:
        merchant = factories.make_merchant()
        plan = factories.make_plan(merchant)
        meter = factories.make_meter(merchant, plan)
        subscription = factories.make_subscription(plan, now=timezone.now())
        connection = subscription.connection
        key = factories.make_key(merchant)

        def post(self, path: str, body: Any, **headers: str) -> Any:
            return Client().post(
                path,
                body,
                content_type="application/json",
                headers={"Authorization": f"Bearer {self.key}"} | headers,
            )

        def get(self, path: str, **query: str) -> Any:
            return Client().get(path, query, headers={"Authorization": f"Bearer {self.key}"})

        def body(self, **fields: Any) -> dict[str, Any]:
            return {
                "request_id": "r1",
                "connection_id": self.connection.public_id,
                "meter_slug": "chat",
                "input_tokens": 1000,
            } | fields

    return Shop()


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input_tokens": -1}, 400, "input_tokens"),
        ({"input_tokens": 1.5}, 400, "input_tokens"),
        ({"input_tokens": True}, 400, "input_tokens"),
        ({"input_tokens": "1"}, 400, "input_tokens"),
        ({"input_tokens": 10**13}, 400, "input_tokens"),
        ({"input_seconds": -1}, 400, "input_seconds"),
        ({"input_seconds": 0.1234567}, 400, "input_seconds"),
        ({"provider_cost": 1.5}, 400, "provider_cost"),
        ({"provider_cost": "-1"}, 400, "provider_cost"),
        ({"provider_cost": "1e3"}, 400, "provider_cost"),
        ({"provider_cost": "NaN"}, 400, "provider_cost"),
        ({"provider_cost": "\uff11"}, 400, "provider_cost"),
        ({"request_id": ""}, 400, "request_id"),
        ({"request_id": None}, 400, "request_id"),
        ({"request_id": "x" * 256}, 400, "request_id"),
        ({"request_id": 7}, 400, "request_id"),
        ({"metadata": []}, 400, "metadata"),
        ({"metadata": {"a b": "c"}}, 400, "metadata"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"timestamp": "yesterday"}, 400, "timestamp"),
        ({"timestamp": "2026-11-23T10:00:00"}, 400, "timestamp"),
        ({"timestamp": "2020-01-01T00:00:00Z"}, 422, "timestamp"),
        ({"enforce": "yes"}, 400, "enforce"),
        ({"connection_id": "con_1"}, 404, "connection_id"),
        ({"connection_id": "con_01J8ZZZZZZZZZZZZZZZZZZZZZZ"}, 404, "connection_id"),
        ({"meter_slug": "none"}, 404, "meter_slug"),
    ],
)
def test_a_bad_field_is_named_and_changes_nothing(
    shop: Any, fields: dict[str, Any], status: int, param: str
) -> None:
    lines = LedgerEntry.objects.count()
    answer = shop.post("/v1/requests", shop.body(**fields))
    assert answer.status_code == status, answer.content
    error = answer.json()["error"]
    assert (error["status"], error["param"]) == (status, param)
    assert error["message"] and error["code"]
    assert error["request_id"] == answer["x-lava-request-id"]
    assert not UsageRequest.objects.exists()
    assert LedgerEntry.objects.count() == lines


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"request_id": "a", "request_id": "b"}',
        b'{"request_id": "\\u0000"}',
        b'{"request_id": "\\ud800"}',
        b'{"request_id": "\xff"}',
        b"[" * 40 + b"]" * 40,
        b'{"metadata": ' + b"[" * 100_000 + b"}",
        b"\x00" * 20,
    ],
)
def test_a_broken_body_is_refused_as_json(shop: Any, raw: bytes) -> None:
    answer = shop.post("/v1/requests", raw)
    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == 400
    assert not UsageRequest.objects.exists()


def test_a_body_over_the_limit_is_too_large(shop: Any) -> None:
    answer = shop.post("/v1/requests", b'{"a": "' + b"x" * (1024 * 1024) + b'"}')
    assert answer.status_code == 413


def test_other_bodies_than_json_are_unsupported(shop: Any) -> None:
    answer = Client().post(
        "/v1/requests",
        "a=b",
        content_type="application/x-www-form-urlencoded",
        headers={"Authorization": f"Bearer {shop.key}"},
    )
    assert answer.status_code == 415


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options", "head"])
@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nothing", "/v1/requests/x/y/z", "/v1/connections/%00"]
)
def test_every_path_under_v1_answers_json(shop: Any, method: str, path: str) -> None:
    answer = getattr(Client(), method)(path, headers={"Authorization": f"Bearer {shop.key}"})
    assert answer.status_code in (404, 405)
    assert answer["Content-Type"] == "application/json"
    assert answer["x-lava-request-id"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic abc",
        "Bearer aks_test_short",
        "Bearer aks_live_" + "0" * 49,
        "Bearer \u00e9",
    ],
)
@pytest.mark.parametrize("path", ["/v1/requests", "/v1/connections", "/v1/test_helpers/outbox"])
def test_without_a_valid_key_nothing_is_answered(shop: Any, header: str, path: str) -> None:
    answer = Client().get(path, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] in ("key_missing", "invalid_key")
    if path == "/v1/requests":
        posted = Client().post(
            path, shop.body(), content_type="application/json", headers={"Authorization": header}
        )
        assert posted.status_code == 401


def test_a_trailing_slash_is_taken_and_never_redirected(shop: Any) -> None:
    answer = shop.post("/v1/requests/", shop.body())
    assert answer.status_code == 200
    assert shop.get("/v1/requests/r1/").json() == answer.json()


def test_another_merchants_things_are_not_found(shop: Any) -> None:
    shop.post("/v1/requests", shop.body())
    shop.key = factories.make_key(factories.make_merchant())
    for path in (
        f"/v1/connections/{shop.connection.public_id}",
        f"/v1/connections/{shop.connection.public_id}/subscription",
        f"/v1/connections/{shop.connection.public_id}/balance",
        f"/v1/connections/{shop.connection.public_id}/ledger",
        f"/v1/subscription_configs/{shop.plan.public_id}",
        f"/v1/meters/{shop.meter.public_id}",
        f"/v1/subscriptions/{shop.subscription.public_id}",
        "/v1/requests/r1",
    ):
        assert shop.get(path).status_code == 404, path
    assert shop.get("/v1/connections").json() == {"data": [], "has_more": False}


def test_the_ledger_and_the_balance_say_the_same(shop: Any) -> None:
    shop.post("/v1/requests", shop.body(input_tokens=5_000_000))
    base = f"/v1/connections/{shop.connection.public_id}"
    balance = shop.get(f"{base}/balance").json()
    lines = shop.get(f"{base}/ledger").json()["data"]
    assert balance["total_remaining"] == lines[0]["balance_after"] == "10.0000000000"
    assert [line["kind"] for line in lines] == ["usage", "grant"]


@pytest.mark.parametrize("limit", ["0", "101", "x", "-1", "1.5", "\uff11"])
def test_a_limit_out_of_range_is_refused(shop: Any, limit: str) -> None:
    answer = shop.get("/v1/connections", limit=limit)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


def test_live_keys_have_no_test_helpers() -> None:
    key = factories.make_key(factories.make_merchant(sandbox=False))
    for path in ("clock", "outbox"):
        answer = Client().get(
            f"/v1/test_helpers/{path}", headers={"Authorization": f"Bearer {key}"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "sandbox_only")


def test_the_clock_moves_to_the_next_renewal_of_a_free_plan() -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant, price="0", credit="5", rollover_type="none")
    subscription = factories.make_subscription(plan, now=merchant.now())
    key = factories.make_key(merchant)
    answer = Client().post(
        "/v1/test_helpers/clock/advance",
        {"to_next_renewal": True},
        content_type="application/json",
        headers={"Authorization": f"Bearer {key}"},
    )
    assert answer.status_code == 200, answer.content
    subscription.refresh_from_db()
    assert subscription.cycle_index == 1
    kinds = LedgerEntry.objects.filter(connection=subscription.connection)
    assert list(kinds.values_list("kind", flat=True)) == ["grant", "expire", "grant"]
