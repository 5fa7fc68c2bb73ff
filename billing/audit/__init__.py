"""What must be true of the books after anything at all, as questions that answer with no rows.

`RULES` are read by `manage.py audit` and by tests; `meters.audit` adds its own. Nothing here
writes, locks, or calls the code it checks: sums are taken anew from the ledger's lines, and the
order of the draw is replayed. See money.md, What must be true.
"""

from __future__ import annotations

from billing.audit import cards, credits, cycles, draws, walls
from billing.audit.asking import Row, Rule

RULES = (*credits.RULES, *draws.RULES, *cycles.RULES, *cards.RULES, *walls.RULES)

__all__ = ["RULES", "Row", "Rule"]
