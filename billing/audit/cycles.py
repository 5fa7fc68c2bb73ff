"""Cycles, what they grant, and what an upgrade takes off."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from billing.audit.asking import Row, Rule, query

_CYCLES = """
    SELECT * FROM (
        SELECT *, index IS NULL OR index <> nth OR start <> before OR last <> cycle_index
               OR (index = cycle_index AND (
                    (start, "end", state) <> (cycle_start, cycle_end, 'granted')
                    OR anchor <> stands_on OR place <> cycle_index - anchor_index))
               OR (place = 0 AND start <> anchor)
               OR (place > 0
                   AND (place_before, anchor_before) IS DISTINCT FROM (place - 1, anchor))
               AS breaks,
               "end" AT TIME ZONE zone <> due AT TIME ZONE zone
               AND NOT ("end" < due AND place_after IS NOT DISTINCT FROM 0) AS misses FROM (
        SELECT s.id AS subscription, y.index, y.start, y."end", y.state, y.place, y.anchor,
               row_number() OVER w - 1 AS nth, lag(y."end") OVER w AS before,
               lag(y.place) OVER w AS place_before, lag(y.anchor) OVER w AS anchor_before,
               lead(y.place) OVER w AS place_after,
               s.cycle_index, s.cycle_start, s.cycle_end, s.anchor AS stands_on, s.anchor_index,
               max(y.index) OVER (PARTITION BY s.id) AS last,
               y.time_zone AS zone, p.billing_interval AS interval,
               ((y.anchor AT TIME ZONE y.time_zone)
                   + (y.place + 1) * ('1 ' || p.billing_interval)::interval)
                     AT TIME ZONE y.time_zone AS due
          FROM billing_subscription s
          LEFT JOIN billing_cycle y ON y.subscription_id = s.id
          LEFT JOIN billing_plan p ON p.id = y.plan_id
        WINDOW w AS (PARTITION BY s.id ORDER BY y.index)) y) y
     WHERE breaks OR misses
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


def cycles_off_their_anchor() -> Iterator[Row]:
    """Cycles that do not follow each other, or do not end at their anchor's wall time.

    The database knows the zones by its own tables, which may lag behind those the product reckons
    by: an end that only they find wrong is looked at again with the product's.
    """
    for row in query(_CYCLES):
        if row["breaks"] or row["end"] != _due(row):
            yield row


def _due(row: Row) -> datetime:
    """Where the cycle should end: the anchor's wall time, so many intervals on."""
    zone, nth = ZoneInfo(row["zone"]), row["place"] + 1
    wall: datetime = row["anchor"].astimezone(zone).replace(tzinfo=None)
    days = {"day": 1, "week": 7}.get(row["interval"])
    if days:
        return (wall + timedelta(days=days * nth)).replace(tzinfo=zone).astimezone(UTC)
    months = nth * {"month": 1, "year": 12}[row["interval"]]
    year, month = divmod(wall.year * 12 + wall.month - 1 + months, 12)
    day = min(wall.day, calendar.monthrange(year, month + 1)[1])
    return wall.replace(year=year, month=month + 1, day=day, tzinfo=zone).astimezone(UTC)


RULES = (
    Rule(
        "cycles_follow_the_anchor",
        "Cycles have no gap and no overlap, stand on the anchor, and are opened once.",
        cycles_off_their_anchor,
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
)
