"""One Chromium for the tests that look at pages: one worker runs them all, since a start costs more
than most of them."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.shared import Shared

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = Shared("browser")


def group(items: list[pytest.Item]) -> None:
    """Gather what asks for the browser and is in no other group of xdist."""
    for item in items:
        if CHROMIUM.asked(item) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("browser"))


def _start(path: str, end: ExitStack) -> Browser:
    from playwright.sync_api import sync_playwright

    from tests.browser import pictures

    # Playwright keeps an event loop in this thread, which Django would take for asynchronous code.
    patched = end.enter_context(pytest.MonkeyPatch.context())
    patched.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    playwright = end.enter_context(sync_playwright())
    running = playwright.chromium.launch(executable_path=path, args=FLAGS)
    end.callback(running.close)
    end.callback(pictures.sheets, running)
    return running


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Browser:
    running: Browser = CHROMIUM.start(partial(_start, chromium_path))
    return running
