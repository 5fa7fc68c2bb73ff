"""`GET /metrics`: figures of the database in Prometheus' words, for whoever may look."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from tests import factories

pytestmark = pytest.mark.django_db


def figures(client: Client, **headers: str) -> dict[tuple[str, ...], float]:
    answer = client.get("/metrics", **headers)
    assert answer.status_code == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def test_usage_fees_and_what_is_due_are_there(client: Client) -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(merchant)
    factories.make_meter(merchant, plan)
    key = factories.make_key(merchant)
    connection = factories.make_connection(merchant, now=merchant.now())
    factories.make_subscription(plan, connection=connection, now=merchant.now())
    from tests.meters.test_charge import report

    report(key, connection, "one", input_tokens=1_000_000)
    report(key, connection, "two", input_tokens=1_000_000)
    found = figures(client)
    assert found["lava_up",] == 1
    assert found["lava_usage_requests_total", "sandbox"] == 2
    assert Decimal(str(found["lava_fees_total", "USD", "sandbox"])) == 6
    assert found["lava_renewals_due",] == 0
    assert found["lava_holds_open",] == 0
    assert found["lava_usage_unsummed",] > 0
    before = found["lava_renewals_due",]
    merchant.clock_offset = timedelta(days=32)
    merchant.save()
    assert figures(client)["lava_renewals_due",] == before + 1


def test_a_token_guards_it_where_one_is_set(client: Client, settings: Any) -> None:
    settings.LAVA_METRICS_TOKEN = "a token of the operator"
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", HTTP_AUTHORIZATION="Bearer wrong").status_code == 404
    assert figures(client, HTTP_AUTHORIZATION="Bearer a token of the operator")["lava_up",] == 1


def test_without_a_token_only_this_machine_may_look(client: Client, settings: Any) -> None:
    settings.LAVA_METRICS_TOKEN = ""
    assert client.get("/metrics", REMOTE_ADDR="203.0.113.9").status_code == 404
    # A proxy on this machine asks for somebody else.
    assert client.get("/metrics", HTTP_X_FORWARDED_FOR="203.0.113.9").status_code == 404
    assert client.get("/metrics", REMOTE_ADDR="127.0.0.1").status_code == 200
