"""A person without a mouse: Tab until the control is reached, and see at each stop where one is."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page

MOST_STOPS = 40
# Where the focus is: its words, and whether eyes can see it. A control may show it on a box around
# it (the cells of a code, a card's field, a choice).
_STOP = """() => {
  const at = document.activeElement;
  const said = at.getAttribute('aria-label') || at.labels?.[0]?.textContent || at.textContent;
  const box = at.getBoundingClientRect();
  let seen = false;
  for (let each = at, up = 0; each && up < 3; each = each.parentElement, up += 1) {
    const style = getComputedStyle(each);
    seen ||= style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1;
  }
  seen ||= getComputedStyle(at).boxShadow !== 'none';
  const inView = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return {said: said.trim().slice(0, 60), isBody: at === document.body, seen, inView};
}"""


def reach(page: Page, control: Locator) -> Locator:
    """Press Tab until `control` has the focus. Fails where the way is a trap, or where the focus
    cannot be seen."""
    control.wait_for()
    way = []
    for _ in range(MOST_STOPS):
        if control.evaluate("el => el === document.activeElement"):
            return control
        page.keyboard.press("Tab")
        stop = page.evaluate(_STOP)
        way.append(stop["said"])
        if not stop["isBody"]:
            assert stop["inView"], f"the focus is out of sight at {stop['said']!r}"
            assert stop["seen"], f"the focus is not to be seen at {stop['said']!r}"
    raise AssertionError(f"Tab does not lead there: {way}")


def press(page: Page, name: str, *, role: Any = "button", key: str = "Enter") -> None:
    """Reach a control by its words, a pattern, and press it."""
    reach(page, page.get_by_role(role, name=re.compile(name)))
    page.keyboard.press(key)


def write(page: Page, label: str, text: str) -> None:
    """Reach a field by its label and type into it."""
    reach(page, page.get_by_label(label))
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(text)
