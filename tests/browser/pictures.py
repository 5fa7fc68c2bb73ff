"""Pictures of the pages, for eyes: taken where LAVA_PICTURES names a folder, else none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from playwright.sync_api import Page

PICTURES = os.environ.get("LAVA_PICTURES", "")


def picture(page: Page, name: str) -> None:
    """Keep how a page looks, wide and narrow, light and dark."""
    if not PICTURES:
        return
    for width in (1440, 390):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(path=Path(PICTURES) / f"{name}-{width}-{scheme}.png", full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1440, "height": 900})


def sheets() -> None:
    """All pictures of a width and theme side by side, where ImageMagick is there."""
    montage = shutil.which("montage")
    if not PICTURES or montage is None:
        return
    for width, across in ((1440, 6), (390, 12)):
        for scheme in ("light", "dark"):
            kind = f"-{width}-{scheme}.png"
            found = sorted(str(path) for path in Path(PICTURES).glob(f"[!_]*{kind}"))
            if found:
                size = f"{2880 // across}x+8+8"
                name = str(Path(PICTURES) / f"_sheet{kind}")
                layout = ["-tile", f"{across}x", "-geometry", size, "-gravity", "north"]
                subprocess.run([montage, *found, *layout, name], check=False)
