"""The ledger lines an act would write: it is done, read and taken back, so that the page that shows
them before the click cannot differ from the act.

The verb itself runs inside a transaction that ends undone, under the connection's lock; it must be
one that talks to no network. Called by the console's processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing import ledger
from billing.models import Connection, LedgerEntry
from lava.console import requests

Kind = LedgerEntry.Kind
# What a line does, in the words of the page.
WORDS: dict[str, str] = {
    Kind.GRANT: "Credit given",
    Kind.EXPIRE: "Ends",
    Kind.ROLL: "Rolled over",
    Kind.DEBT: "Pays what is owed",
    Kind.ADJUST: "Taken away",
    Kind.CLAWBACK: "Taken back",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line as the ledger would hold it."""

    what: str
    account: str
    amount: Decimal
    balance: Decimal
    note: str


def lines(connection: Connection, act: Callable[[Connection], Any], *, zone: str) -> list[Line]:
    """What `act` would append to a connection's ledger now. Nothing of it stays.

    Raises:
        billing.errors.LavaError: what the act itself refuses.
    """
    with transaction.atomic():
        locked = ledger.lock(connection.pk, merchant_id=connection.merchant_id)
        act(locked)
        rows = (
            LedgerEntry.objects.filter(
                merchant_id=locked.merchant_id,
                connection_id=locked.pk,
                seq__gt=locked.entry_count,
            )
            .select_related("grant__bundle")
            .order_by("seq")
        )
        found = [_line(row, zone) for row in rows]
        transaction.set_rollback(True)
    return found


def _line(row: LedgerEntry, zone: str) -> Line:
    owed = row.grant is None
    what = WORDS.get(row.kind, row.get_kind_display())
    if owed and row.kind in (Kind.ADJUST, Kind.CLAWBACK):
        what = "Becomes owed" if row.amount < 0 else "Owed no more"
    elif row.amount > 0 and row.kind == Kind.CLAWBACK:
        what = "Given back"
    return Line(
        what=what,
        account="Owed past the credit" if owed else requests.grant_name(row.grant, zone),
        amount=row.amount,
        balance=row.balance_after,
        note=row.reason,
    )
