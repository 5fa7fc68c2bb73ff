"""Pictures of the pages, for eyes: taken where LAVA_PICTURES names a folder, else none."""

from __future__ import annotations

import html
import os
from pathlib import Path

from playwright.sync_api import Browser, Page

PICTURES = os.environ.get("LAVA_PICTURES", "")
_SHEET = """<!doctype html><meta charset="utf-8"><style>
body {{ display: grid; grid-template-columns: repeat({across}, 1fr); gap: 16px; margin: 16px;
  background: #888; align-items: start; font: 600 20px sans-serif; }}
figure {{ margin: 0; }} img {{ display: block; width: 100%; }}
</style>{figures}"""


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


def sheets(browser: Browser) -> None:
    """All pictures of a width and theme on one sheet, with their names."""
    if not PICTURES:
        return
    for width, across in ((1440, 4), (390, 8)):
        for scheme in ("light", "dark"):
            kind = f"-{width}-{scheme}.png"
            found = sorted(Path(PICTURES).glob(f"[!_]*{kind}"))
            figures = "".join(
                f"<figure><figcaption>{html.escape(path.name.removesuffix(kind))}</figcaption>"
                f'<img src="{path.resolve().as_uri()}"></figure>'
                for path in found
            )
            # Only a page that is a file itself may show files.
            laid = Path(PICTURES) / f"_sheet-{os.getpid()}.html"
            laid.write_text(_SHEET.format(across=across, figures=figures), encoding="utf-8")
            page = browser.new_page(viewport={"width": 2400, "height": 900})
            page.goto(laid.resolve().as_uri())
            page.screenshot(path=laid.with_name(f"_sheet{kind}"), full_page=True)
            page.close()
            laid.unlink()
