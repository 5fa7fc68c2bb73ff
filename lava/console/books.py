"""The ledger of all customers: every entry of the open books, newest first.

Reads only. Two streams are laid together by time: requests (one row each, whatever they drew from)
and the lines of everything else; each is read by its own index, so a page costs the same at any
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Count, Q, Sum
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import credits, errors, ids
from billing.models import Connection, CreditGrant, LedgerEntry, Merchant
from lava.console import access, moments, rates, timeline
from meters.models import UsageRequest

PAGE = 50
ZERO = Decimal(0)
Kind = LedgerEntry.Kind
# What a reader may ask for, in their words.
SHOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "usage": ("Usage", (Kind.USAGE,)),
    "in": ("Credits added", (Kind.GRANT,)),
    "overage": ("Overage paid by card", (Kind.OVERAGE_CHARGED,)),
    "debt": ("Owed usage paid from credits", (Kind.DEBT,)),
    "roll": ("Rolled over", (Kind.ROLL,)),
    "ended": ("Credits ended", (Kind.EXPIRE,)),
    "back": ("Taken back or adjusted", (Kind.REFUND, Kind.CLAWBACK, Kind.ADJUST)),
}


@dataclass(slots=True)
class Line:
    """A row of the books: whose, and what happened."""

    connection: Connection
    row: timeline.Row


@dataclass(slots=True)
class Band:
    """A local day."""

    name: str
    lines: list[Line] = field(default_factory=list)

    @property
    def rows(self) -> list[timeline.Row]:
        return [line.row for line in self.lines]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended in each stream: the last request, the last line."""

    request: UUID | None = None
    entry: int | None = None

    @classmethod
    def read(cls, text: str) -> Cursor:
        """What `text` says; anything else is the beginning."""
        entry, _, request = text.partition(".")
        try:
            return cls(
                entry=int(entry) if entry.isdecimal() and len(entry) < 19 else None,
                request=ids.parse("req", request) if request else None,
            )
        except errors.NotFound:
            return cls()

    def __str__(self) -> str:
        request = ids.public("req", self.request) if self.request else ""
        return f"{self.entry or ''}.{request}"


@access.requires("billing.view_ledgerentry")
@require_GET
def ledger(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/ledger`: every entry, by kind and by customer."""
    merchant = request.merchant
    query = {name: request.GET.get(name, "").strip() for name in ("kind", "connection")}
    now, zone = merchant.now(), merchant.time_zone
    lines, older = page(
        merchant,
        kind=query["kind"],
        connection=key(query["connection"]) if query["connection"] else None,
        cursor=Cursor.read(request.GET.get("before", "")),
    )
    bands: list[Band] = []
    for line in lines:
        name = moments.name(line.row.moment, zone, now=now)
        if not bands or bands[-1].name != name:
            bands.append(Band(name))
        bands[-1].lines.append(line)
    kept = {name: value for name, value in query.items() if value}
    return render(
        request,
        "console/ledger.html",
        {
            "bands": bands,
            "older": urlencode(kept | {"before": str(older)}) if older else "",
            "newest": urlencode(kept) if request.GET.get("before") else None,
            "query": query,
            "export": urlencode(kept),
            "kinds": [(name, label) for name, (label, _) in SHOWN.items()],
            "is_filtered": bool(kept),
            "sums": sums(merchant, now=now),
            "zone": zone,
            "currency": merchant.currency,
        },
    )


def sums(merchant: Merchant, *, now: datetime) -> dict[str, Any]:
    """What the books say as a whole: credit not used yet, usage owed, and their difference."""
    left = (
        CreditGrant.objects.of(merchant)
        .filter(credits.live(now), is_spent=False)
        .aggregate(sum=Sum("remaining", default=ZERO), count=Count("connection", distinct=True))
    )
    owed = (
        Connection.objects.of(merchant)
        .filter(owes=True)
        .aggregate(sum=Sum("debt", default=ZERO), count=Count("pk"))
    )
    return {
        "credit": left["sum"],
        "holders": left["count"],
        "owed": owed["sum"],
        "owing": owed["count"],
        "net": left["sum"] - owed["sum"],
    }


def page(
    merchant: Merchant, *, kind: str, connection: UUID | None, cursor: Cursor
) -> tuple[list[Line], Cursor | None]:
    """A page of the books, and where the next one begins; None at the end."""
    mine = Q(merchant_id=merchant.pk)
    if connection is not None:
        mine &= Q(connection_id=connection)
    used: list[UsageRequest] = []
    groups: list[list[LedgerEntry]] = []
    is_cut = False
    if kind == "usage" or kind not in SHOWN:
        used = _requests(mine, cursor)
    if kind != "usage":
        groups, is_cut = _groups(mine, kind, cursor)
    lines: list[Line] = []
    request, entry = cursor.request, cursor.entry
    # Past the lines that were read, a request could not be placed: the page ends there.
    while (groups or (used and not is_cut)) and len(lines) < PAGE:
        if used and (not groups or used[0].created_at >= groups[0][0].occurred_at):
            row = used.pop(0)
            request = row.pk
            lines.append(_usage(row))
        else:
            group = groups.pop(0)
            entry = group[-1].pk
            lines.append(_entry(group, zone=merchant.time_zone))
    more = bool(used or groups or is_cut)
    return lines, Cursor(request=request, entry=entry) if more else None


def _requests(mine: Q, cursor: Cursor) -> list[UsageRequest]:
    rows = UsageRequest.objects.filter(mine)
    if cursor.request is not None:
        rows = rows.filter(pk__lt=cursor.request)
    return list(
        rows.select_related("connection__customer", "meter", "price").order_by("-id")[: PAGE + 1]
    )


def _groups(mine: Q, kind: str, cursor: Cursor) -> tuple[list[list[LedgerEntry]], bool]:
    """The other lines, those of one act together, and whether there are more than were read."""
    rows = LedgerEntry.objects.filter(mine).exclude(kind=Kind.USAGE)
    if kind in SHOWN:
        rows = rows.filter(kind__in=SHOWN[kind][1])
    if cursor.entry is not None:
        rows = rows.filter(pk__lt=cursor.entry)
    most = PAGE * 2
    found: Sequence[LedgerEntry] = list(
        rows.select_related("connection__customer", *timeline.TOLD).order_by("-id")[:most]
    )
    groups = timeline.grouped(found)
    is_cut = len(found) == most
    if is_cut and len(groups) > 1:
        # The last act may go on below what was read.
        groups.pop()
    return groups, is_cut


def _usage(row: UsageRequest) -> Line:
    return Line(
        connection=row.connection,
        row=timeline.Row(
            moment=row.created_at,
            title=row.meter.name,
            note=rates.count(row.quantity, row.price.unit),
            amount=-row.charged,
            balance=row.total_remaining,
            made_by=row.public_id,
            link=f"/console/requests/{row.public_id}",
        ),
    )


def _entry(group: list[LedgerEntry], *, zone: str) -> Line:
    connection = group[0].connection
    return Line(
        connection=connection,
        row=timeline.told(group, {}, {}, zone=zone, currency=connection.currency),
    )


def key(text: str) -> UUID:
    """The key of a connection's id; one that is not well formed finds nothing."""
    try:
        return ids.parse("con", text)
    except errors.NotFound:
        return UUID(int=0)


urls: list[URLPattern] = [path("ledger", ledger, name="ledger")]
