"""Hints: a worker is woken for a row that is due, by the broker, without anybody waiting for it.

Any verb may call `wake`, after the commit of its cause. A hint is handed over by a thread of its
own: a broker that is away, or worse, that stands still, holds up no answer. A hint that is lost
costs the seconds until the sweep finds the row (`billing.sweep`).
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any
from uuid import UUID

import structlog

log = structlog.get_logger(__name__)

# After a broker was found away, hints are left to the sweep for this long.
PAUSE_S = 5.0
# Beyond so many that wait the sweep is as soon.
MOST = 1000

_waiting: queue.Queue[tuple[Any, UUID, dict[str, bool]]] = queue.Queue(MOST)
_starting = threading.Lock()
_sender: threading.Thread | None = None


def wake(task: Any, row_id: UUID, **words: bool) -> None:
    """Have a worker run a Celery task with a row's id. Never waits, never raises."""
    try:
        _waiting.put_nowait((task, row_id, words))
    except queue.Full:
        return
    _start()


def _start() -> None:
    """Once a process: a thread does not come along through a fork."""
    global _sender
    with _starting:
        if _sender is None or not _sender.is_alive():
            _sender = threading.Thread(target=_send, name="hints", daemon=True)
            _sender.start()


def _send() -> None:
    quiet_until = 0.0
    while True:
        task, row_id, words = _waiting.get()
        if time.monotonic() < quiet_until:
            continue
        try:
            task.apply_async((str(row_id),), words, retry=False)
        except Exception as error:
            quiet_until = time.monotonic() + PAUSE_S
            log.warning("broker_away", task=task.name, error=type(error).__name__)
