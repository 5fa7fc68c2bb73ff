"""Statements: a connection's ledger, line by line, and the balance it adds up to at an instant.

Reads only. `explain` takes everything from the ledger's lines and the grants' lives, and nothing
from the connection's head, so that it also says whether the two agree. `manage.py explain` and the
API's `balance/explain` join it with `meters.proofs`, which knows the requests behind the lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Sum

from billing.credits import ZERO, Balance
from billing.models import Connection, CreditGrant, LedgerEntry


@dataclass(frozen=True, slots=True)
class Lot:
    """A grant and what its lines left of it at the instant; `ended`: its life was over by then and
    the end is not entered yet, so that nothing of it can be spent."""

    grant: CreditGrant
    remaining: Decimal
    ended: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """A connection's ledger up to `at`. `balance` is what could be spent then; the sum of all lines
    is `balance.total + ended`. `lines` are the newest of them, oldest first; `before` is the
    balance before the first of `lines`, and `has_more` says that older ones are left out."""

    connection: Connection
    at: datetime
    lines: list[LedgerEntry]
    before: Decimal
    has_more: bool
    # Grants with something left, in the order of the draw.
    lots: list[Lot]
    balance: Balance
    # Credits whose life is over by `at` and whose end is not entered in the ledger yet.
    ended: Decimal

    @property
    def requests(self) -> list[UUID]:
        """The usage requests behind the lines, each once, in order."""
        return list(dict.fromkeys(line.request_id for line in self.lines if line.request_id))


def explain(
    connection: Connection, *, at: datetime, most: int | None = None, below: int | None = None
) -> Statement:
    """Explain a balance at an instant of the merchant's clock.

    `most` lines at most (None: all), those numbered under `below` (None: up to the newest), for a
    page of a long ledger; balance and lots are of the whole ledger up to `at` either way.
    """
    entered = LedgerEntry.objects.filter(
        merchant_id=connection.merchant_id, connection_id=connection.pk, occurred_at__lte=at
    )
    page = entered if below is None else entered.filter(seq__lt=below)
    newest = page.select_related("grant__bundle", "payment__plan", "payment__bundle").order_by(
        "-seq"
    )
    found = list(newest if most is None else newest[: most + 1])
    has_more = most is not None and len(found) > most
    lines = found[:most][::-1]
    sums: dict[Any, Decimal] = dict(
        entered.values_list("grant_id").annotate(Sum("amount")).order_by()
    )
    lots = _lots(sums, at=at)
    left = {
        pool: sum((lot.remaining for lot in lots if lot.grant.pool == pool and not lot.ended), ZERO)
        for pool in CreditGrant.Pool
    }
    return Statement(
        connection=connection,
        at=at,
        lines=lines,
        before=lines[0].balance_after - lines[0].amount if lines else ZERO,
        has_more=has_more,
        lots=lots,
        balance=Balance(
            cycle=left[CreditGrant.Pool.CYCLE],
            bundle=left[CreditGrant.Pool.BUNDLE],
            debt=-sums.get(None, ZERO),
            currency=connection.currency,
        ),
        ended=sum((lot.remaining for lot in lots if lot.ended), ZERO),
    )


def _lots(sums: dict[Any, Decimal], *, at: datetime) -> list[Lot]:
    """The grants that have something left, in the order of the draw."""
    left = {grant: amount for grant, amount in sums.items() if grant is not None and amount}
    grants = CreditGrant.objects.filter(pk__in=left).select_related("bundle")
    lots = [
        Lot(
            grant=grant,
            remaining=left[grant.pk],
            ended=grant.expires_at is not None and grant.expires_at <= at,
        )
        for grant in grants
    ]
    return sorted(lots, key=lambda lot: _order(lot.grant))


def _order(grant: CreditGrant) -> tuple[Any, ...]:
    """Priority, soonest end (never-ending last), cycle before bundle, oldest (money.md)."""
    ends = grant.expires_at
    return (
        grant.priority,
        ends is None,
        ends.timestamp() if ends is not None else 0,
        grant.pool,
        grant.origin_at,
        grant.pk,
    )
