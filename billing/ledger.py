"""The ledger: lock a connection, append a line, read the head.

The only door to the functions of `billing/sql/ledger.sql`, which are the only writers of
`LedgerEntry`, of `CreditGrant.remaining` and of a connection's money columns. Called by
`billing.credits` and the other money verbs of billing, inside a transaction, after `lock`.
Cost: `append` is one round trip.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection as database
from django.db import transaction

from billing import errors
from billing.models import Connection


def lock(connection_id: UUID, *, merchant_id: UUID | None = None) -> Connection:
    """Take the row lock that every money verb takes first, and read the row again under it.

    The lock order of the whole product: connection, grants by the draw order, payment.

    Raises:
        billing.errors.NotFound: no such connection (of that merchant).
        django.db.transaction.TransactionManagementError: outside a transaction.
    """
    rows = Connection.objects.select_for_update(of=("self",), no_key=True).select_related(
        "merchant__organization", "customer"
    )
    if merchant_id is not None:
        rows = rows.filter(merchant_id=merchant_id)
    row: Connection | None = rows.filter(pk=connection_id).first()
    if row is None:
        raise errors.NotFound("No such connection.", code="connection_not_found")
    return row


def append(
    connection: Connection,
    *,
    kind: str,
    amount: Decimal,
    now: datetime,
    grant_id: UUID | None = None,
    request_id: UUID | None = None,
    payment_id: UUID | None = None,
    reason: str = "",
    actor: str = "",
) -> Decimal:
    """Append one line to the account of a grant, or (no grant) of the debt.

    Returns the balance after it. An amount of 0 writes nothing.
    """
    return Decimal(
        call(
            "SELECT billing_append(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            connection.pk,
            kind,
            amount,
            grant_id,
            request_id,
            payment_id,
            reason,
            actor,
            now,
        )
    )


def call(sql: str, *params: Any) -> Any:
    """One value from one of the ledger's SQL functions; only inside a transaction."""
    if not database.in_atomic_block:
        raise transaction.TransactionManagementError("A money verb runs inside atomic().")
    with database.cursor() as cursor:
        cursor.execute(sql, params)
        row = cursor.fetchone()
    return row[0] if row else None
