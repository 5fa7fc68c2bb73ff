"""A merchant with one of everything, and the API's description with its real ids filled in."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from typing import Any

from django.db import connection
from django.test import Client
from django.utils import timezone

from billing import deliveries, events, holds, keys, webhooks
from billing.models import Delivery
from checkout import sessions
from lava.api.openapi import schemas, views
from meters.gateway import spendkeys
from tests import factories


class World:
    """One merchant's things, each with the id a client would name."""

    def __init__(self) -> None:
        self.merchant = factories.make_merchant()
        self.plan = factories.make_plan(self.merchant, price="0", credit="100")
        self.bundle = factories.make_bundle(self.plan)
        self.meter = factories.make_meter(self.merchant, self.plan)
        now = self.merchant.now()
        self.subscription = factories.make_subscription(self.plan, now=now)
        self.connection = self.subscription.connection
        self.alone = factories.make_connection(self.merchant, now=now)
        self.session = sessions.create(
            self.merchant,
            mode="subscription",
            origin_url="https://app.example",
            plan=self.plan,
            now=now,
        )
        self.webhook, _ = webhooks.create(
            self.merchant, name="x", url="https://hooks.example.com/", now=timezone.now()
        )
        events.record(self.merchant, "payment.succeeded", now=now)
        deliveries.tell(self.merchant.pk, now=timezone.now())
        self.delivery = Delivery.objects.get(endpoint=self.webhook)
        self.hold = holds.place(
            self.merchant, self.connection.pk, amount=Decimal(1), purpose="render", now=now
        )
        self.key = factories.make_key(self.merchant)
        self.token, _ = spendkeys.make(self.merchant, name="bot", now=now)
        self.other_key = keys.make(self.merchant, name="other")[0]

    def ids(self) -> dict[str, str]:
        """Path parameters by name."""
        return {
            "connection_id": self.connection.public_id,
            "customer_id": self.connection.public_id,
            "plan_id": self.plan.public_id,
            "bundle_id": self.bundle.public_id,
            "meter_id": self.meter.public_id,
            "subscription_id": self.subscription.public_id,
            "session_id": self.session.public_id,
            "webhook_id": self.webhook.public_id,
            "delivery_id": self.delivery.public_id,
            "key_id": self.other_key.public_id,
            "token_id": self.token.public_id,
            "hold_id": self.hold.public_id,
            "request_id": "job-1",
        }

    def report(self) -> None:
        """Usage under the id that `ids` names."""
        answer = Client().post(
            "/v1/requests",
            {
                "request_id": "job-1",
                "connection_id": self.connection.public_id,
                "meter_slug": "chat",
                "input_tokens": 5,
            },
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.key}"},
        )
        assert answer.status_code == 200, answer.content

    def real(self, text: str) -> str:
        """A text with the examples' ids replaced by real ones."""
        for example, real in (
            (schemas.CONNECTION, self.connection.public_id),
            (schemas.PLAN, self.plan.public_id),
            (schemas.BUNDLE, self.bundle.public_id),
            (schemas.METER, self.meter.public_id),
        ):
            text = text.replace(example, real)
        return text


@cache
def description() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(views.document())
    return found


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Every (method, path, operation) of the description."""
    return [
        (method.upper(), path, operation)
        for path, methods in sorted(description()["paths"].items())
        for method, operation in sorted(methods.items())
    ]


def rows() -> dict[str, int]:
    """How many rows every table of the product has, in one look."""
    tables = [
        name
        for name in connection.introspection.table_names()
        if name.startswith(("billing_", "meters_", "checkout_"))
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in tables)
        )
        return dict(cursor.fetchall())
