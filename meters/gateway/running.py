"""The calls that run in this process: kept alive past their clients, and said to be alive.

One registry a process. A call runs in a task of its own, so that a client that leaves cancels
neither its reading nor its settlement; every two seconds the database is told how far the calls
have come, so that the sweep knows the living from the dead, and the dead are not for free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol
from uuid import UUID

import structlog

from meters.gateway import store
from meters.gateway.store import Store

log = structlog.get_logger(__name__)

BEAT_S = 2.0
# How long a process that is told to stop waits for its calls.
STOP_S = 20.0


class Progress(Protocol):
    """A running call, as the heartbeat sees it."""

    id: UUID

    def progress(self) -> tuple[int, int]:
        """Tokens out so far, about; bytes so far."""


class Running:
    """The calls of this process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._calls: dict[UUID, Progress] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._beat: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something to its end, whoever waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def add(self, call: Progress) -> None:
        """A call is held: from now on it is said to live."""
        self._calls[call.id] = call
        if self._beat is None or self._beat.done():
            self._beat = asyncio.get_running_loop().create_task(self._beats())

    def remove(self, call: Progress) -> None:
        """A call is settled."""
        self._calls.pop(call.id, None)

    async def stop(self) -> None:
        """Wait for what runs, as long as it is reasonable."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        if self._beat is not None:
            self._beat.cancel()

    async def _beats(self) -> None:
        while self._calls:
            await asyncio.sleep(BEAT_S)
            calls = [(call.id, *call.progress()) for call in list(self._calls.values())]
            if not calls:
                return
            try:
                await self.store.seen(calls)
            except store.FAULTS:
                log.warning("gateway_heartbeat_missed", calls=len(calls))
