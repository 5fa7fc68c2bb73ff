"""`GET /v1/models`: what a caller's keys can reach through the gateway, with prices.

In OpenAI's shape, so that SDKs and the official client's `models.list()` read it; each model also
names its provider and, where the price library knows them, its rates in dollars per million tokens.
"""

from __future__ import annotations

import functools
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from meters.gateway import providers
from meters.gateway.store import Caller


def listing(caller: Caller, *, now: datetime) -> bytes:
    """The list for a caller: models of the providers whose key the merchant has entered, within
    what the token allows."""
    data: list[dict[str, Any]] = []
    rows = {row.slug: row for row in (*providers.TABLE, *caller.own)}
    for slug in caller.keys:
        row = rows.get(slug)
        allowed = caller.allowed_providers
        if row is None or (allowed is not None and slug not in allowed):
            continue
        data += [_present(row, *model) for model in models(row.prices, now.date().isoformat())]
        data += [
            _present(row, override.model, None, None)
            for override in caller.overrides
            if override.provider == slug and "*" not in override.model
        ]
    seen: dict[str, dict[str, Any]] = {item["id"]: item for item in reversed(data)}
    found = [
        item
        for item in reversed(seen.values())
        if caller.allowed_models is None or item["id"] in caller.allowed_models
    ]
    return orjson.dumps({"object": "list", "data": found})


def _present(
    row: providers.Provider, model: str, input_rate: str | None, output_rate: str | None
) -> dict[str, Any]:
    pricing = None
    if input_rate is not None:
        pricing = {"input": input_rate, "output": output_rate, "currency": "USD", "per": 1_000_000}
    return {
        "id": model,
        "object": "model",
        "created": 0,
        "owned_by": row.slug,
        "name": row.name,
        "pricing": pricing,
    }


@functools.lru_cache(maxsize=128)
def models(prices: str, day: str) -> tuple[tuple[str, str | None, str | None], ...]:
    """The models that the price library knows of a provider, with their rates on a day."""
    if not prices:
        return ()
    from genai_prices import data_snapshot

    moment = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    found = []
    for row in data_snapshot.get_snapshot().providers:
        if row.id != prices:
            continue
        for model in row.models:
            price = model.get_prices(moment)
            found.append((model.id, _rate(price.input_mtok), _rate(price.output_mtok)))
    return tuple(found)


def _rate(value: Any) -> str | None:
    base = getattr(value, "base", value)
    return f"{base:f}" if isinstance(base, Decimal) else None
