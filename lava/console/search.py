"""One search over the open books: customers, plans, meters, requests, payments.

A whole id goes straight to its page; words list what they hit, a few of each kind. The same is said
while one types, in the list under the field at the top.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, ids, tenancy
from billing.models import Connection, Merchant, Payment, Plan
from checkout import prices
from lava.console import access, connections, payments
from lava.console.templatetags import console as frame
from meters.models import Meter, UsageRequest

FEW = 8
# Of each kind while one types, and from how many letters on.
FEWER = 4
LEAST = 2
# What can be begun from anywhere: its name, where, and what one must be allowed.
BEGINNINGS = (
    ("Make a plan", "/console/plans/new", "billing.change_plan"),
    ("Make a meter", "/console/meters/new", "meters.change_meter"),
    ("Make a forward token", "/console/gateway/tokens/new", "meters.change_forwardtoken"),
    ("Import customers", "/console/imports/new", "billing.change_connection"),
)
# By the beginning of an id: whose row it is, and the page that shows it.
PAGES: dict[str, tuple[type[Any], str]] = {
    "con": (Connection, "/console/connections/{}"),
    "req": (UsageRequest, "/console/requests/{}"),
    "pay": (Payment, "/console/payments/{}"),
    "sc": (Plan, "/console/plans/{}"),
    "prd": (Meter, "/console/meters/{}"),
}


@access.requires("billing.view_any")
@require_GET
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/search?q=`"""
    merchant = request.merchant
    text = request.GET.get("q", "").strip()[:255]
    address = _page_of(merchant, text)
    if address:
        return redirect(address)
    found = results(merchant, text) if text else {}
    return render(
        request,
        "console/search.html",
        {
            "searched": text,
            "found": found,
            "is_empty": not any(found.values()),
            "currency": merchant.currency,
            "zone": merchant.time_zone,
        },
    )


@access.requires("billing.view_any")
@require_GET
def live(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/search/live?q=`: the list under the field, a part of a page; empty for a letter."""
    merchant = request.merchant
    text = request.GET.get("q", "").strip()[:255]
    address = _page_of(merchant, text)
    found: dict[str, list[Any]] = {}
    if not address and len(text) >= LEAST:
        found = results(merchant, text, most=FEWER) | {"places": _places(request, text)}
    return render(
        request,
        "console/_hits.html",
        {
            "searched": text if len(text) >= LEAST else "",
            "address": address,
            "found": found,
            "is_empty": not address and not any(found.values()),
            "currency": merchant.currency,
        },
    )


def _places(request: access.ConsoleRequest, text: str) -> list[tuple[str, str]]:
    """Pages of the console by their names, and what can be begun, as far as the reader may."""
    sandbox = request.merchant.is_sandbox
    pages = [
        (link.name, link.url)
        for _, links in frame.GROUPS
        for link in links
        if sandbox or link.url not in frame.SANDBOX_ONLY
    ]
    acts = [
        (name, url)
        for name, url, permission in BEGINNINGS
        if tenancy.may(request.membership, permission)
    ]
    wanted = text.lower()
    return [(name, url) for name, url in [*acts, *pages] if wanted in name.lower()][:FEWER]


def _page_of(merchant: Merchant, text: str) -> str:
    """The page of a whole id of these books; empty for anything else."""
    prefix = text.partition("_")[0]
    if prefix not in PAGES:
        return ""
    model, address = PAGES[prefix]
    try:
        key: UUID = ids.parse(prefix, text)
    except errors.NotFound:
        return ""
    rows = model.objects.of(merchant).filter(pk=key)
    if model is Connection:
        rows = rows.visible()
    return address.format(text) if rows.exists() else ""


def results(merchant: Merchant, text: str, *, most: int = FEW) -> dict[str, list[Any]]:
    """The first few hits of each kind, `most` of it."""
    people = (
        Connection.objects.of(merchant)
        .visible()
        .filter(connections.matches(text))
        .select_related("customer")
        .order_by("-id")[:most]
    )
    plans = Plan.objects.of(merchant).filter(name__icontains=text).order_by("archived_at", "name")
    counted = Meter.objects.of(merchant).filter(
        Q(name__icontains=text) | Q(slug__icontains=text), archived_at=None
    )
    used = UsageRequest.objects.told_as(merchant, text)
    paid = Payment.objects.of(merchant).filter(receipt_number__iexact=text)
    return {
        "people": [(row, connections.tag(row)) for row in people],
        "plans": list(plans[:most]),
        "meters": [
            (row, prices.brief(row.price, merchant.currency))
            for row in counted.select_related("price").order_by("name")[:most]
            if row.price is not None
        ],
        "requests": list(used.select_related("connection__customer", "meter")[:most]),
        "payments": [
            (row, payments.tone(row)) for row in paid.select_related("connection__customer")[:most]
        ],
    }


urls: list[URLPattern] = [
    path("search", page, name="search"),
    path("search/live", live, name="search-live"),
]
