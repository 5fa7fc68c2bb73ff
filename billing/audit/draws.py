"""The order of the draw, replayed line by line. Ordered here by code of this module alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

from billing.audit.asking import Row, Rule, stream

_NEVER = datetime.max.replace(tzinfo=UTC)

_LINES = """
    SELECT e.connection_id, e.seq, e.kind, e.amount, e.occurred_at, e.grant_id,
           g.effective_at, g.expires_at, g.priority, g.pool, g.origin_at
      FROM billing_ledgerentry e LEFT JOIN billing_creditgrant g ON g.id = e.grant_id
     ORDER BY e.connection_id, e.seq
"""


@dataclass(slots=True)
class Lot:
    """A grant with something left; `order`: priority, soonest end (never-ending last), cycle before
    bundle, oldest."""

    left: Decimal
    starts: datetime
    ends: datetime
    order: tuple[Any, ...]


def draws_out_of_order() -> Iterator[Row]:
    """Replay each ledger: fees and debts are paid by the first live grant of the order, and become
    debt only when no live grant has anything left."""
    for connection, lines in groupby(stream(_LINES), key=itemgetter(0)):
        lots: dict[Any, Lot] = {}
        for _, seq, kind, amount, moment, own, *terms in lines:
            if own is not None and own not in lots:
                lots[own] = _lot(own, *terms)
            if amount < 0 and kind in ("usage", "debt"):
                for grant, lot in lots.items():
                    if grant != own and lot.starts <= moment < lot.ends and lot.left > 0:
                        if own is None or lot.order < lots[own].order:
                            yield {
                                "connection": connection,
                                "seq": seq,
                                "kind": kind,
                                "amount": amount,
                                "grant_id": own,
                                "passed_over": grant,
                                "left": lot.left,
                            }
                            break
            if own is not None:
                lots[own].left += amount
                if not lots[own].left:
                    del lots[own]


def _lot(
    grant: Any, starts: datetime, ends: datetime | None, priority: int, pool: int, origin: datetime
) -> Lot:
    return Lot(
        left=Decimal(0),
        starts=starts,
        ends=ends or _NEVER,
        order=(priority, ends or _NEVER, pool, origin, grant),
    )


RULES = (
    Rule(
        "draws_in_order",
        "Fees are drawn in the order of the draw, and become debt only when all is spent.",
        draws_out_of_order,
    ),
)
