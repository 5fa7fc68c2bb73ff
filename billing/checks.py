"""The books' own sums, side by side: what must be equal, of one merchant. Asks, never writes.

`manage.py audit` holds every rule for all merchants; these are the ones a merchant reads, with both
figures. Called by `lava.reconciling`; `meters.checks` has those of usage.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.db import connection as database

from billing.models import Merchant


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: two sums that must be equal, row by row."""

    name: str
    sides: str
    first: Decimal
    second: Decimal
    # How many rows differ from their own lines; sums alone could cancel out.
    off: int
    count: int

    @property
    def holds(self) -> bool:
        return self.first == self.second and not self.off

    def stored(self) -> dict[str, object]:
        """As a run keeps it."""
        return {
            "name": self.name,
            "sides": self.sides,
            "first": f"{self.first:f}",
            "second": f"{self.second:f}",
            "off": self.off,
            "count": self.count,
        }


_BALANCES = """
SELECT COALESCE(sum(c.balance), 0), COALESCE(sum(e.total), 0),
       count(*) FILTER (WHERE c.balance <> COALESCE(e.total, 0)), COALESCE(sum(e.lines), 0)
  FROM billing_connection c
  LEFT JOIN (SELECT connection_id, sum(amount) AS total, count(*) AS lines
               FROM billing_ledgerentry WHERE merchant_id = %(merchant)s
              GROUP BY connection_id) e ON e.connection_id = c.id
 WHERE c.merchant_id = %(merchant)s
"""
_GRANTS = """
SELECT COALESCE(sum(g.remaining), 0), COALESCE(sum(e.total), 0),
       count(*) FILTER (WHERE g.remaining <> COALESCE(e.total, 0)), count(*)
  FROM billing_creditgrant g
  LEFT JOIN (SELECT grant_id, sum(amount) AS total
               FROM billing_ledgerentry
              WHERE merchant_id = %(merchant)s AND grant_id IS NOT NULL
              GROUP BY grant_id) e ON e.grant_id = g.id
 WHERE g.merchant_id = %(merchant)s
"""
_DEBT = """
SELECT COALESCE(sum(c.debt), 0), COALESCE(sum(e.total), 0),
       count(*) FILTER (WHERE c.debt <> COALESCE(e.total, 0)), count(*) FILTER (WHERE c.debt > 0)
  FROM billing_connection c
  LEFT JOIN (SELECT connection_id, -sum(amount) AS total
               FROM billing_ledgerentry
              WHERE merchant_id = %(merchant)s AND grant_id IS NULL
              GROUP BY connection_id) e ON e.connection_id = c.id
 WHERE c.merchant_id = %(merchant)s
"""


def of(merchant: Merchant) -> list[Check]:
    """Each check with its two sums, one query each."""
    return [
        run(merchant, "Each balance is the sum of its entries", "Balances and ledger", _BALANCES),
        run(
            merchant,
            "Each grant is what was given less what was drawn",
            "Grants and ledger",
            _GRANTS,
        ),
        run(merchant, "What is owed is what was not covered", "Debts and ledger", _DEBT),
    ]


def run(merchant: Merchant, name: str, sides: str, sql: str) -> Check:
    """A check out of a question that answers (first, second, rows that differ, rows)."""
    with database.cursor() as cursor:
        cursor.execute(sql, {"merchant": merchant.pk})
        row = cursor.fetchone()
    assert row is not None
    first, second, off, count = row
    return Check(name, sides, Decimal(first), Decimal(second), int(off), int(count))
