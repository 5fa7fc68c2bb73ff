"""The journal: one row for every API call that arrived, answered or not, for "charged once" to be
asserted on.

Written by `pipeline`; read through /_control/journal. Card numbers and codes are masked.
"""

from __future__ import annotations

import json
from typing import Any

from lava.demo.card_network.store import Store

_COLUMNS = (
    "id",
    "at",
    "mode",
    "method",
    "path",
    "idempotency_key",
    "params",
    "status",
    "replayed",
    "fault",
    "request_id",
    "account",
)


def arrived(
    store: Store,
    *,
    at: int,
    mode: str | None,
    method: str,
    path: str,
    idempotency_key: str | None,
    params: dict[str, Any],
    request_id: str,
    account: str,
) -> int:
    """Note a call before anything is done for it; answers the row's number."""
    return store.write(
        "INSERT INTO journal (at, mode, method, path, idempotency_key, params, request_id, "
        "account) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (at, mode, method, path, idempotency_key, json.dumps(_masked(params)), request_id, account),
    )


def answered(store: Store, id: int, *, status: int, replayed: bool) -> None:
    """Note the answer that is about to be sent."""
    store.write(
        "UPDATE journal SET status = ?, replayed = ? WHERE id = ?", (status, int(replayed), id)
    )


def struck(store: Store, id: int, fault: str) -> None:
    """Note that a fault was applied to a call."""
    store.write("UPDATE journal SET fault = ? WHERE id = ?", (fault, id))


def entries(
    store: Store,
    *,
    mode: str | None = None,
    method: str | None = None,
    path: str | None = None,
    idempotency_key: str | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[dict[str, Any]]:
    """The calls, oldest first."""
    where, values = "id > ?", [after]
    arguments: list[Any] = list(values)
    for condition, value in (
        ("mode = ?", mode),
        ("method = ?", method),
        ("path GLOB ?", path),
        ("idempotency_key = ?", idempotency_key),
    ):
        if value is not None:
            where += f" AND {condition}"
            arguments.append(value)
    rows = store.query(
        f"SELECT {', '.join(_COLUMNS)} FROM journal "  # noqa: S608  (our own column names)
        f"WHERE {where} ORDER BY id LIMIT ?",
        (*arguments, limit),
    )
    found = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    for entry in found:
        entry["params"] = json.loads(entry["params"])
        entry["replayed"] = bool(entry["replayed"])
    return found


def _masked(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, key) for key, inner in value.items()}
    if name == "number" and isinstance(value, str):
        return "*" * max(len(value) - 4, 0) + value[-4:]
    if name == "cvc":
        return "***"
    return value
