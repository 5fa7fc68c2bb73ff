"""Requests: the list with its filters, and one request with what it was charged and why.

Reads only. `proof` is also what a row of a connection's ledger opens.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, ids
from billing.models import CreditGrant
from lava.console import access, moments, rates, typed
from meters import rollups
from meters.models import Meter, UsageRequest

PAGE = 25
ZERO = Decimal(0)
FILTERS = ("q", "connection", "meter", "day", "from", "to")
METADATA_DAYS = timedelta(days=31)


@access.requires("meters.view_usagerequest")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """The latest requests, filtered by id, customer, meter and day."""
    merchant = request.merchant
    query = {name: request.GET.get(name, "").strip() for name in FILTERS}
    rows = filtered(merchant, query)
    before = request.GET.get("before", "")
    if before:
        rows = rows.filter(pk__lt=_key("req", before))
    found = list(
        rows.select_related("connection__customer", "meter", "price").order_by("-id")[: PAGE + 1]
    )
    now = merchant.now()
    kept = {name: value for name, value in query.items() if value}
    return render(
        request,
        "console/requests/list.html",
        {
            "bands": moments.bands(
                [
                    (row, rates.count(row.quantity, row.price.unit), state(row))
                    for row in found[:PAGE]
                ],
                lambda shown: shown[0].created_at,
                merchant.time_zone,
                now=now,
            ),
            "older": urlencode(kept | {"before": found[PAGE - 1].public_id})
            if len(found) > PAGE
            else "",
            "newest": urlencode(kept) if before else None,
            "query": query,
            "times": {name: query[name] for name in ("from", "to")},
            "export": urlencode(kept),
            "is_filtered": bool(kept),
            "meters": Meter.objects.of(merchant).order_by("name", "id"),
            "last_day": _last_day(merchant, now=now),
            "currency": merchant.currency,
            "zone": merchant.time_zone,
            "now": now,
        },
    )


@access.requires("meters.view_usagerequest")
@require_GET
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """One request by its id: ours, as a UUID, or the client's own."""
    merchant = request.merchant
    rows = UsageRequest.objects.of(merchant).select_related(
        "connection__customer", "meter", "price", "merchant"
    )
    found = None
    pk = _try(key)
    if pk is not None:
        found = rows.filter(pk=pk).first()
    if found is None:
        found = rows.told_as(merchant, key).first()
    if found is None:
        raise Http404
    grants = grants_of(merchant, [found])
    context = proof(found, grants, zone=merchant.time_zone)
    cost = found.provider_cost
    margin = None if cost is None else found.charged - cost
    context |= {
        "row": found,
        "state": state(found),
        "margin": margin,
        "margin_share": f"{margin * 100 / found.charged:.1f} %"
        if margin is not None and found.charged
        else "",
        "used": _used(found),
        "zone": merchant.time_zone,
        "currency": found.connection.currency,
    }
    return render(request, "console/requests/detail.html", context)


def _last_day(merchant: Any, *, now: datetime) -> dict[str, Any]:
    """What the last 24 hours, from a quarter of an hour on, add up to; from the sums."""
    start = now - timedelta(hours=24)
    start = start.replace(minute=start.minute // 15 * 15, second=0, microsecond=0)
    rows = rollups.by_meter(merchant, start=start, end=now + timedelta(days=1), zone="UTC")
    costed = sum((row.costed for row in rows), ZERO)
    return {
        "count": sum(row.sums.requests for row in rows),
        "sum": sum((row.sums.charged for row in rows), ZERO),
        "cost": sum((row.sums.provider_cost for row in rows), ZERO) if costed else None,
        "costed": costed,
    }


def state(row: UsageRequest) -> tuple[str, str]:
    """The tag of a request: its tone and its word."""
    if row.status == UsageRequest.Status.ERROR:
        return "bad", "Failed"
    if row.status == UsageRequest.Status.VOIDED:
        return "", "Taken back"
    if row.status == UsageRequest.Status.PENDING:
        return "", "Running"
    if any(grant is None for grant, _ in row.draws):
        return "warn", "Overage"
    return "ok", "Charged"


def grants_of(merchant: Any, rows: Iterable[UsageRequest]) -> dict[str, CreditGrant]:
    """The grants that paid for requests, by their id as the requests name them; one query."""
    keys = {str(grant) for row in rows for grant, _ in row.draws if grant is not None}
    if not keys:
        return {}
    found = CreditGrant.objects.of(merchant).filter(pk__in=keys).select_related("bundle")
    return {str(grant.pk): grant for grant in found}


def proof(row: UsageRequest, grants: dict[str, CreditGrant], *, zone: str) -> dict[str, Any]:
    """The four parts of a proof: request, price version, slices by tier, grants it drew from."""
    price, currency = row.price, row.connection.currency
    slices: list[dict[str, Any]] = []
    for number, quantity, amount in row.slices:
        tier = price.tiers[int(number)]
        name = rates.tier_name(price, int(number))
        # A slice of no quantity is the tier's flat amount.
        is_flat = bool(tier.flat) and not Decimal(quantity) and bool(row.quantity)
        shown = (
            rates.rate(tier.rate, currency)
            if price.rate_type == "fixed"
            else f"{typed.plain(tier.rate)} %"
        )
        slices.append(
            {
                "name": f"{name}, flat amount" if is_flat else name,
                "quantity": "" if is_flat else rates.count(Decimal(quantity), price.unit),
                "rate": "once" if is_flat else shown,
                "amount": Decimal(amount),
            }
        )
    if price.base_cost_payer == "wallet" and row.provider_cost:
        slices.append(
            {
                "name": "Provider cost",
                "quantity": "",
                "rate": "",
                "amount": row.provider_cost,
            }
        )
    paid: list[dict[str, Any]] = []
    for key, amount in row.draws:
        grant = grants.get(str(key)) if key is not None else None
        paid.append(
            {
                "name": "Owed, past the credit" if key is None else grant_name(grant, zone),
                "amount": Decimal(amount),
                "is_debt": key is None,
            }
        )
    window = price.tier_window == "cycle"
    return {
        "usage": row,
        "unit": price.unit,
        "quantity": rates.count(row.quantity, price.unit),
        "seconds": f"{rates.plain_count(row.quantity)} s" if price.unit == "minutes" else "",
        "before": f"{rates.count(row.position_before, price.unit)}"
        + (" this cycle" if window else " in all"),
        "counts": "per customer, per cycle" if window else "per customer, for life",
        "slices": slices,
        "draws": paid,
        "charged": row.charged,
        "paid": sum((part["amount"] for part in paid), ZERO),
        "currency": currency,
        "zone": zone,
    }


def grant_name(grant: CreditGrant | None, zone: str) -> str:
    """A grant in a list: `Plan credit, 1 Nov`."""
    if grant is None:
        return "Credit"
    name = str(grant.get_source_display())
    if grant.bundle is not None:
        name = grant.bundle.name
    return f"{name}, {moments.day_month(grant.created_at, zone)}"


def filtered(merchant: Any, query: dict[str, str]) -> Any:
    """The requests that fit all of `FILTERS` that are given."""
    rows = UsageRequest.objects.of(merchant)
    name, equals, value = query["q"].partition("=")
    if equals and name:
        # By a word of the merchant's own; no index holds those, so the last days alone are read.
        since = ids.first(merchant.now() - METADATA_DAYS - merchant.clock_offset)
        told = rows.told_as(merchant, query["q"])
        rows = rows.filter(metadata__contains={name.strip(): value.strip()}, pk__gte=since) | told
    elif query["q"]:
        key = _try(query["q"])
        rows = rows.filter(pk=key) if key is not None else rows.told_as(merchant, query["q"])
    if query["connection"]:
        rows = rows.filter(connection_id=_key("con", query["connection"]))
    if query["meter"]:
        rows = rows.filter(meter_id=_key("prd", query["meter"]))
    span = moments.between(query, merchant.time_zone)
    if span is not None:
        start, end = span
        # The merchant's clock never runs behind real time, which orders the keys.
        rows = rows.filter(
            created_at__gte=start,
            created_at__lt=end,
            pk__gte=ids.first(start - merchant.clock_offset),
            pk__lt=ids.first(end),
        )
    return rows


def _key(prefix: str, text: str) -> UUID:
    """The key of a public id; one that is not well formed finds nothing."""
    try:
        return ids.parse(prefix, text)
    except errors.NotFound:
        return UUID(int=0)


def _try(text: str) -> UUID | None:
    """The key in our own id of a request or in a UUID; None for a client's id."""
    try:
        return ids.parse("req", text)
    except errors.NotFound:
        pass
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None


def _used(row: UsageRequest) -> list[tuple[str, str]]:
    """What the client reported, only what is not zero."""
    found: list[tuple[str, Any]] = [
        ("Input tokens", row.input_tokens),
        ("Output tokens", row.output_tokens),
        ("Input characters", row.input_characters),
        ("Output characters", row.output_characters),
        ("Input seconds", row.input_seconds),
        ("Output seconds", row.output_seconds),
    ]
    return [(label, rates.plain_count(Decimal(value))) for label, value in found if value]


urls: list[URLPattern] = [
    path("requests/", listing, name="requests"),
    path("requests/<path:key>", one, name="request"),
]
