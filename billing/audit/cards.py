"""What cards paid, what went back, and charges that are open."""

from __future__ import annotations

from billing.audit.asking import Rule

COLLECTING = """
    SELECT c.id AS connection, c.collecting, c.debt, coalesce(p.open, 0) AS open
      FROM billing_connection c
      LEFT JOIN (SELECT p.connection_id, sum(p.amount) AS open FROM billing_payment p
                  WHERE p.purpose = 'overage'
                    AND (p.status IN ('pending', 'unknown', 'requires_action')
                         OR p.status = 'succeeded' AND p.flag <> '' AND NOT EXISTS (
                            SELECT 1 FROM billing_ledgerentry e
                             WHERE e.connection_id = p.connection_id AND e.payment_id = p.id))
                  GROUP BY p.connection_id) p ON p.connection_id = c.id
     WHERE c.collecting NOT BETWEEN 0 AND c.debt OR c.collecting > coalesce(p.open, 0)
        OR c.collecting < (SELECT coalesce(sum(amount), 0) FROM billing_payment o
                            WHERE o.connection_id = c.id AND o.purpose = 'overage'
                              AND o.status IN ('pending', 'unknown', 'requires_action'))
"""

SETTLED = """
    SELECT p.id AS payment, p.purpose, p.status, p.amount, p.flag, d.lines, d.charged, d.cycles,
           d.given, d.grants
      FROM billing_payment p, LATERAL (
        SELECT (SELECT count(*) FROM billing_ledgerentry e
                 WHERE e.connection_id = p.connection_id AND e.payment_id = p.id
                   AND e.kind = 'overage_charged') AS lines,
               (SELECT coalesce(sum(e.amount), 0) FROM billing_ledgerentry e
                 WHERE e.connection_id = p.connection_id AND e.payment_id = p.id
                   AND e.kind = 'overage_charged') AS charged,
               (SELECT count(*) FROM billing_cycle y WHERE y.payment_id = p.id) AS cycles,
               (SELECT coalesce(sum(g.amount), 0) FROM billing_creditgrant g
                 WHERE g.payment_id = p.id AND g.source = 'bundle') AS given,
               (SELECT count(*) FROM billing_creditgrant g WHERE g.payment_id = p.id) AS grants) d
     WHERE CASE
        WHEN p.status <> 'succeeded' OR p.flag <> '' THEN d.lines + d.cycles + d.grants > 0
        WHEN p.settled_at IS NULL OR p.intent_id = '' OR p.receipt_number = '' THEN true
        WHEN p.purpose = 'overage' THEN d.lines <> 1 OR d.charged <> p.amount OR d.grants > 0
        WHEN p.purpose IN ('subscription', 'renewal', 'upgrade') THEN d.cycles <> 1 OR d.lines > 0
        ELSE d.given <> p.credit_amount OR d.grants > 1 OR d.cycles + d.lines > 0 END
"""

REFUNDS = """
    SELECT p.id AS payment, p.amount, p.refunded, p.status, r.back, d.granted, r.taken, q.lost,
           l.lines
      FROM billing_payment p
      LEFT JOIN LATERAL (
        SELECT coalesce(sum(amount), 0) AS back,
               coalesce(sum(credits_taken + debt_made), 0) AS taken
          FROM billing_refund WHERE payment_id = p.id AND status <> 'failed') r ON true
      LEFT JOIN LATERAL (
        SELECT coalesce(sum(credits_taken + debt_made), 0) AS lost
          FROM billing_dispute WHERE payment_id = p.id AND status IN ('open', 'lost')) q ON true
      LEFT JOIN LATERAL (
        SELECT coalesce(sum(amount), 0) AS granted FROM billing_creditgrant
         WHERE payment_id = p.id AND source IN ('cycle', 'bundle')) d ON true
      LEFT JOIN LATERAL (
        SELECT coalesce(-sum(amount), 0) AS lines FROM billing_ledgerentry
         WHERE connection_id = p.connection_id AND payment_id = p.id
           AND kind IN ('clawback', 'adjust')) l ON true
     WHERE p.refunded <> r.back OR (p.refunded > 0 AND p.status <> 'succeeded')
        OR (p.purpose <> 'overage' AND r.taken + q.lost > d.granted)
        OR (p.purpose = 'overage' AND r.taken + q.lost > p.amount)
        OR (l.lines > r.taken + q.lost
            -- Debt that was paid before a refund failed comes back as a grant, not as a line.
            AND NOT EXISTS (SELECT 1 FROM billing_refund
                             WHERE payment_id = p.id AND status = 'failed')
            AND NOT EXISTS (SELECT 1 FROM billing_dispute
                             WHERE payment_id = p.id AND status = 'won'))
        OR l.lines < (SELECT coalesce(sum(credits_taken), 0) FROM billing_refund
                       WHERE payment_id = p.id AND status <> 'failed')
"""

ONE_INTENT = """
    SELECT merchant_id AS merchant, intent_id, count(*) AS payments FROM billing_payment
     WHERE intent_id <> '' GROUP BY merchant_id, intent_id HAVING count(*) > 1
"""

ONE_OPEN = """
    SELECT connection_id AS connection, purpose, count(*) AS open FROM billing_payment
     WHERE off_session AND status IN ('pending', 'unknown', 'requires_action')
     GROUP BY connection_id, purpose HAVING count(*) > 1
"""

RULES = (
    Rule("only_open_charges_collect", "Debt held for the card has its open charge.", COLLECTING),
    Rule(
        "payments_are_settled_once",
        "A paid payment gave exactly what it was for, or is flagged; any other gave nothing.",
        SETTLED,
    ),
    Rule(
        "refunds_take_back_once",
        "No more goes back than was paid, and no more credits are taken back than were granted.",
        REFUNDS,
    ),
    Rule("one_payment_an_intent", "An intent of the card network is one payment.", ONE_INTENT),
    Rule("one_open_charge_a_purpose", "At most one open charge a purpose.", ONE_OPEN),
)
