"""So many statements of the gateway run at once, in their order; one that waits for a lock makes
room."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from meters.gateway import lanes
from meters.gateway.lanes import Lanes


class Work:
    """Statements that end when they are told to."""

    def __init__(self, most: int, *, wait_s: float = 60) -> None:
        self.lanes = Lanes(most, wait_s=wait_s)
        self.began: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _run(self, name: str) -> None:
        async with self.lanes:
            self.began.append(name)
            await self.ends[name].wait()

    async def ask(self, *names: str) -> None:
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._run(name))
        await settled()

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
        await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_so_many_run_and_the_rest_wait_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "SLOW_S", 60)

    async def test() -> None:
        work = Work(2)
        await work.ask("a", "b", "c", "d", "e")
        assert work.began == ["a", "b"]
        await work.end("b")
        assert work.began == ["a", "b", "c"]
        await work.end("a", "c")
        assert work.began == ["a", "b", "c", "d", "e"]
        await work.end("d", "e")
        await work.ask("f", "g", "h")
        assert work.began[-2:] == ["f", "g"]
        await work.end("f", "g", "h")
        assert work.began[-1] == "h"

    run(test())


def test_who_waits_for_a_lock_makes_room_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "SLOW_S", 0.01)

    async def test() -> None:
        work = Work(1)
        await work.ask("stuck", "next", "last")
        assert work.began == ["stuck"]
        async with asyncio.timeout(5):
            while "next" not in work.began:
                await asyncio.sleep(0.005)
        # Before it is slow itself, the one that made room gives none back a second time.
        monkeypatch.setattr(lanes, "SLOW_S", 60)
        await work.end("stuck")
        assert "last" not in work.began
        await work.end("next")
        assert work.began == ["stuck", "next", "last"]

    run(test())


def test_who_gives_up_leaves_no_lane_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "SLOW_S", 60)

    async def test() -> None:
        work = Work(1)
        await work.ask("a", "b", "c", "d")
        work.tasks["b"].cancel()
        await settled()
        # Given up in the very moment in which it is let in.
        work.ends["a"].set()
        await asyncio.sleep(0)
        work.tasks["c"].cancel()
        await settled()
        assert work.began[-1] == "d" and "b" not in work.began
        await work.end("d")
        await work.ask("e", "f")
        assert work.began[-1] == "e"
        await work.end("e", "f")
        assert work.began[-1] == "f"

    run(test())


def test_who_waits_too_long_gives_up_and_leaves_no_lane_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "SLOW_S", 60)

    async def test() -> None:
        work = Work(1, wait_s=0.05)
        await work.ask("a", "b", "c")
        done, _ = await asyncio.wait([work.tasks["b"], work.tasks["c"]], timeout=5)
        assert [type(task.exception()) for task in done] == [TimeoutError] * 2
        assert work.began == ["a"]
        await work.end("a")
        await work.ask("d", "e")
        assert work.began == ["a", "d"]
        await work.end("d", "e")
        assert work.began == ["a", "d", "e"]

    run(test())
