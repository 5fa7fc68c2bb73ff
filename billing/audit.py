"""What must be true of the books after anything at all, as questions that answer with no rows.

`RULES` are read by `manage.py audit` and by tests; `meters.audit` adds its own. Nothing here
writes, locks, or calls the code it checks: sums are taken anew from the ledger's lines, and the
order of the draw is replayed. See money.md, What must be true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any, LiteralString, cast

from django.db import connection as database

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must be true; `find` is SQL, or a function, that gives what breaks it."""

    name: str
    sentence: str
    find: LiteralString | Callable[[], Iterator[Row]]

    def rows(self, limit: int = 100) -> list[Row]:
        """What breaks the rule, at most `limit` rows; empty when it holds."""
        found = query(self.find) if isinstance(self.find, str) else self.find()
        return [row for row, _ in zip(found, range(limit), strict=False)]


def query(sql: str) -> Iterator[Row]:
    """The rows of a question, one at a time, each with its columns' names."""
    with database.chunked_cursor() as cursor:
        cursor.execute(sql)
        names: list[str] | None = None
        while rows := cursor.fetchmany(2000):
            names = names or [column[0] for column in cast(Any, cursor.description)]
            for row in rows:
                yield dict(zip(names, row, strict=True))


# Real time of making, out of a ULID: a sandbox's own clock does not move it.
_BORN = "to_timestamp(('x' || left(replace(p.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)"

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
       AND (e.occurred_at < g.effective_at OR e.occurred_at >= g.expires_at)
"""

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

CYCLES = """
    SELECT * FROM (
        SELECT s.id AS subscription, y.index, y.start, y."end", y.state, y.place, y.anchor,
               row_number() OVER w - 1 AS nth, lag(y."end") OVER w AS before,
               lag(y.place) OVER w AS place_before, lag(y.anchor) OVER w AS anchor_before,
               lead(y.place) OVER w AS place_after,
               s.cycle_index, s.cycle_start, s.cycle_end, s.anchor AS stands_on, s.anchor_index,
               max(y.index) OVER (PARTITION BY s.id) AS last,
               y.time_zone AS zone, ((y.anchor AT TIME ZONE y.time_zone)
                   + (y.place + 1) * ('1 ' || p.billing_interval)::interval)
                     AT TIME ZONE y.time_zone AS due
          FROM billing_subscription s
          LEFT JOIN billing_cycle y ON y.subscription_id = s.id
          LEFT JOIN billing_plan p ON p.id = y.plan_id
        WINDOW w AS (PARTITION BY s.id ORDER BY y.index)) y
     WHERE index IS NULL OR index <> nth OR start <> before OR last <> cycle_index
        OR (index = cycle_index AND (
            (start, "end", state) <> (cycle_start, cycle_end, 'granted')
            OR anchor <> stands_on OR place <> cycle_index - anchor_index))
        OR (place = 0 AND start <> anchor)
        OR (place > 0 AND (place_before, anchor_before) IS DISTINCT FROM (place - 1, anchor))
        OR ("end" AT TIME ZONE zone <> due AT TIME ZONE zone
            AND NOT ("end" < due AND place_after IS NOT DISTINCT FROM 0))
"""

CYCLE_GRANTS = """
    SELECT y.id AS cycle, y.subscription_id AS subscription, y.index, y.state, p.price,
           y.unused_value, y.owed, m.amount, m.status AS payment_status, count(g.id) AS grants
      FROM billing_cycle y
      JOIN billing_subscription s ON s.id = y.subscription_id
      JOIN billing_plan p ON p.id = y.plan_id
      LEFT JOIN billing_payment m ON m.id = y.payment_id
      LEFT JOIN billing_creditgrant g ON g.cycle_id = y.id AND g.source = 'cycle'
     GROUP BY y.id, s.id, p.id, m.id
    HAVING count(g.id) > 1
        OR y.state = 'skipped' AND (count(g.id) > 0 OR m.id IS NOT NULL)
        OR y.state = 'granted' AND p.price <> coalesce(m.amount, 0) + y.unused_value + y.owed
        OR m.id IS NOT NULL AND (
            m.status <> 'succeeded' OR m.settled_at IS NULL OR m.settled_at > min(g.effective_at)
            OR m.purpose NOT IN ('subscription', 'renewal', 'upgrade')
            OR m.unused_value <> y.unused_value OR m.connection_id <> s.connection_id)
"""

UPGRADES = """
    SELECT y.id AS cycle, y.subscription_id AS subscription, y.unused_credit, y.unused_value,
           y.owed, before.paid, before.granted, lines.given, lines.owed AS entered
      FROM (SELECT y.*, sum(unused_credit) OVER at_once AS all_unused,
                   sum(owed) OVER at_once AS all_owed
              FROM billing_cycle y
            WINDOW at_once AS (PARTITION BY subscription_id, created_at)) y
      JOIN billing_subscription s ON s.id = y.subscription_id
      LEFT JOIN LATERAL (
        SELECT coalesce(m.amount, 0) + b.unused_value + b.owed AS paid, g.amount AS granted
          FROM billing_cycle b
          LEFT JOIN billing_payment m ON m.id = b.payment_id
          LEFT JOIN billing_creditgrant g ON g.cycle_id = b.id AND g.source = 'cycle'
         WHERE b.subscription_id = y.subscription_id AND b.index < y.index AND b.state = 'granted'
         ORDER BY b.index DESC LIMIT 1) before ON true
      LEFT JOIN LATERAL (
        SELECT -sum(e.amount) FILTER (WHERE e.reason LIKE 'Given in payment for %'
                    OR e.reason LIKE 'Spent after its value was taken %') AS given,
               -sum(e.amount) FILTER (WHERE e.reason LIKE 'Rest of the price of %') AS owed
          FROM billing_ledgerentry e
         WHERE e.connection_id = s.connection_id AND e.occurred_at = y.created_at
           AND e.kind IN ('expire', 'adjust') AND e.reason <> '') lines ON true
     WHERE (y.unused_credit > 0 OR y.unused_value > 0 OR y.owed > 0) AND (
           y.unused_credit > coalesce(before.granted, 0)
        OR y.unused_value * before.granted > before.paid * (y.unused_credit + 0.0000000001)
        OR y.all_unused <> coalesce(lines.given, 0) OR y.all_owed <> coalesce(lines.owed, 0))
"""

MARKS = """
    SELECT id AS connection, balance, depleted_at, low_mark, low_at FROM billing_connection
     WHERE entry_count > 0 AND (
           (depleted_at IS NOT NULL) <> (balance <= 0)
        OR low_at IS NOT NULL AND NOT coalesce(balance < low_mark, false)
        OR depleted_told AND depleted_at IS NULL OR low_told AND low_at IS NULL)
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

ONE_INTENT = """
    SELECT merchant_id AS merchant, intent_id, count(*) AS payments FROM billing_payment
     WHERE intent_id <> '' GROUP BY merchant_id, intent_id HAVING count(*) > 1
"""

ONE_OPEN = """
    SELECT connection_id AS connection, purpose, count(*) AS open FROM billing_payment
     WHERE off_session AND status IN ('pending', 'unknown', 'requires_action')
     GROUP BY connection_id, purpose HAVING count(*) > 1
"""

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
    SELECT 'fall to be told', c.id::text, coalesce(c.depleted_at, c.low_at)
      FROM billing_connection c JOIN billing_merchant m ON m.id = c.merchant_id
     WHERE (c.depleted_at IS NOT NULL AND NOT c.depleted_told
            OR c.low_at IS NOT NULL AND NOT c.low_told)
       AND coalesce(c.depleted_at, c.low_at) < now() + m.clock_offset - interval '1 day'
"""  # noqa: S608

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

_DRAWS = """
    SELECT e.connection_id AS connection, e.seq, e.kind, e.amount, e.grant_id, e.occurred_at,
           g.effective_at, g.expires_at, g.priority, g.pool, g.origin_at
      FROM billing_ledgerentry e LEFT JOIN billing_creditgrant g ON g.id = e.grant_id
     ORDER BY e.connection_id, e.seq
"""


def draws_out_of_order() -> Iterator[Row]:
    """Replay each ledger: fees and debts are paid by the first live grant of the order, and become
    debt only when no live grant has anything left."""
    for _, lines in groupby(query(_DRAWS), key=lambda line: line["connection"]):
        left: dict[Any, tuple[Row, Decimal]] = {}
        for line in lines:
            own = line["grant_id"]
            if line["kind"] in ("usage", "debt") and line["amount"] < 0:
                for grant, (lot, remaining) in left.items():
                    passed_over = remaining > 0 and grant != own and _is_live(lot, line)
                    if passed_over and (own is None or _order(lot) < _order(line)):
                        yield line | {"passed_over": grant, "left": remaining}
                        break
            if own is not None:
                _, before = left.get(own, (line, Decimal(0)))
                left[own] = (line, before + line["amount"])


def _is_live(lot: Row, line: Row) -> bool:
    ends = lot["expires_at"]
    moment = line["occurred_at"]
    return bool(lot["effective_at"] <= moment and (ends is None or ends > moment))


def _order(lot: Row) -> tuple[Any, ...]:
    """Priority, soonest end (never-ending last), cycle before bundle, oldest."""
    ends = lot["expires_at"]
    return (
        lot["priority"],
        ends is None,
        ends.timestamp() if ends is not None else 0,
        lot["pool"],
        lot["origin_at"],
        lot["grant_id"],
    )


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
    Rule(
        "draws_in_order",
        "Fees are drawn in the order of the draw, and become debt only when all is spent.",
        draws_out_of_order,
    ),
    Rule("only_open_charges_collect", "Debt held for the card has its open charge.", COLLECTING),
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
        "cycles_follow_the_anchor",
        "Cycles have no gap and no overlap, stand on the anchor, and are opened once.",
        CYCLES,
    ),
    Rule(
        "no_cycle_credit_before_its_payment",
        "A paid cycle is granted once, after its payment; a skipped one never.",
        CYCLE_GRANTS,
    ),
    Rule(
        "upgrades_gain_nothing",
        "The value taken off an upgrade is that of credits given in payment, to the cent.",
        UPGRADES,
    ),
    Rule(
        "falls_are_marked",
        "A balance at 0 or below, or below its mark, is marked so; no other is.",
        MARKS,
    ),
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
    Rule("nothing_is_stuck", "Nothing waits past its time.", STUCK),
    Rule("one_currency", "A connection has one currency.", CURRENCIES),
    Rule("one_merchant", "What points at each other belongs to one merchant.", MERCHANTS),
)
