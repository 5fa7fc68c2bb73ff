"""The positive control of the accessibility check: a page with known faults does not pass."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser import axe

pytestmark = pytest.mark.browser


def test_a_page_with_faults_does_not_pass(page: Page) -> None:
    page.set_content(
        "<!doctype html><html><title>Faults</title><main><h1>Faults</h1><input>"
        "<p style='color:#bbb;background:#fff'>Too faint to read</p></main></html>"
    )
    rules = {line.partition(":")[0] for line in axe.violations(page)}
    assert {"color-contrast", "html-has-lang", "label"} <= rules
