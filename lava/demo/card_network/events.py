"""Events: written in the transaction of the call that caused them, signed as Stripe signs them.

The resources call `emit`; `webhooks` sends what it queued. GET /v1/events reads the same rows.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from lava.demo.card_network.calls import Call
from lava.demo.card_network.store import Record, Store

Json = dict[str, Any]


def emit(call: Call, type: str, subject: Record, *, previous: Json | None = None) -> None:
    """Record that `type` happened to `subject`, and queue its delivery when a receiver is set.

    `previous` holds the changed attributes as they were (`data.previous_attributes`).
    """
    data: Json = {"object": json.loads(json.dumps(subject.body))}
    if previous is not None:
        data["previous_attributes"] = previous
    receiver = call.store.setting("webhook_url", None)
    event = call.new(
        "event",
        {
            "api_version": call.api_version,
            "data": data,
            "pending_webhooks": 1 if receiver else 0,
            "request": {"id": call.request_id, "idempotency_key": call.idempotency_key},
            "type": type,
        },
    )
    if receiver:
        queue(call.store, event)


def queue(store: Store, event: Record) -> None:
    """Put one delivery of an event at the end of the queue."""
    now = time.time()
    dropped = store.setting("webhook_mode", "send") == "drop"
    store.write(
        "INSERT INTO deliveries (event, mode, type, state, next_at, first_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            event.id,
            event.mode,
            event.body["type"],
            "dropped" if dropped else "pending",
            now + int(store.setting("webhook_delay_ms", 0)) / 1000,
            now,
        ),
    )


def payload(event: Record) -> bytes:
    """The body that is signed and sent: indented, as Stripe's is, so that a receiver that signs its
    own re-serialisation is caught."""
    return json.dumps(event.body, indent=2).encode()


def signature(body: bytes, secret: str, *, at: int) -> str:
    """The `Stripe-Signature` header: HMAC-SHA256 over `<at>.<body>`
    (docs.stripe.com/webhooks/signature)."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"
