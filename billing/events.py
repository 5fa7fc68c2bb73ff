"""Tell the merchant: record what happened in the transaction that caused it.

Any money verb may call `record`; nothing here talks to a network. After the commit a worker makes
the deliveries of an event and sends them (`billing.deliveries`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from billing.models import Connection, Event, Merchant

# What an endpoint may ask for (api.md, Events to the merchant).
NAMES = (
    "connection.created",
    "connection.wallet.balance.updated",
    "connection.depleted",
    "connection.deleted",
    "subscription.created",
    "subscription.renewed",
    "subscription.past_due",
    "subscription.changed",
    "subscription.cancelled",
    "payment.succeeded",
    "payment.failed",
    "payment.refunded",
    "payment.action_required",
    "payment.refund_failed",
    "payment.disputed",
    "payment.dispute_closed",
    "connection.card_removed",
    "topup.capped",
    "volume.settled",
    "merchant.card_account_changed",
)


def record(
    merchant: Merchant,
    name: str,
    *,
    now: datetime,
    connection: Connection | None = None,
    **data: Any,
) -> Event:
    """Write one event, e.g. `payment.succeeded`, with JSON-ready `data`."""
    event = Event(merchant=merchant, name=name, connection=connection, data=data, created_at=now)
    event.save()
    return event
