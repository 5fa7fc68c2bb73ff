"""`GET /v1/models`: what a merchant's keys can reach through the gateway, with prices.

In OpenAI's shape, so that SDKs and the official client's `models.list()` read it; each model also
names its provider and, where they are known, its rates. Asked by the gateway (for a token) and by
the API's view (for a secret key), so that both doors answer the same.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing import money
from meters import costs
from meters.gateway.providers import Provider

# OpenAI's shape asks for a time; nobody knows one, so the list has one, that of its format.
_CREATED = 1704067200


def listing(
    rows: Iterable[Provider],
    *,
    keyed: Collection[str],
    overrides: Sequence[costs.Override],
    now: datetime,
    allowed_providers: Collection[str] | None = None,
    allowed_models: Collection[str] | None = None,
    provider: str = "",
) -> list[dict[str, Any]]:
    """Models of the providers whose key is entered, by provider and name, within what is allowed.

    A price of the merchant's own stands over the library's, in their currency; the library's is in
    dollars.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.slug not in keyed or (provider and row.slug.lower() != provider.lower()):
            continue
        if allowed_providers is not None and row.slug not in allowed_providers:
            continue
        known = {name: rates for name, *rates in models(row.prices, now.date().isoformat())}
        named = [
            price.model
            for price in overrides
            if price.provider == row.slug and not any(sign in price.model for sign in "*?")
        ]
        for name in sorted({*known, *named}):
            if allowed_models is None or name in allowed_models:
                own = costs.chosen(row.slug, name, overrides, now)
                found.setdefault(name, _present(row, name, own, known.get(name, [])))
    return list(found.values())


def _present(
    row: Provider, model: str, own: costs.Override | None, library: list[str | None]
) -> dict[str, Any]:
    rates: Sequence[str | Decimal | None] = library
    if own is not None:
        rates = [own.rates.get("input_rate"), own.rates.get("output_rate")]
    pricing = None
    if any(rate is not None for rate in rates):
        names = ("input_per_million", "output_per_million")
        pricing = {
            name: None if rate is None else money.wire(Decimal(rate))
            for name, rate in zip(names, rates, strict=True)
        }
    return {
        "id": model,
        "object": "model",
        "created": _CREATED,
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
