"""Tell the merchant: record what happened in the transaction that caused it.

Any money verb may call `record`; nothing here talks to a network.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from billing.models import Connection, Event, Merchant


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
