"""The order of the draw, replayed line by line. Ordered here by code of this module alone.

Only the ledgers in which a draw may have passed somebody over are replayed: those with a draw that
stands between the first and the last line of a lot that comes before its own, within that lot's
life. Where lots are emptied one after the other there is none.
"""

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

_SUSPECTS = """
    WITH lots AS MATERIALIZED (
        SELECT e.connection_id, e.grant_id, g.effective_at AS starts,
               coalesce(g.expires_at, 'infinity') AS ends, g.priority, g.pool, g.origin_at,
               e.first, CASE WHEN e.left = 0 THEN e.last ELSE 9223372036854775807 END AS last,
               e.first_draw, e.last_draw
          FROM (SELECT connection_id, grant_id, min(seq) AS first, max(seq) AS last,
                       sum(amount) AS "left",
                       min(seq) FILTER (WHERE kind IN ('usage', 'debt') AND amount < 0)
                           AS first_draw,
                       max(seq) FILTER (WHERE kind IN ('usage', 'debt') AND amount < 0)
                           AS last_draw
                  FROM billing_ledgerentry GROUP BY connection_id, grant_id) e
          LEFT JOIN billing_creditgrant g ON g.id = e.grant_id)
    SELECT DISTINCT own.connection_id
      FROM lots own JOIN lots other ON other.connection_id = own.connection_id
       AND other.first < own.last_draw AND other.last > own.first_draw
     WHERE other.grant_id IS NOT NULL AND other.grant_id IS DISTINCT FROM own.grant_id
       AND (own.grant_id IS NULL
            OR (other.priority, other.ends, other.pool, other.origin_at, other.grant_id)
             < (own.priority, own.ends, own.pool, own.origin_at, own.grant_id))
       AND EXISTS (SELECT FROM billing_ledgerentry e
                    WHERE e.connection_id = own.connection_id
                      AND e.seq > other.first AND e.seq < other.last
                      AND e.grant_id IS NOT DISTINCT FROM own.grant_id
                      AND e.kind IN ('usage', 'debt') AND e.amount < 0
                      AND e.occurred_at >= other.starts AND e.occurred_at < other.ends)
"""

_LINES = """
    SELECT e.connection_id, e.seq, e.kind, e.amount, e.occurred_at, e.grant_id,
           g.effective_at, g.expires_at, g.priority, g.pool, g.origin_at
      FROM billing_ledgerentry e LEFT JOIN billing_creditgrant g ON g.id = e.grant_id
     WHERE e.connection_id IN ({suspects})
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


def draws_out_of_order(suspects: str = _SUSPECTS) -> Iterator[Row]:
    """Replay ledgers: fees and debts are paid by the first live grant of the order, and become
    debt only when no live grant has anything left. `suspects` is SQL for the connections."""
    for connection, lines in groupby(stream(_LINES.format(suspects=suspects)), key=itemgetter(0)):
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
