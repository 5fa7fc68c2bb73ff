"""Whether every cent is there: asked after each round, when nothing is under way.

The sums each time, the whole audit after the last round: it reads every row of every round.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.db import connection

from lava.management.commands import audit


@dataclass(frozen=True)
class Books:
    """What stands in the books. `broken` names the rules of the audit that do not hold."""

    rows: int
    charged: Decimal
    drawn: Decimal
    broken: list[str]

    def hold(self, *, acknowledged: int) -> bool:
        """As many requests as were acknowledged, every fee drawn once, every rule kept."""
        return self.rows == acknowledged and self.charged == self.drawn and not self.broken


def read(*, audited: bool) -> Books:
    """Read them; with the whole audit, which reads every row there is, or without."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(charged), 0),"
            " (SELECT coalesce(-sum(amount), 0) FROM billing_ledgerentry WHERE kind = 'usage')"
            " FROM meters_usagerequest"
        )
        rows, charged, drawn = cursor.fetchone()
    broken = sorted(audit.broken(limit=5)) if audited else []
    return Books(rows=rows, charged=charged, drawn=drawn, broken=broken)
