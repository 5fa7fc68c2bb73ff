"""Faults on demand: armed through /_control/faults, each spent by the next calls that match. Used
by `pipeline`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from lava.demo.card_network.store import MODES, Store

ACTIONS = (
    "error",
    "error_after",
    "drop",
    "drop_before",
    "in_use",
    "delay",
    "delay_after",
)
_LONGEST_DELAY_MS = 10 * 60 * 1000


class NoAnswerError(Exception):
    """Close the line without a word."""


@dataclass(frozen=True)
class Fault:
    """One armed fault; see the package's docstring for the actions. `path` is a glob."""

    action: str
    method: str | None = None
    path: str = "*"
    mode: str | None = None
    status: int | None = None
    delay_ms: int = 0
    stored: bool = False

    def matches(self, *, method: str, path: str, mode: str) -> bool:
        """Whether a call is meant."""
        return (
            self.method in (None, method)
            and self.mode in (None, mode)
            and fnmatchcase(path, self.path)
        )


def read(order: dict[str, Any]) -> tuple[Fault, int]:
    """A fault and how many times it strikes, from the control endpoint's JSON. Raises
    ValueError."""
    order = dict(order)
    times = order.pop("times", 1)
    unknown = set(order) - set(Fault.__dataclass_fields__)
    if unknown:
        raise ValueError(f"unknown field: {', '.join(sorted(unknown))}")
    if order.get("action") not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}")
    fault = Fault(**order)
    if not isinstance(times, int) or times < 1:
        raise ValueError("times must be a whole number from 1")
    if fault.mode not in (None, *MODES):
        raise ValueError("mode must be test or live")
    if fault.status is not None and not 400 <= fault.status <= 599:
        raise ValueError("status must be from 400 to 599")
    if not 0 <= fault.delay_ms <= _LONGEST_DELAY_MS:
        raise ValueError(f"delay_ms must be from 0 to {_LONGEST_DELAY_MS}")
    return fault, times


def arm(store: Store, fault: Fault, times: int) -> None:
    """Let the next `times` matching calls fail."""
    store.write(
        "INSERT INTO faults (remaining, rule) VALUES (?, ?)", (times, json.dumps(asdict(fault)))
    )


def armed(store: Store) -> list[dict[str, Any]]:
    """What has not struck yet, in the order in which it will."""
    rows = store.query("SELECT remaining, rule FROM faults ORDER BY id")
    return [{**json.loads(rule), "times": remaining} for remaining, rule in rows]


def disarm(store: Store) -> None:
    """Forget all faults."""
    store.write("DELETE FROM faults")


def strike(store: Store, *, method: str, path: str, mode: str) -> Fault | None:
    """The fault for this call, counted down; None when none is meant for it."""
    if not store.query("SELECT 1 FROM faults LIMIT 1"):
        return None
    with store.transaction():
        for id, remaining, rule in store.query(
            "SELECT id, remaining, rule FROM faults ORDER BY id"
        ):
            fault = Fault(**json.loads(rule))
            if not fault.matches(method=method, path=path, mode=mode):
                continue
            if remaining > 1:
                store.write("UPDATE faults SET remaining = remaining - 1 WHERE id = ?", (id,))
            else:
                store.write("DELETE FROM faults WHERE id = ?", (id,))
            return fault
    return None
