"""A machine's clock jumps, forth and back: what is acknowledged stays and is there once, nothing is
renewed that is not due, and the audit is silent."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, RequestFactory
from django.utils import timezone

from billing import clock, credits, sweep, tasks
from billing.models import Connection, Payment
from lava import clocks
from lava.api.door import Door
from lava.asgi import application
from lava.demo.card_network.process import CardNetwork
from lava.management.commands import audit
from tests import card_network as cn

pytestmark = pytest.mark.django_db


def renewals() -> int:
    return Payment.objects.filter(purpose="renewal", status="succeeded").count()


def sound(shop: cn.Shop) -> None:
    """Both sides' payments are the same, and every rule holds."""
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)
    assert audit.broken(3) == {}


@pytest.mark.parametrize("days", [40, -40])
def test_a_worker_whose_clock_has_jumped_does_nothing_until_it_is_right(
    card_network: CardNetwork, days: int
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    key = str(connection.subscription.pk)
    with time_machine.travel(timezone.now() + timedelta(days=days), tick=True):
        # It looks due from here.
        assert bool(sweep.renewals_due(timezone.now())) is (days > 0)
        tasks.renew(key)
        tasks.expire_grants(str(connection.pk))
        assert renewals() == 0
    assert credits.balance(connection, now=shop.now).total == 25
    sound(shop)
    # Right again, it does what is due, once.
    clock.advance(shop.merchant, to=connection.subscription.cycle_end, run=False)
    tasks.renew(key)
    tasks.renew(key)
    assert renewals() == 1
    sound(shop)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hours", [2, -2])
def test_a_web_server_whose_clock_has_jumped_answers_503_until_it_is_right(
    card_network: CardNetwork, hours: int
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    # As the server has it: the short way of a charge before Django.
    door = Door(WSGIHandler())

    def post(name: str, path: str = "/v1/requests") -> tuple[int, dict[str, Any]]:
        body = {"request_id": name, "connection_id": connection.public_id, "meter_slug": "chat",
                "input_tokens": 2_000_000}  # fmt: skip
        request = RequestFactory().post(
            path, body, content_type="application/json",
            headers={"Authorization": f"Bearer {shop.key}"},
        )  # fmt: skip
        told: list[str] = []
        pieces = door(request.environ, lambda status, headers, *_: told.append(status))
        return int(told[0][:3]), json.loads(b"".join(pieces))

    first = post("before")
    assert first[0] == 200
    with time_machine.travel(timezone.now() + timedelta(hours=hours), tick=True):
        for path in ("/v1/requests", "/v1/holds", "/v1/connections"):
            status, refused = post("astray", path)
            assert (status, refused["error"]["code"]) == (503, "unavailable")
            assert "clock" in refused["error"]["message"]
        assert Client().get("/readyz").headers["Retry-After"]
        assert Client().get("/healthz").status_code == 200
    # Right again: what was refused is taken, what was answered is answered again.
    assert post("astray")[0] == 200 and post("before") == first
    row = Connection.objects.get(pk=connection.pk)
    assert credits.balance(row, now=shop.now).total == Decimal(25 - 2 - 2)
    sound(shop)


def test_the_gateway_refuses_too(card_network: CardNetwork) -> None:
    said: list[dict[str, Any]] = []

    async def call() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
        await application(scope, receive, send)

    with time_machine.travel(timezone.now() + timedelta(hours=2), tick=True):
        assert not clocks.is_right()
        asyncio.run(call())
    assert said[0]["status"] == 503 and "clock" in json.loads(said[1]["body"])["error"]["message"]
