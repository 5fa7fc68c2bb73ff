"""Calls through a live gateway to the local AI provider."""

from __future__ import annotations

import json
from decimal import Decimal

import httpx
import pytest

from tests.meters.gateway.live import PROVIDER_KEY, Server, Shop, chat, server, settled, shop, sound

__all__ = ["server", "shop"]


def test_a_call_is_forwarded_measured_and_charged(shop: Shop) -> None:
    answer = shop.ask(headers={"cookie": "a=b", "x-lava-metadata": '{"team": "a"}', "x-own": "1"})
    assert answer.status_code == 200, answer.text
    used = answer.json()["usage"]
    call = shop.call()
    fee = Decimal(used["total_tokens"]) * 3 / 1_000_000
    assert Decimal(answer.headers["x-lava-charge"]) == fee == call.charged
    assert Decimal(answer.headers["x-lava-balance"]) == 25 - fee == shop.balance()
    assert answer.headers["x-lava-request-id"] == call.public_id
    assert float(answer.headers["x-lava-overhead-ms"]) >= 0
    assert (call.status, call.http_status, call.metadata) == ("completed", 200, {"team": "a"})
    (arrived,) = shop.server.journal()
    assert arrived["headers"]["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert arrived["headers"]["x-own"] == "1"
    assert arrived["headers"]["accept-encoding"] == "identity"
    assert not {"cookie", "x-lava-metadata"} & set(arrived["headers"])
    assert json.loads(arrived["body"]) == chat()
    found = httpx.get(
        f"{shop.server.url}/v1/requests/{call.public_id}",
        headers={"authorization": f"Bearer {shop.key}"},
    )
    assert Decimal(found.json()["fee"]["amount"]) == fee
    sound(shop)
