"""Balances, grants and what is owed: sums taken anew from the ledger's lines."""

from __future__ import annotations

from billing.audit.asking import Rule

BALANCE = """
    SELECT c.id AS connection, c.balance, c.debt, c.entry_count,
           coalesce(e.total, 0) AS entries, coalesce(e.owed, 0) AS debt_entries, e.lines, g.left
      FROM billing_connection c
      LEFT JOIN (SELECT connection_id, sum(amount) AS total, count(*) AS lines,
                        -sum(amount) FILTER (WHERE grant_id IS NULL) AS owed
                   FROM billing_ledgerentry GROUP BY connection_id) e ON e.connection_id = c.id
      LEFT JOIN (SELECT connection_id, sum(remaining) AS left
                   FROM billing_creditgrant GROUP BY connection_id) g ON g.connection_id = c.id
     WHERE c.balance <> coalesce(e.total, 0) OR c.debt <> coalesce(e.owed, 0)
        OR c.entry_count <> coalesce(e.lines, 0) OR c.debt < 0
        OR c.balance <> coalesce(g.left, 0) - c.debt
"""

RUNNING = """
    SELECT * FROM (
        SELECT connection_id AS connection, seq, balance_after,
               row_number() OVER w AS place, sum(amount) OVER w AS running
          FROM billing_ledgerentry WINDOW w AS (PARTITION BY connection_id ORDER BY seq)) e
     WHERE seq <> place OR balance_after <> running
"""

GRANTS = """
    SELECT g.id AS grant, g.connection_id AS connection, g.amount, g.remaining, e.total, e.given
      FROM billing_creditgrant g
      LEFT JOIN (SELECT grant_id, sum(amount) AS total,
                        sum(amount) FILTER (WHERE kind IN ('grant', 'roll') AND amount > 0) AS given
                   FROM billing_ledgerentry WHERE grant_id IS NOT NULL GROUP BY grant_id) e
             ON e.grant_id = g.id
     WHERE g.remaining <> coalesce(e.total, 0) OR g.remaining < 0 OR g.remaining > g.amount
        OR g.amount <> coalesce(e.given, 0)
"""

LIFE = """
    SELECT e.connection_id AS connection, e.seq, e.kind, e.occurred_at, g.effective_at, g.expires_at
      FROM billing_ledgerentry e JOIN billing_creditgrant g ON g.id = e.grant_id
     WHERE e.kind IN ('usage', 'debt')
       AND (NOT billing_has_begun(g.effective_at, e.occurred_at)
            OR e.occurred_at >= g.expires_at)
"""

HOLDS = """
    SELECT c.id AS connection, c.held, coalesce(h.open, 0) AS open
      FROM billing_connection c
      LEFT JOIN (SELECT connection_id, sum(amount) AS open FROM billing_hold
                  WHERE state = 'open' GROUP BY connection_id) h ON h.connection_id = c.id
     WHERE c.held <> coalesce(h.open, 0)
"""

CONSERVES = """
    SELECT c.id AS connection, e.made, e.charged, e.paid, c.debt
      FROM billing_connection c JOIN (
        SELECT connection_id,
               -sum(amount) FILTER (
                    WHERE grant_id IS NULL AND kind NOT IN ('overage_charged', 'debt')) AS made,
               sum(amount) FILTER (WHERE kind = 'overage_charged') AS charged,
               sum(amount) FILTER (WHERE kind = 'debt' AND grant_id IS NULL) AS paid,
               sum(amount) FILTER (WHERE kind = 'debt') AS both
          FROM billing_ledgerentry GROUP BY connection_id) e ON e.connection_id = c.id
     WHERE coalesce(e.made, 0) <> coalesce(e.charged, 0) + coalesce(e.paid, 0) + c.debt
        OR coalesce(e.both, 0) <> 0
"""

ROLLS = """
    SELECT connection_id AS connection, occurred_at, sum(amount) AS lost
      FROM billing_ledgerentry WHERE kind = 'roll'
     GROUP BY connection_id, occurred_at HAVING sum(amount) <> 0
"""

MARKS = """
    SELECT id AS connection, balance, depleted_at, low_mark, low_at FROM billing_connection
     WHERE entry_count > 0 AND (
           (depleted_at IS NOT NULL) <> (balance <= 0)
        OR low_at IS NOT NULL AND NOT coalesce(balance < low_mark, false)
        OR depleted_told AND depleted_at IS NULL OR low_told AND low_at IS NULL)
"""

RULES = (
    Rule(
        "balance_is_the_sum",
        "A balance is the sum of its entries and of its grants less its debt; debt likewise.",
        BALANCE,
    ),
    Rule(
        "running_balances",
        "Ledger lines are numbered 1, 2, 3, ... and each balance is the sum up to its line.",
        RUNNING,
    ),
    Rule("grants_keep_their_sum", "A grant keeps what its entries say, from 0 to all.", GRANTS),
    Rule("draws_within_life", "A grant pays only what happens within its life.", LIFE),
    Rule("held_is_open_holds", "What is held is the sum of the open holds.", HOLDS),
    Rule(
        "debt_is_conserved",
        "What was owed = what the card paid + what credits paid + what is still owed.",
        CONSERVES,
    ),
    Rule(
        "what_rolls_over_arrives",
        "What leaves a grant to roll over arrives in another, whole.",
        ROLLS,
    ),
    Rule(
        "falls_are_marked",
        "A balance at 0 or below, or below its mark, is marked so; no other is.",
        MARKS,
    ),
)
