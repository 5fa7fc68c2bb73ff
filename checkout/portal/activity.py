"""The lines of a customer's credits, newest first, in their words.

Reads the ledger. Its lines are those of grants: what one request drew from two grants, or what
moved from one grant into another, is one line here, and what moves nothing is none.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext, gettext_noop

from billing import locales, money, receipts
from billing.models import Connection, CreditGrant, LedgerEntry
from checkout import languages, prices, summary
from checkout.summary import Amount

Kind = LedgerEntry.Kind
# Ledger lines of one page; a line of the page is one or a few of them.
PAGE = 60
CHUNK = 2000

_WORDS = {
    Kind.EXPIRE: gettext_noop("Credits ended"),
    Kind.ROLL: gettext_noop("Rolled over"),
    Kind.DEBT: gettext_noop("Paid what you owed"),
    Kind.OVERAGE_CHARGED: gettext_noop("Use past your credits, paid by card"),
    Kind.REFUND: gettext_noop("Request taken back"),
    Kind.ADJUST: gettext_noop("Adjustment"),
    Kind.CLAWBACK: gettext_noop("Credits taken back"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened to the credits."""

    at: datetime
    what: str
    used: str
    # The receipt behind it: number and address.
    receipt: str
    url: str
    change: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Row:
    """A line as the page shows it."""

    time: str
    exact: str
    what: str
    used: str
    receipt: str
    url: str
    change: Amount
    after: Amount
    is_in: bool


@dataclass(frozen=True, slots=True)
class Day:
    """The lines of a day, the newest first."""

    title: str
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Page:
    """Days of lines; `older` is where the next page begins, None: there is none."""

    days: list[Day]
    older: int | None
    # Of the whole ledger.
    count: int


def page(
    connection: Connection, *, now: datetime, below: int | None = None, most: int = PAGE
) -> Page:
    """A page of the ledger, from the newest line under `below` (None: the newest)."""
    entries = _entries(connection, below=below)
    # One more than is shown says whether there are older ones; a group cut at the end is left to
    # the next page, which begins with it.
    found = list(entries[: most + 1])
    has_more = len(found) > most
    groups = [list(group) for _, group in groupby(found, key=_key)]
    if has_more and len(groups) > 1:
        groups.pop()
    lines = list(_lines(connection, groups))
    older = int(groups[-1][-1].seq) if has_more and groups else None
    count = int(Connection.objects.values_list("entry_count", flat=True).get(pk=connection.pk))
    return Page(_days(lines, connection, now=now), older, count)


def csv_lines(connection: Connection) -> Iterator[str]:
    """The whole ledger as CSV, the newest first, a few thousand lines at a time. Its words are in
    the language of now; instants and amounts are written for machines."""
    # A spreadsheet takes a file without the mark for Windows' letters.
    yield "\ufeff" + _csv(
        [
            gettext("Time"),
            gettext("What"),
            gettext("Used"),
            gettext("Credits"),
            gettext("Left after"),
            gettext("Currency"),
            gettext("Receipt"),
        ]
    )
    below: int | None = None
    while True:
        found = list(_entries(connection, below=below)[: CHUNK + 1])
        groups = [list(group) for _, group in groupby(found, key=_key)]
        if len(found) > CHUNK and len(groups) > 1:
            groups.pop()
        for line in _lines(connection, groups):
            yield _csv(
                [
                    line.at.isoformat(),
                    line.what,
                    line.used,
                    money.wire(line.change),
                    money.wire(line.after),
                    connection.currency,
                    line.receipt,
                ]
            )
        if len(found) <= CHUNK:
            return
        below = groups[-1][-1].seq


def _entries(connection: Connection, *, below: int | None) -> Any:
    rows = LedgerEntry.objects.filter(
        merchant_id=connection.merchant_id, connection_id=connection.pk
    )
    if below is not None:
        rows = rows.filter(seq__lt=below)
    return rows.select_related(
        "grant__bundle", "grant__cycle__plan", "payment__plan", "payment__bundle", "grant__payment"
    ).order_by("-seq")


def _key(entry: Any) -> tuple[Any, ...]:
    """What belongs together: the lines of one request, or of one step of one instant."""
    if entry.request_id is not None:
        return (entry.kind, entry.request_id)
    if entry.kind in (Kind.ROLL, Kind.DEBT, Kind.EXPIRE):
        return (entry.kind, entry.occurred_at)
    return (entry.kind, entry.seq)


def _lines(connection: Connection, groups: list[list[Any]]) -> Iterator[Line]:
    wanted = {group[0].request_id for group in groups if group[0].request_id is not None}
    requests: dict[Any, Any] = {
        row["pk"]: row
        for row in connection.requests.filter(pk__in=wanted).values(
            "pk", "meter__name", "price__unit", "quantity"
        )
    }
    for group in groups:
        newest = group[0]
        change = sum((entry.amount for entry in group), Decimal(0))
        if not change:
            continue
        request = requests.get(newest.request_id)
        payment = newest.payment or (newest.grant.payment if newest.kind == Kind.GRANT else None)
        receipt = payment.receipt_number if payment is not None else ""
        yield Line(
            at=newest.occurred_at,
            what=_what(newest, request),
            used=prices.used(request["price__unit"], request["quantity"]) if request else "",
            receipt=receipt,
            url=languages.with_language(receipts.address(payment))
            if payment is not None and receipt
            else "",
            change=change,
            after=newest.balance_after,
        )


def _what(entry: Any, request: Any) -> str:
    if entry.kind == Kind.USAGE and request:
        return str(request["meter__name"])
    if entry.kind == Kind.REFUND and request:
        return gettext("{meter}, taken back").format(meter=request["meter__name"])
    if entry.kind == Kind.GRANT:
        grant = entry.grant
        if grant.bundle is not None:
            return gettext("{pack} bought").format(pack=grant.bundle.name)
        if grant.cycle is not None:
            return gettext("{plan} credits").format(plan=grant.cycle.plan.name)
        if grant.source == CreditGrant.Source.VOLUME:
            return gettext("Volume discount")
        return gettext("Credits given to you")
    if entry.kind == Kind.USAGE:
        return gettext("Usage")
    return gettext(_WORDS[Kind(entry.kind)])


def _days(lines: list[Line], connection: Connection, *, now: datetime) -> list[Day]:
    zone = ZoneInfo(connection.merchant.time_zone)
    currency = connection.currency
    changes = summary.column([(line.change, currency) for line in lines], signs=[True] * len(lines))
    afters = summary.column([(line.after, currency) for line in lines])
    rows = [
        (
            line.at.astimezone(zone).date(),
            line.at,
            Row(
                time=locales.clock(line.at.astimezone(zone)),
                exact=line.at.isoformat(),
                what=line.what,
                used=line.used,
                receipt=line.receipt,
                url=line.url,
                change=change,
                after=after,
                is_in=line.change > 0,
            ),
        )
        for line, change, after in zip(lines, changes, afters, strict=True)
    ]
    today = now.astimezone(zone).date()
    days = []
    for date, group in groupby(rows, key=lambda row: row[0]):
        found = list(group)
        title = locales.day(found[0][1], str(zone), year=date.year != today.year)
        if date == today:
            title = gettext("Today, {date}").format(date=title)
        elif date == today - timedelta(days=1):
            title = gettext("Yesterday, {date}").format(date=title)
        days.append(Day(title, [row for _, _, row in found]))
    return days


def _csv(cells: list[str]) -> str:
    """One line; a cell that a spreadsheet would run as a formula is made text."""
    written = io.StringIO()
    csv.writer(written).writerow(
        [
            f"'{cell}" if cell[:1] in ("=", "+", "@", "\t", "\r") or _is_formula(cell) else cell
            for cell in cells
        ]
    )
    return written.getvalue()


def _is_formula(cell: str) -> bool:
    """A minus before anything but a number of ours."""
    return cell.startswith("-") and not cell[1:].replace(".", "", 1).isdecimal()
