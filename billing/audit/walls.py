"""One merchant, one currency, and nothing that waits past its time."""

from __future__ import annotations

from billing.audit.asking import Rule

# Real time of making, out of a ULID: a sandbox's own clock does not move it.
_BORN = "to_timestamp(('x' || left(replace(p.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)"

STUCK = f"""
    SELECT 'payment' AS what, p.id::text AS id, {_BORN} AS since
      FROM billing_payment p
      JOIN billing_connection c ON c.id = p.connection_id
     WHERE p.off_session AND p.status IN ('pending', 'unknown')
       AND {_BORN} < now() - interval '25 hours' AND c.status <> 'disabled'
    UNION ALL
    SELECT 'payment that waits for its customer', p.id::text, p.action_until
      FROM billing_payment p JOIN billing_merchant m ON m.id = p.merchant_id
     WHERE p.off_session AND p.status = 'requires_action'
       AND coalesce(p.action_until, p.created_at) < now() + m.clock_offset - interval '1 day'
    UNION ALL
    SELECT 'refund', p.id::text, {_BORN} FROM billing_refund p
     WHERE p.status IN ('pending', 'unknown') AND {_BORN} < now() - interval '25 hours'
    UNION ALL
    SELECT 'card network event', id, received_at FROM billing_stripeevent
     WHERE handled_at IS NULL AND received_at < now() - interval '1 day'
    UNION ALL
    SELECT 'message', o.id::text, o.created_at
      FROM billing_outboxmessage o JOIN billing_merchant m ON m.id = o.merchant_id
     WHERE o.sent_at IS NULL AND m.mode = 'live' AND o.created_at < now() - interval '1 day'
    UNION ALL
    SELECT 'event', p.id::text, {_BORN} FROM billing_event p
     WHERE NOT p.is_told AND {_BORN} < now() - interval '1 hour'
    UNION ALL
    SELECT 'delivery', d.id::text, d.next_attempt_at
      FROM billing_delivery d JOIN billing_webhookendpoint w ON w.id = d.endpoint_id
     WHERE d.state = 'pending' AND d.next_attempt_at < now() - interval '1 hour'
       AND w.paused_at IS NULL AND w.deleted_at IS NULL
    UNION ALL
    SELECT 'hold', h.id::text, h.expires_at
      FROM billing_hold h JOIN billing_merchant m ON m.id = h.merchant_id
     WHERE h.state = 'open' AND h.expires_at < now() + m.clock_offset - interval '1 hour'
    UNION ALL
    SELECT 'renewal', s.id::text, coalesce(s.next_attempt_at, s.cycle_end)
      FROM billing_subscription s JOIN billing_merchant m ON m.id = s.merchant_id
      JOIN billing_connection c ON c.id = s.connection_id
     WHERE s.status IN ('active', 'past_due') AND c.status = 'active'
       AND coalesce(s.next_attempt_at, s.cycle_end) < now() + m.clock_offset - interval '1 day'
       AND NOT EXISTS (SELECT 1 FROM billing_payment p
                        WHERE p.subscription_id = s.id AND p.purpose IN ('renewal', 'upgrade')
                          AND p.status IN ('pending', 'unknown', 'requires_action'))
    UNION ALL
    SELECT 'move of subscribers', v.id::text, v.created_at
      FROM billing_planmove v JOIN billing_merchant m ON m.id = v.merchant_id
     WHERE v.state = 'running' AND v.created_at < now() + m.clock_offset - interval '1 day'
    UNION ALL
    SELECT 'import of customers', i.id::text, i.created_at
      FROM billing_customerimport i JOIN billing_merchant m ON m.id = i.merchant_id
     WHERE i.state = 'running' AND i.created_at < now() + m.clock_offset - interval '1 day'
    UNION ALL
    SELECT 'fall to be told', c.id::text, coalesce(c.depleted_at, c.low_at)
      FROM billing_connection c JOIN billing_merchant m ON m.id = c.merchant_id
     WHERE (c.depleted_at IS NOT NULL AND NOT c.depleted_told
            OR c.low_at IS NOT NULL AND NOT c.low_told)
       AND coalesce(c.depleted_at, c.low_at) < now() + m.clock_offset - interval '1 day'
"""  # noqa: S608

CURRENCIES = """
    SELECT c.id AS connection, c.currency, o.what, o.id, o.currency AS other
      FROM billing_connection c JOIN (
        SELECT connection_id, 'payment' AS what, id, amount_currency AS currency
          FROM billing_payment
        UNION ALL
        SELECT connection_id, 'refund', id, amount_currency FROM billing_refund
        UNION ALL
        SELECT connection_id, 'dispute', id, amount_currency FROM billing_dispute
        UNION ALL
        SELECT s.connection_id, 'plan', p.id, p.price_currency
          FROM billing_subscription s JOIN billing_plan p ON p.id IN (s.plan_id, s.pending_plan_id)
        UNION ALL
        SELECT g.connection_id, 'bundle', b.id, b.cost_currency
          FROM billing_creditgrant g JOIN billing_creditbundle b ON b.id = g.bundle_id
        ) o ON o.connection_id = c.id AND o.currency <> c.currency
"""

MERCHANTS = """
    SELECT 'connection' AS what, r.id::text AS id FROM billing_connection r
      JOIN billing_customer o ON o.id = r.customer_id WHERE o.merchant_id <> r.merchant_id
    UNION ALL
    SELECT 'subscription', r.id::text FROM billing_subscription r
      JOIN billing_connection c ON c.id = r.connection_id JOIN billing_plan p ON p.id = r.plan_id
      LEFT JOIN billing_plan n ON n.id = r.pending_plan_id
     WHERE (c.merchant_id, p.merchant_id) IS DISTINCT FROM (r.merchant_id, r.merchant_id)
        OR n.merchant_id <> r.merchant_id
    UNION ALL
    SELECT 'cycle', r.id::text FROM billing_cycle r
      JOIN billing_subscription s ON s.id = r.subscription_id
      JOIN billing_plan n ON n.id = r.plan_id
      LEFT JOIN billing_payment p ON p.id = r.payment_id
     WHERE s.merchant_id <> r.merchant_id OR p.merchant_id <> r.merchant_id
        OR p.connection_id <> s.connection_id OR n.merchant_id <> r.merchant_id
    UNION ALL
    SELECT 'payment', r.id::text FROM billing_payment r
      JOIN billing_connection c ON c.id = r.connection_id
      LEFT JOIN billing_subscription s ON s.id = r.subscription_id
      LEFT JOIN billing_creditbundle b ON b.id = r.bundle_id
      LEFT JOIN billing_plan p ON p.id = r.plan_id
      LEFT JOIN billing_paymentmethod m ON m.id = r.card_id
     WHERE c.merchant_id <> r.merchant_id OR s.connection_id <> r.connection_id
        OR b.merchant_id <> r.merchant_id OR p.merchant_id <> r.merchant_id
        OR m.connection_id <> r.connection_id
    UNION ALL
    SELECT 'card', r.id::text FROM billing_paymentmethod r
      JOIN billing_connection c ON c.id = r.connection_id WHERE c.merchant_id <> r.merchant_id
    UNION ALL
    SELECT 'refund', r.id::text FROM billing_refund r
      JOIN billing_payment p ON p.id = r.payment_id
     WHERE (p.merchant_id, p.connection_id) <> (r.merchant_id, r.connection_id)
    UNION ALL
    SELECT 'approval', r.id::text FROM billing_approval r
      JOIN billing_connection c ON c.id = r.connection_id
      LEFT JOIN billing_payment p ON p.id = r.payment_id
      LEFT JOIN billing_refund b ON b.id = r.refund_id
     WHERE c.merchant_id <> r.merchant_id OR p.connection_id <> r.connection_id
        OR b.payment_id <> r.payment_id
    UNION ALL
    SELECT 'dispute', r.id::text FROM billing_dispute r
      JOIN billing_payment p ON p.id = r.payment_id
     WHERE (p.merchant_id, p.connection_id) <> (r.merchant_id, r.connection_id)
    UNION ALL
    SELECT 'bundle', r.id::text FROM billing_creditbundle r
      JOIN billing_plan p ON p.id = r.plan_id WHERE p.merchant_id <> r.merchant_id
    UNION ALL
    SELECT 'grant', r.id::text FROM billing_creditgrant r
      JOIN billing_connection c ON c.id = r.connection_id
      LEFT JOIN billing_payment p ON p.id = r.payment_id
      LEFT JOIN billing_cycle y ON y.id = r.cycle_id
      LEFT JOIN billing_creditbundle b ON b.id = r.bundle_id
     WHERE c.merchant_id <> r.merchant_id OR p.connection_id <> r.connection_id
        OR y.merchant_id <> r.merchant_id OR b.merchant_id <> r.merchant_id
    UNION ALL
    SELECT 'hold', r.id::text FROM billing_hold r
      JOIN billing_connection c ON c.id = r.connection_id WHERE c.merchant_id <> r.merchant_id
    UNION ALL
    SELECT 'ledger line', r.id::text FROM billing_ledgerentry r
      JOIN billing_connection c ON c.id = r.connection_id
      LEFT JOIN billing_creditgrant g ON g.id = r.grant_id
      LEFT JOIN billing_payment p ON p.id = r.payment_id
     WHERE c.merchant_id <> r.merchant_id OR g.connection_id <> r.connection_id
        OR p.connection_id <> r.connection_id
"""

RULES = (
    Rule("nothing_is_stuck", "Nothing waits past its time.", STUCK),
    Rule("one_currency", "A connection has one currency.", CURRENCIES),
    Rule("one_merchant", "What points at each other belongs to one merchant.", MERCHANTS),
)
