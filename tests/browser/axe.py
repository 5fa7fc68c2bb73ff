"""axe-core on a page: what a machine can see of WCAG 2.2 AA. For the customer's pages and the
console's alike."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Frame, Page

SOURCE = Path(__file__).parent.parent / "clients/node_modules/axe-core/axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

_RUN = """async (tags) => {
  // A page hears of another theme or width with the next frame.
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  // On a narrow screen the console's navigation slides away first; what turns for ever is left.
  await Promise.allSettled(document.getAnimations()
    .filter((one) => one.effect.getComputedTiming().endTime !== Infinity)
    .map((one) => one.finished));
  const found = await axe.run(document, {
    runOnly: {type: 'tag', values: tags},
    resultTypes: ['violations'],
    // The card network's own fields are not ours to judge.
    iframes: false,
  });
  return found.violations.flatMap((rule) =>
    rule.nodes.map((node) => `${rule.id}: ${node.target.join(' ')}: ${node.failureSummary}`));
}"""


@cache
def _axe() -> str:
    if not SOURCE.exists():
        pytest.skip("axe-core is not installed: run npm ci --prefix tests/clients")
    return SOURCE.read_text()


def violations(page: Page | Frame) -> list[str]:
    """Every violation on the page as it stands: rule, place, mend; empty: none.

    The script is handed over by the debugger's protocol, so that the page's own content security
    policy stays as it is.
    """
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(f"() => {{ {_axe()} }}")
    found: list[str] = page.evaluate(_RUN, TAGS)
    return found
