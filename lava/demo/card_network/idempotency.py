"""Stripe's idempotency (docs.stripe.com/api/idempotent_requests): one outcome per key and mode, for
24 hours.

`pipeline` asks here before it does anything and stores the outcome in the transaction of the work,
so that a kill leaves both or neither. What failed validation is not remembered; a decline is.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lava.demo.card_network import errors
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.store import Store

MEMORY_S = 24 * 3600
LONGEST_KEY = 255


@dataclass(frozen=True)
class Outcome:
    """The first answer under a key: status, exact body, and the id of the request that made it."""

    status: int
    body: str
    request_id: str


class KeysInUse:
    """The keys whose first call is running now. In memory: a kill frees them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[tuple[str, str]] = set()

    @contextmanager
    def hold(self, mode: str, key: str | None) -> Iterator[None]:
        """Keep a key for the length of the block. Raises ApiError 409 while another call has it."""
        if key is None:
            yield
            return
        with self._lock:
            if (mode, key) in self._running:
                raise errors.key_in_use(key)
            self._running.add((mode, key))
        try:
            yield
        finally:
            with self._lock:
                self._running.discard((mode, key))


def fingerprint(params: dict[str, Any]) -> str:
    """A call's parameters as one value that does not depend on their order."""
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()


def recall(
    store: Store, *, mode: str, key: str, method: str, path: str, params: str, now: int
) -> Outcome | None:
    """The outcome remembered under `key`, or None.

    Raises ApiError 400 `idempotency_error` when it was used for another endpoint or other
    parameters.
    """
    rows = store.query(
        "SELECT method, path, fingerprint, status, body, request_id, at FROM idempotency "
        "WHERE mode = ? AND key = ?",
        (mode, key),
    )
    if not rows:
        return None
    first_method, first_path, first_params, status, body, request_id, at = rows[0]
    if at + MEMORY_S <= now:
        store.write("DELETE FROM idempotency WHERE mode = ? AND key = ?", (mode, key))
        return None
    if (first_method, first_path) != (method, path):
        raise ApiError(
            400,
            "Keys for idempotent requests can only be used for the same endpoint they were first "
            f"used for ('{path}' vs '{first_path}'). Try using a key other than '{key}' if you "
            "meant to execute a different request.",
            type="idempotency_error",
        )
    if first_params != params:
        raise ApiError(
            400,
            "Keys for idempotent requests can only be used with the same parameters they were "
            f"first used with. Try using a key other than '{key}' if you meant to execute a "
            "different request.",
            type="idempotency_error",
        )
    return Outcome(status, body, request_id)


def remember(
    store: Store,
    outcome: Outcome,
    *,
    mode: str,
    key: str,
    method: str,
    path: str,
    params: str,
    now: int,
) -> None:
    """Store the outcome of a key's first call."""
    store.write(
        "INSERT INTO idempotency "
        "(mode, key, method, path, fingerprint, status, body, request_id, at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (mode, key, method, path, params, outcome.status, outcome.body, outcome.request_id, now),
    )
