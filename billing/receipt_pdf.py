"""A receipt as a PDF: one A4 page from `receipts.Document`, in the shipped font.

Called by checkout's view. The same receipt gives the same bytes. Writing that the font does not
have (it covers Latin) is shown as a question mark, never as nothing.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from pathlib import Path

from django.utils.translation import gettext
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from PIL import Image

from billing import locales, mails, receipts

_FONTS = Path(__file__).resolve().parent / "fonts"
_INK = (21, 25, 30)
_MUTED = (89, 98, 109)
_LINE = (226, 229, 233)
_MARGIN = 22
_WIDTH = 210 - 2 * _MARGIN
_MOST_PIXELS = 2048 * 2048


def render(document: receipts.Document) -> bytes:
    """The bytes of the PDF."""
    organization = document.merchant.organization
    pdf = FPDF(format="A4")
    pdf.set_auto_page_break(True, margin=_MARGIN)
    pdf.set_margins(_MARGIN, _MARGIN, _MARGIN)
    pdf.c_margin = 0
    pdf.add_font("Inter", "", _FONTS / "inter-400.ttf")
    pdf.add_font("Inter", "B", _FONTS / "inter-600.ttf")
    pdf.set_creation_date(document.issued_at)
    pdf.set_title(f"{document.title} {document.number}")
    pdf.set_author(_shown(organization.name))
    pdf.set_lang(locales.current())
    pdf.add_page()
    _letterhead(pdf, document)
    pdf.ln(14)
    pdf.set_font("Inter", "B", 22)
    pdf.multi_cell(0, 10, _shown(document.heading), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.set_font("Inter", "", 10.5)
    pdf.set_text_color(*_MUTED)
    pdf.multi_cell(0, 6, _shown(document.lead), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.ln(8)
    for label, text in document.facts:
        _pair(pdf, label, text)
    pdf.ln(10)
    for label, text in document.lines:
        _row(pdf, label, text)
    _row(pdf, *document.total, bold=True)
    for label, text in document.notes:
        _row(pdf, label, text, muted=True)
    pdf.ln(12)
    pdf.set_font("Inter", "", 9)
    pdf.set_text_color(*_MUTED)
    ask = mails.questions(document.merchant)
    pdf.multi_cell(0, 5, _shown(ask), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    return bytes(pdf.output())


def _letterhead(pdf: FPDF, document: receipts.Document) -> None:
    """The merchant on the left, what the paper is on the right, under a band of its colour."""
    organization = document.merchant.organization
    red, green, blue = (int(organization.brand_color[i : i + 2], 16) for i in (1, 3, 5))
    pdf.set_fill_color(red, green, blue)
    pdf.rect(0, 0, 210, 3, style="F")
    top = pdf.get_y()
    left = float(_MARGIN)
    logo = _logo(bytes(organization.logo))
    if logo is not None:
        pdf.image(logo, x=left, y=top, w=9, h=9, keep_aspect_ratio=True)
        left += 12
    pdf.set_xy(left, top)
    pdf.set_text_color(*_INK)
    pdf.set_font("Inter", "B", 12)
    pdf.cell(110, 9, _fit(pdf, _shown(organization.name), 108))
    pdf.set_font("Inter", "", 10.5)
    pdf.set_text_color(*_MUTED)
    title = f"{document.title} {document.number}"
    if document.merchant.is_sandbox:
        title += f"  ·  {gettext('Sandbox, not real')}"
    pdf.set_xy(_MARGIN, top)
    pdf.cell(0, 9, _shown(title), align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.set_text_color(*_INK)


def _logo(data: bytes) -> Image.Image | None:
    """A logo that can be drawn; none where it cannot be read, or would unfold to a huge one: the
    name alone stands there."""
    if not data:
        return None
    try:
        with Image.open(BytesIO(data)) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                return None
            return picture.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _pair(pdf: FPDF, label: str, text: str) -> None:
    """A fact: its name in a narrow column, then what it is."""
    pdf.set_font("Inter", "", 10.5)
    pdf.set_text_color(*_MUTED)
    pdf.cell(34, 7, _shown(label))
    pdf.set_text_color(*_INK)
    pdf.multi_cell(0, 7, _shown(text), new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _row(pdf: FPDF, label: str, text: str, *, bold: bool = False, muted: bool = False) -> None:
    """A line of the sum under a rule: words on the left, the amount on the right."""
    pdf.set_draw_color(*_LINE)
    pdf.set_line_width(0.2)
    pdf.line(_MARGIN, pdf.get_y(), 210 - _MARGIN, pdf.get_y())
    pdf.set_font("Inter", "B" if bold else "", 10.5)
    pdf.set_text_color(*(_MUTED if muted else _INK))
    top, page = pdf.get_y(), pdf.page
    pdf.set_y(top + 2)
    pdf.multi_cell(_WIDTH - 48, 6, _shown(label), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    bottom = pdf.get_y()
    if pdf.page != page:
        top = pdf.get_y() - 8
    pdf.set_xy(210 - _MARGIN - 46, top + 2)
    pdf.cell(46, 6, _shown(text), align="R")
    pdf.set_xy(_MARGIN, bottom + 2)


def _fit(pdf: FPDF, text: str, width: float) -> str:
    """A text cut to a width."""
    while text and pdf.get_string_width(text) > width:
        text = text.rstrip("\u2026")[:-1] + "\u2026"
        if text == "\u2026":
            break
    return text


def _shown(text: str) -> str:
    """A text as the font can show it."""
    known = _letters()
    return "".join(letter if ord(letter) in known else "?" for letter in text)


@cache
def _letters() -> frozenset[int]:
    with TTFont(_FONTS / "inter-400.ttf", lazy=True) as font:
        return frozenset(font.getBestCmap())
