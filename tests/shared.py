"""What is costly to start and shared by the tests that follow one another in it, over modules."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest


class Shared:
    """Started when a test first asks for its fixture; ended before the first test of another module
    that does not, so that nothing idles beside the rest. Its tests belong to one group of xdist."""

    def __init__(self, fixture: str) -> None:
        self.fixture = fixture
        self._running: Any = None
        self._open = ExitStack()

    def start(self, make: Callable[[ExitStack], Any]) -> Any:
        """What runs; else what `make` starts, leaving on the stack how it ends."""
        if self._running is None:
            with ExitStack() as unfinished:
                self._running = make(unfinished)
                self._open = unfinished.pop_all()
        return self._running

    def after(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """A test is over, its own fixtures too."""
        goes_on = following is not None and (self.asked(following) or following.path == item.path)
        if self._running is not None and not goes_on:
            self._running = None
            self._open.close()

    def asked(self, item: pytest.Item) -> bool:
        return self.fixture in getattr(item, "fixturenames", ())
