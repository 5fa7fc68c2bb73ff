"""Brand: what customers know the business by, and what its colour becomes on their pages.

Calls `billing.merchants`; the derived colours are the pages' own (`billing.brand`).
"""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST

from billing import brand as colours
from billing import errors, merchants
from billing.models import Organization
from checkout import pages
from lava.console import access, trail, typed

FIELDS = (
    "name", "brand_color", "support_email", "terms_url", "privacy_url", "receipt_prefix",
    "time_zone",
)  # fmt: skip
_COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Shade:
    """A brand colour on one theme of the customers' pages."""

    theme: str
    surface: str
    line: str
    ink: str
    second: str
    fill: str
    on_fill: str
    accent: str
    # Contrast of the button's words on it, and of a link on the page, as `5.9 : 1`.
    on_fill_contrast: str
    accent_contrast: str
    # The button had to leave the brand's own colour to stay readable.
    moved: bool


@access.requires("billing.view_organization")
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/brand`: the form and its preview; POST saves all of it or nothing."""
    if request.method == "POST":
        return save(request)
    organization = request.organization
    values = {name: str(getattr(organization, name, "")) for name in FIELDS}
    values["time_zone"] = request.merchant.time_zone
    return _page(request, typed.Form(values))


@access.requires("billing.change_organization")
def save(request: access.ConsoleRequest) -> HttpResponse:
    """Save what was typed, and the logo where one was chosen."""
    form = typed.Form.read(request.POST.dict())
    given = merchants.Brand(**{name: form.text(name) for name in FIELDS})
    upload = request.FILES.get("logo")
    try:
        with transaction.atomic():
            before = facts(request.organization, request.merchant.time_zone)
            if upload is not None:
                # One byte past the limit is enough to refuse it.
                merchants.set_logo(request.organization, upload.read(merchants.LOGO_BYTES + 1))
            elif form.text("remove_logo"):
                merchants.set_logo(request.organization, b"")
            after = facts(merchants.rebrand(request.organization, given), given.time_zone)
            trail.record(request, "brand.changed", before=before, after=after, of_books=False)
    except errors.LavaError as error:
        form.problems |= error.details.get("fields", {})
        form.refuse(error)
        request.organization.refresh_from_db()
        return _page(request, form, status=422)
    messages.success(request, "Saved. Customers see it from now on.")
    return redirect("/console/brand")


@access.requires("billing.view_organization")
@require_POST
def preview(request: access.ConsoleRequest) -> HttpResponse:
    """What the typed name and colour look like, as a fragment of the page; nothing is saved."""
    form = typed.Form.read(request.POST.dict())
    return render(request, "console/brand/_preview.html", _preview(request.organization, form))


def facts(organization: Organization, zone: str) -> dict[str, Any]:
    """What the brand says, as the audit trail keeps it."""
    found: dict[str, Any] = {name: getattr(organization, name, zone) for name in FIELDS}
    found["logo"] = pages.logo_fingerprint(organization) if organization.logo else "none"
    return found


def shades(color: str) -> list[Shade]:
    """A colour as the customers' pages will use it, light and dark."""
    found = []
    for theme, ground, line, ink, second in (
        ("Light", colours.LIGHT, "#dde1e6", "#15191e", "#59626d"),
        ("Dark", colours.DARK, "#2b3138", "#e8ebee", "#a3acb6"),
    ):
        palette = colours.derive(color, ground=ground)
        on_fill = colours.contrast(palette.accent_fill, palette.on_accent)
        link = colours.contrast(palette.accent, ground.surface)
        found.append(
            Shade(
                theme=theme,
                surface=ground.surface,
                line=line,
                ink=ink,
                second=second,
                fill=palette.accent_fill,
                on_fill=palette.on_accent,
                accent=palette.accent,
                on_fill_contrast=f"{on_fill:.1f} : 1",
                accent_contrast=f"{link:.1f} : 1",
                moved=palette.accent_fill.lower() != color,
            )
        )
    return found


def _page(request: access.ConsoleRequest, form: typed.Form, *, status: int = 200) -> HttpResponse:
    context = _preview(request.organization, form) | {
        "form": form,
        "zones": sorted(zoneinfo.available_timezones()),
        "currency": request.merchant.currency,
        "kilobytes": merchants.LOGO_BYTES // 1024,
    }
    return render(request, "console/brand/page.html", context, status=status)


def _preview(organization: Organization, form: typed.Form) -> dict[str, Any]:
    color = form.text("brand_color").lower()
    known = bool(_COLOR.fullmatch(color))
    name = form.text("name") or "Your business"
    return {
        "shades": shades(color) if known else [],
        "name": name if len(name) < 27 else f"{name[:26]}…",
        "monogram": name[:1].upper(),
    }


urls: list[URLPattern] = [
    path("brand", page, name="brand"),
    path("brand/preview", preview, name="brand-preview"),
]
