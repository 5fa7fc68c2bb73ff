"""How many statements of a process run at once: as many as keep the processors busy, no more.

Each server process of the database has tables, plans and caches of its own to warm, so sixteen of
them on two processors do the same work slower than four (a fifth of its processor time). But one
that waits for a lock works nothing: after `SLOW_S` it no longer counts, and another may run. Used
by `store` alone; one event loop owns it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

# No statement of ours works as long as this: it waits for somebody.
SLOW_S = 0.02


class Lanes:
    """`async with lanes:` around each statement; first come, first served.

    Raises:
        TimeoutError: none was free for so long (`wait_s`).
    """

    def __init__(self, most: int, *, wait_s: float) -> None:
        self._free = most
        self._wait_s = wait_s
        # When those that count began, by the task that runs them.
        self._running: dict[asyncio.Task[object], float] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._look: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
        else:
            await self._turn()
        self._running[_me()] = time.monotonic()

    async def __aexit__(self, *_: object) -> None:
        if self._running.pop(_me(), None) is not None:
            self._give_back()

    async def _turn(self) -> None:
        """Wait until another gives its lane on."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._look_later()
        try:
            # Where the database hangs, each who waits for its pool makes room after a moment only:
            # a long line must not wait for all before it.
            async with asyncio.timeout(self._wait_s):
                await turn
        except (asyncio.CancelledError, TimeoutError):
            if turn.done() and not turn.cancelled():
                # It was given one as it gave up.
                self._give_back()
            raise

    def _give_back(self) -> None:
        """A lane is there for the first who still waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _look_later(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(SLOW_S, self._make_room)

    def _make_room(self) -> None:
        """Count no longer what has run for so long."""
        self._look = None
        slow = time.monotonic() - SLOW_S
        for task in [task for task, began in self._running.items() if began <= slow]:
            del self._running[task]
            self._give_back()
        if self._waiting:
            self._look_later()


def _me() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
