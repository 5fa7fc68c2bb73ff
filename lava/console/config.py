"""Unfold's settings for the console."""

from __future__ import annotations

from typing import Any

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Lava",
    "SITE_HEADER": "Lava",
    "SITE_URL": "/console/",
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
}
