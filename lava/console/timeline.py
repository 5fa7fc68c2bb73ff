"""A connection's ledger as people read it: one row for what happened at once, in bands of days.

Reads only. A request that drew from two grants is two lines in the ledger and one row here; so are
the two lines of paid debt, and the lines of a rollover. A usage row opens its proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import connection as database
from django.db.models import Q

from billing import credits, money, receipts
from billing.models import Connection, CreditGrant, LedgerEntry
from lava.console import moments, rates, requests
from meters.models import UsageRequest

ZERO = Decimal(0)
# Rows of a page, about; a group of lines is never torn.
PAGE = 60
# What `told` reads of a line beside itself.
TOLD = ("grant__bundle", "grant__payment__plan", "grant__payment__bundle", "payment")
Kind = LedgerEntry.Kind
SHOWN = {
    "usage": (Kind.USAGE,),
    "in": (Kind.GRANT, Kind.REFUND, Kind.OVERAGE_CHARGED),
}


@dataclass(slots=True)
class Row:
    """One thing that happened: its name, what it moved, the balance after it."""

    moment: datetime
    title: str
    note: str
    amount: Decimal
    balance: Decimal
    made_by: str = ""
    link: str = ""
    # Money in; usage and endings stay in ink.
    is_in: bool = False
    proof: dict[str, Any] | None = None


@dataclass(slots=True)
class Band:
    """A local day with its rows, newest first."""

    name: str
    rows: list[Row] = field(default_factory=list)


def page(
    connection: Connection, *, before: int | None, show: str, zone: str, now: datetime
) -> tuple[list[Band], int | None, list[CreditGrant]]:
    """One page of the ledger, the line before which the next one begins (None at the end), and the
    grants that live now: they are read together with those that paid for the page's requests."""
    lines = LedgerEntry.objects.filter(
        merchant_id=connection.merchant_id, connection_id=connection.pk
    )
    if before is not None:
        lines = lines.filter(seq__lt=before)
    if show in SHOWN:
        lines = lines.filter(kind__in=SHOWN[show])
    found = list(lines.select_related(*TOLD).order_by("-seq")[: PAGE + 1])
    groups = grouped(found)
    more = len(found) > PAGE
    if more and len(groups) > 1:
        groups.pop()
    asked = {group[0].request_id for group in groups if group[0].request_id}
    reports = {
        row.pk: row
        for row in UsageRequest.objects.filter(
            merchant_id=connection.merchant_id, pk__in=asked
        ).select_related("meter", "price", "connection")
    }
    keys = {str(key) for row in reports.values() for key, _ in row.draws if key is not None}
    rows = CreditGrant.objects.filter(
        Q(pk__in=keys) | credits.live(now), connection=connection
    ).select_related("bundle")
    grants = {str(row.pk): row for row in rows}
    live = [row for row in grants.values() if row.is_live(now)]
    bands: list[Band] = []
    for group in groups:
        row = told(group, reports, grants, zone=zone, currency=connection.currency)
        name = moments.name(row.moment, zone, now=now)
        if not bands or bands[-1].name != name:
            bands.append(Band(name))
        bands[-1].rows.append(row)
    return bands, groups[-1][-1].seq if more and groups else None, live


def days(connection: Connection, *, since: datetime, zone: str) -> list[tuple[datetime, Decimal]]:
    """The balance after the last line of each local day since an instant, oldest first."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT ON (date_trunc('day', occurred_at AT TIME ZONE %s)) "
            "occurred_at, balance_after FROM billing_ledgerentry "
            "WHERE connection_id = %s AND occurred_at >= %s "
            "ORDER BY date_trunc('day', occurred_at AT TIME ZONE %s), seq DESC",
            [zone, connection.pk, since, zone],
        )
        return list(cursor.fetchall())


def grouped(lines: Sequence[LedgerEntry]) -> list[list[LedgerEntry]]:
    """Lines, newest first, of one act together."""
    groups: list[list[LedgerEntry]] = []
    for line in lines:
        if groups and _same_act(groups[-1], line):
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def _same_act(group: list[LedgerEntry], line: LedgerEntry) -> bool:
    newest = group[0]
    if newest.connection_id != line.connection_id or group[-1].seq != line.seq + 1:
        return False
    if line.kind == Kind.USAGE:
        return newest.kind == Kind.USAGE and newest.request_id == line.request_id
    if line.kind == Kind.DEBT:
        return newest.kind == Kind.DEBT and newest.occurred_at == line.occurred_at
    if line.kind == Kind.ROLL:
        rolled = newest.grant is not None and newest.grant.source == CreditGrant.Source.ROLLOVER
        return newest.kind == Kind.ROLL or (newest.kind == Kind.GRANT and rolled)
    return False


def told(
    group: list[LedgerEntry],
    reports: dict[Any, UsageRequest],
    grants: dict[str, CreditGrant],
    *,
    zone: str,
    currency: str,
) -> Row:
    """The lines of one act as a row; `reports` holds the requests a usage line may name."""
    newest = group[0]
    row = Row(
        moment=newest.occurred_at,
        title=str(newest.get_kind_display()),
        note="",
        amount=sum((line.amount for line in group), ZERO),
        balance=newest.balance_after,
    )
    report = reports.get(newest.request_id)
    if newest.kind == Kind.USAGE and report is not None:
        row.title = report.meter.name
        row.note = rates.count(report.quantity, report.price.unit)
        row.made_by = report.public_id
        row.link = f"/console/requests/{report.public_id}"
        row.proof = requests.proof(report, grants, zone=zone)
        return row
    if newest.payment is not None:
        row.made_by = newest.payment.public_id
        row.link = f"/console/payments/{newest.payment.public_id}"
    if newest.kind == Kind.GRANT and newest.grant is not None:
        _granted(row, group, newest.grant)
    elif newest.kind == Kind.DEBT:
        # From a grant to the debt: the balance stays, so the sum stands in the words.
        taken = sum((line.amount for line in group if line.amount > 0), ZERO)
        row.title = "Owed usage paid"
        row.note = f"{money.display(taken, currency)} from new credit"
    elif newest.kind == Kind.ROLL:
        # Out of one grant and into another: the balance stays here too.
        carried = sum((line.amount for line in group if line.amount > 0), ZERO)
        row.title = "Rolled over"
        row.note = f"{money.display(carried, currency)} into the new cycle"
    elif newest.kind == Kind.EXPIRE and newest.grant is not None:
        row.note = newest.reason or requests.grant_name(newest.grant, zone)
    elif newest.kind == Kind.OVERAGE_CHARGED:
        row.title, row.note, row.is_in = "Overage paid", "by card", True
    elif newest.reason:
        row.note = newest.reason
    return row


def _granted(row: Row, group: list[LedgerEntry], grant: CreditGrant) -> None:
    """The words of credits that came in, by where they came from."""
    source = CreditGrant.Source
    row.is_in = True
    payment = grant.payment if grant.payment_id else None
    if grant.source == source.ROLLOVER:
        row.title, row.note = "Rolled over", "from the cycle before"
        # The lines that left the old cycle cancel it out: say what was carried.
        row.amount = group[0].amount
    elif grant.source == source.CYCLE:
        row.title, row.note = "Plan credit", ""
        if payment is not None:
            renewed = payment.purpose == payment.Purpose.RENEWAL
            row.title = "Renewed" if renewed else "Subscribed"
            name = payment.plan.name if payment.plan is not None else "plan"
            row.note = f"{name}, paid {receipts.amount(payment)}"
    elif grant.source == source.BUNDLE:
        row.title = "Bundle bought"
        if payment is not None:
            row.note = f"{receipts.what(payment)}, for {receipts.amount(payment)}"
    elif grant.source == source.VOLUME:
        row.title, row.note = "Volume discount", grant.reason
    else:
        row.title, row.note, row.made_by = "Given by hand", grant.reason, grant.actor
        row.link = ""
