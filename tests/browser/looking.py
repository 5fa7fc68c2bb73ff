"""What every customer page has to hold in a real browser, at once: it fits a phone, a machine finds
no barrier in it, and nothing was said on the console."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.browser import axe
from tests.browser.pictures import picture


def listen(page: Page) -> list[str]:
    """Everything the browser complains of from here on. That a page is 4xx is its own business."""
    said: list[str] = []

    def heard(line: object) -> None:
        text = getattr(line, "text", "")
        if getattr(line, "type", "") in ("error", "warning") and "status of 4" not in text:
            said.append(text)

    page.on("console", heard)
    page.on("pageerror", lambda error: said.append(str(error)))
    return said


def look(page: Page, name: str, *, dark: bool = False) -> None:
    """Look at the page as it stands, wide and narrow; `dark`: judge the contrast of both themes."""
    picture(page, name)
    page.set_viewport_size({"width": 390, "height": 900})
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390, f"{name} is {wide} wide on a phone"
    found = {}
    if dark:
        page.emulate_media(color_scheme="dark")
        found["dark, 390"] = axe.violations(page)
        page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1440, "height": 900})
    found["light, 1440"] = axe.violations(page)
    assert not any(found.values()), f"{name}: {found}"
