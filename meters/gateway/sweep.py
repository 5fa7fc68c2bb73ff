"""What a dead process left: calls that nobody says are alive. Each is settled or freed, once.

Called by `meters.tasks` on the timetable. A call of which something had come back is charged for
what is known of it (its input as estimated, its output as last seen) and marked `partial`; any
other is freed. Whoever settles first counts: `meters_settle` is idempotent.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from billing import prepared, tasks
from meters import costs
from meters.gateway import providers, store
from meters.gateway.models import GatewayCall, ModelPrice, Provider
from meters.gateway.readers import Usage

# A living process speaks every two seconds.
DEAD_AFTER = timedelta(seconds=30)
BATCH = 200


def dead(now: datetime) -> list[UUID]:
    """Running calls that were last seen alive too long ago, oldest first; `now` in real time."""
    rows = GatewayCall.objects.filter(
        status=GatewayCall.Status.PENDING, seen_at__lt=now - DEAD_AFTER
    )
    return list(rows.order_by("seen_at").values_list("pk", flat=True)[:BATCH])


def settle(call_id: UUID, *, now: datetime) -> store.Settled | None:
    """Settle or free one dead call; None when it lives, or was settled meanwhile."""
    call = GatewayCall.objects.select_related("merchant").get(pk=call_id)
    if call.status != GatewayCall.Status.PENDING or call.seen_at >= now - DEAD_AFTER:
        return None
    if not call.seen_bytes:
        told = store.Settlement(
            status="abandoned", billed=False, error="process_died", model=call.model
        )
    else:
        used = Usage(input=call.estimated_input, output=call.seen_output)
        told = store.Settlement(
            status="completed",
            billed=True,
            http_status=200,
            error="process_died",
            model=call.model,
            usage=used.counts(),
            input_tokens=used.input,
            output_tokens=used.output,
            cost=_cost(call, used, now=now + call.merchant.clock_offset),
            flags=("partial", "estimated"),
            received=call.seen_bytes,
        )
    settled = store.settled(
        store.SETTLE.row(prepared.params(*store.settle_params(call_id, told, now)))
    )
    if settled.collect and settled.connection is not None:
        tasks.hint_overage(settled.connection)
    if settled.fell and settled.connection is not None:
        tasks.hint_fall(settled.connection)
    return settled


def _cost(call: GatewayCall, used: Usage, *, now: datetime) -> costs.Cost | None:
    row: Any = providers.BY_SLUG.get(call.provider.lower())
    row = row or Provider.objects.of(call.merchant).filter(slug=call.provider).first()
    overrides = ModelPrice.objects.of(call.merchant).values()
    return costs.find(
        call.provider,
        (call.model,),
        used,
        prices=row.prices if row else "",
        overrides=[costs.override(price) for price in overrides],
        currency=call.merchant.currency,
        now=now,
    )
