"""Gateway calls in the database alone: held and settled by the product's own statements, without a
server or a provider."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.utils import timezone

from billing import ids, prepared
from billing.models import Connection, Merchant
from meters import costs
from meters.gateway import store
from meters.gateway.models import ForwardToken, GatewayCall
from meters.models import Meter


def hold(
    merchant: Merchant,
    *,
    connection: Connection | None = None,
    meter: Meter | None = None,
    token: ForwardToken | None = None,
    model: str = "gpt-4o-mini",
    stream: bool = False,
) -> UUID:
    """A call that runs."""
    made = ids.new(sandbox=merchant.is_sandbox)
    row = store.HOLD.row(
        prepared.params(
            made, merchant.pk, token.pk if token else None,
            connection.pk if connection else None, meter.pk if meter else None,
            timezone.now(), "openai", False, "POST", "/v1/chat/completions", model, stream,
            False, True, 100, 100, 0, Decimal(0), Decimal("0.001"), Decimal("0.0005"), None,
            False, timedelta(hours=1), "{}", None, None, False,
        )
    )  # fmt: skip
    assert row[0] == "held", row
    return made


def settle(call: UUID, **told: Any) -> None:
    """The end of a call: what it used and what it cost, unless said otherwise."""
    said: dict[str, Any] = {
        "status": "completed", "billed": True, "http_status": 200, "model": "gpt-4o-mini",
        "usage": {"input": 1000, "output": 500}, "input_tokens": 1000, "output_tokens": 500,
        "cost": costs.Cost(Decimal("0.00045"), costs.LIBRARY, "gpt-4o-mini",
                           {"input_mtok": "0.15", "output_mtok": "0.6"}),
        "received": 2000, "overhead_ms": 9, "first_byte_ms": 412, "total_ms": 2140,
    } | told  # fmt: skip
    settlement = store.Settlement(**said)
    store.SETTLE.row(prepared.params(*store.settle_params(call, settlement, timezone.now())))


def block(
    merchant: Merchant,
    *,
    connection: Connection | None = None,
    token: ForwardToken | None = None,
    status: int = 402,
    error: str = "insufficient_credits",
) -> UUID:
    """A call that was refused."""
    made = ids.new(sandbox=merchant.is_sandbox)
    store.BLOCKED.row(
        prepared.params(
            made, merchant.pk, token.pk if token else None,
            connection.pk if connection else None, None, timezone.now(), "openai", False,
            "POST", "/v1/chat/completions", "gpt-4o-mini", False, status, error, 3,
        )
    )  # fmt: skip
    return made


def call(merchant: Merchant, **of: Any) -> GatewayCall:
    """A call from its hold to its settlement."""
    made = hold(merchant, **of)
    settle(made)
    return GatewayCall.objects.of(merchant).get(pk=made)
