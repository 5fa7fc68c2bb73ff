"""`GET /v1/models`: the models whose calls can be routed and priced, in OpenAI's shape.

The list is that of the maintained price library (genai-prices, offline), so what is listed is what
`percentage` meters can take a share of.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from rest_framework.request import Request
from rest_framework.response import Response

from billing import money
from billing.api.views import View

# OpenAI's shape asks for a time; the library knows none, so the list has one, that of its format.
_CREATED = 1704067200


class ModelsView(View):
    """`GET /v1/models`"""

    def get(self, request: Request) -> Response:
        provider = self.query.get("provider")
        found = [row for row in catalog() if provider in (None, "", row["owned_by"])]
        return Response({"object": "list", "data": found})


@lru_cache(maxsize=1)
def catalog() -> tuple[dict[str, Any], ...]:
    """Every model once, by provider and name; `pricing` in money per million tokens."""
    found = []
    for provider in get_snapshot().providers:
        for model in provider.models:
            if model.deprecated:
                continue
            price = model.prices if not isinstance(model.prices, list) else model.prices[-1].prices
            found.append(
                {
                    "id": f"{provider.id}/{model.id}",
                    "object": "model",
                    "created": _CREATED,
                    "owned_by": provider.id,
                    "pricing": {
                        "input_per_million": _rate(getattr(price, "input_mtok", None)),
                        "output_per_million": _rate(getattr(price, "output_mtok", None)),
                    },
                }
            )
    return tuple(sorted(found, key=lambda row: str(row["id"])))


def _rate(value: Any) -> str | None:
    """A rate per million; of one with steps the first counts."""
    base = getattr(value, "base", value)
    return None if base is None else money.wire(Decimal(base))
