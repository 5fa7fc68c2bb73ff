"""Template tags of the console's frame and pages: amounts, times, icons, the sidebar."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from billing import money as amounts
from billing import tenancy
from checkout import pages

register = template.Library()

ONE = Decimal(1)


@register.simple_tag
def money(amount: Decimal, currency: str, sign: bool = False) -> SafeString:
    """An amount with its digits past the cent muted; under one cent all are ink."""
    whole, beyond = amounts.parts(Decimal(amount), str(currency), sign=bool(sign))
    if not beyond:
        return format_html('<span class="lv-money">{}</span>', whole)
    small = abs(Decimal(amount)) < ONE.scaleb(-amounts.minor_units(str(currency)))
    return format_html(
        '<span class="lv-money{}">{}<span class="lv-money__beyond">{}</span></span>',
        " lv-money--sub" if small else "",
        whole,
        beyond,
    )


@register.simple_tag
def cents(amount: Decimal, currency: str, sign: bool = False) -> SafeString:
    """A headline amount: stops at the minor unit, rounded down; the exact value on hover."""
    exact = Decimal(amount)
    shown = amounts.floor_minor(exact, str(currency))
    return format_html(
        '<span class="lv-money" title="{}">{}</span>',
        amounts.display(exact, str(currency), sign=bool(sign)),
        amounts.display(shown, str(currency), sign=bool(sign)),
    )


@register.simple_tag(takes_context=True)
def moment(context: Any, value: datetime | None, form: str = "long") -> SafeString:
    """An instant in the merchant's zone, the exact UTC on hover. Forms: long, short, day, time."""
    if value is None:
        return mark_safe("")
    zone = getattr(context["request"].merchant, "time_zone", "UTC")
    local = value.astimezone(ZoneInfo(zone))
    day = f"{local:%a} {local.day} {local:%b %Y}"
    text = {
        "long": f"{day}, {local:%H:%M}",
        "short": f"{local.day} {local:%b, %H:%M}",
        "day": day,
        "time": f"{local:%H:%M:%S}",
    }[form]
    exact = f"{value.astimezone(ZoneInfo('UTC')):%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), exact, text)


@register.filter
def local(value: datetime | None, zone: str) -> str:
    """An instant in a zone: Mon 23 Nov 2026, 10:42."""
    if value is None:
        return ""
    there = value.astimezone(ZoneInfo(zone))
    return f"{there:%a} {there.day} {there:%b %Y}, {there:%H:%M}"


@dataclass(frozen=True, slots=True)
class Link:
    """One line of the sidebar."""

    name: str
    url: str
    icon: str
    permission: str = ""


# The one whose line carries a count: what waits for a second person.
APPROVALS = "/console/approvals/"

GROUPS: list[tuple[str, list[Link]]] = [
    ("", [Link("Overview", "/console/", "home")]),
    (
        "Customers",
        [
            Link("Connections", "/console/connections/", "people"),
            Link("Requests", "/console/requests/", "list"),
            Link("Payments", "/console/payments/", "card"),
            Link("Approvals", APPROVALS, "done"),
        ],
    ),
    (
        "Pricing",
        [
            Link("Plans", "/console/plans/", "layers"),
            Link("Meters", "/console/meters/", "gauge"),
            Link("What if", "/console/what-if", "flask"),
        ],
    ),
    (
        "Books",
        [
            Link("Ledger", "/console/ledger", "book"),
            Link("Reconcile", "/console/reconcile", "scales"),
            Link("Margin", "/console/margin", "trend"),
            Link("Calendar", "/console/calendar", "calendar"),
        ],
    ),
    (
        "Developers",
        [
            Link("API keys", "/console/keys", "key"),
            Link("Gateway", "/console/gateway/", "route"),
            Link("Webhooks", "/console/webhooks", "hook"),
            Link("Sandbox clock", "/console/clock", "clock"),
            Link("Outbox", "/console/outbox", "mail"),
        ],
    ),
    (
        "Settings",
        [
            Link("Brand", "/console/brand", "palette"),
            Link("Team", "/console/team", "team"),
            Link("Safety", "/console/safety", "shield"),
            Link("Audit trail", "/console/audit", "history"),
        ],
    ),
]
SANDBOX_ONLY = {"/console/clock", "/console/outbox"}


@register.simple_tag(takes_context=True)
def sidebar(context: Any) -> list[tuple[str, list[tuple[Link, bool]]]]:
    """The sidebar's groups, each link with whether it is the page shown."""
    request = context["request"]
    # A draft is tried under its meter's address and belongs to What if.
    path = "/console/what-if" if request.path.endswith("/what-if") else request.path
    shown = []
    for name, links in GROUPS:
        rows = [
            (link, path == link.url if link.url == "/console/" else path.startswith(link.url))
            for link in links
            if request.merchant.is_sandbox or link.url not in SANDBOX_ONLY
        ]
        shown.append((name, rows))
    return shown


@register.simple_tag(takes_context=True)
def waiting(context: Any, link: Link) -> int:
    """How many wait behind a line of the sidebar; the frame's own query has counted them."""
    if link.url != APPROVALS:
        return 0
    return getattr(context["request"].merchant, "approvals_waiting", None) or 0


@register.simple_tag(takes_context=True)
def logo_url(context: Any) -> str:
    """Where the logo of the open organization is; empty without one."""
    organization = context["request"].organization
    if not organization.logo:
        return ""
    version = pages.logo_fingerprint(organization)
    return reverse("hosted-logo", args=[organization.pk, version])


@register.simple_tag(takes_context=True)
def allowed(context: Any, permission: str) -> bool:
    """Whether the reader may do something."""
    return tenancy.may(context["request"].membership, permission)


# Drawn at 20 units, stroke 1.5; currentColor.
ICONS = {
    "home": "M3 9l7-6 7 6v8H12v-5H8v5H3z",
    "people": (
        "M7.5 9.5a3 3 0 100-6 3 3 0 000 6zM2 16.5c0-3 2.5-5 5.5-5s5.5 2 5.5 5"
        "M13 3.8a3 3 0 010 5.4M15 11.8c1.8.7 3 2.4 3 4.7"
    ),
    "list": "M5 2.5h10v15l-2.5-1.5-2.5 1.5-2.5-1.5L5 17.5zM8 7h4M8 10.5h4",
    "card": "M2.5 4.5h15v11h-15zM2.5 8.5h15",
    "layers": "M10 3l7 4-7 4-7-4zM3 11l7 4 7-4",
    "gauge": "M3.5 15a7.5 7.5 0 1113 0zM10 12l3-4",
    "book": (
        "M10 5c-2-1.5-4.5-1.5-7-1.5v12c2.500 0 5 0 7 1.500 2-1.500 4.500-1.500 "
        "7-1.500v-12c-2.500 0-5 0-7 1.500z"
        "M10 5v12"
    ),
    "key": "M12.500 12a4.500 4.500 0 10-4.300-3.200L3 14v3h3v-2h2v-2h1.500z",
    "clock": "M10 17.500a7.500 7.500 0 100-15 7.500 7.500 0 000 15zM10 6v4l3 2",
    "mail": "M2.500 4.500h15v11h-15zM2.500 5l7.500 6 7.500-6",
    "text": "M3 3.500h14v10H9.500L6 16.500v-3H3zM6.500 7h7M6.500 10h4.500",
    "palette": (
        "M10 2.500a7.500 7.500 0 100 15c1.500 0 1.500-1.200 1-2-.6-1.200 0-2.500 "
        "1.500-2.500h2c1.800 0 3-1 3-3 0-4-3.500-7.500-7.500-7.500z"
        "M6.500 9.500h.01M9 6h.01M13 6.500h.01"
    ),
    "team": (
        "M8 10a3 3 0 100-6 3 3 0 000 6zM2.500 16.500c0-3 2.500-5 5.500-5s5.500 2 5.500 5"
        "M15 6.500v5M12.500 9h5"
    ),
    "shield": "M10 2.500l6 2v5c0 4-2.500 6.500-6 8-3.500-1.500-6-4-6-8v-5z",
    "history": (
        "M3.500 6.500A7.500 7.500 0 1110 17.500a7.500 7.500 0 01-7.300-6M3 3v3.500h3.500M10 6v4l3 2"
    ),
    "search": "M9 15A6 6 0 109 3a6 6 0 000 12zM13.500 13.500L17 17",
    "flask": (
        "M8 2.500h4M8.500 2.500v5L4 16a1 1 0 001 1.500h10a1 1 0 001-1.500l-4.500-8.500v-5"
        "M6 12.500h8"
    ),
    "route": ("M4 16.500v-8a3 3 0 016 0v3a3 3 0 006 0v-8M2 14.500l2 2 2-2M14 5.500l2-2 2 2"),
    "hook": (
        "M8.2 9.2L5.800 13.200M11.600 7.400l2.400 4.200M7.800 14.500h4.400M10 7.500a2.500 2.500 0 "
        "10-2.200-1.300M5.500 17a2.500 2.500 0 100-5 2.500 2.500 0 000 5zM14.500 17a2.500 2.500 0 "
        "100-5 2.500 2.500 0 000 5z"
    ),
    "scales": (
        "M10 3v14M6 17h8M4 5.500h12M4 5.500l-2.200 5.500h4.400zM16 5.500l-2.200 5.500h4.400z"
    ),
    "calendar": "M3 4.500h14v12.500H3zM3 8.500h14M7 2.500v3.500M13 2.500v3.500",
    "transfer": "M6 3v13M6 16l-3-3M6 16l3-3M14 17V4M14 4l-3 3M14 4l3 3",
    "trend": "M3 14l4.500-4.500 3 3L17 6M12.500 6H17v4.500",
    "menu": "M3 5.500h14M3 10h14M3 14.500h14",
    "updown": "M6.500 8L10 4.500 13.500 8M6.500 12l3.500 3.500 3.500-3.500",
    "done": (
        "M10 17.500a7.500 7.500 0 100-15 7.500 7.500 0 000 15zM6.500 10l2.500 2.500L13.500 7.500"
    ),
    "todo": "M10 17.500a7.500 7.500 0 100-15 7.500 7.500 0 000 15z",
    "plus": "M10 4v12M4 10h12",
    "minus": "M4 10h12",
    "back": "M7.500 4L3.500 8l4 4M3.500 8h8.500a4.500 4.500 0 010 9H8",
    "swap": "M4 7h11.500M12.500 4l3 3-3 3M16 13H4.500M7.500 10l-3 3 3 3",
    "stop": (
        "M10 17.500a7.500 7.500 0 100-15 7.500 7.500 0 000 15zM7.500 7.500l5 5M12.500 7.500l-5 5"
    ),
    "ban": "M10 17.500a7.500 7.500 0 100-15 7.500 7.500 0 000 15zM4.700 4.700l10.600 10.600",
    "help": (
        "M10 17.500a7.500 7.500 0 100-15 7.500 7.500 0 000 15z"
        "M7.800 8a2.200 2.200 0 114 1.300c-.800.800-1.800 1.200-1.800 2.400M10 14.200h.01"
    ),
    "alert": "M10 3l7.500 13.500h-15zM10 8v4M10 14h.01",
}


@register.simple_tag
def icon(name: str) -> SafeString:
    """A small drawing beside words; screen readers pass it by."""
    return format_html(
        '<svg viewBox="0 0 20 20" width="20" height="20" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">'
        '<path d="{}"/></svg>',
        ICONS[name],
    )
