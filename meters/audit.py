"""What must be true of usage and its prices, as questions that answer with no rows.

`RULES` stand beside those of `billing.audit` and are read by `manage.py audit` and by tests. Fees
are worked out anew from the stored price versions by code of this module alone: neither
`meters.pricing` nor the database's `meters_price` has a part in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

from billing import audit

LINES = """
    SELECT r.id AS request, r.connection_id AS connection, r.charged, e.total, e.lines,
           e.balance_after
      FROM meters_usagerequest r
      LEFT JOIN (SELECT connection_id, request_id, -sum(amount) AS total, count(*) AS lines,
                        (array_agg(balance_after ORDER BY seq DESC))[1] AS balance_after,
                        min(merchant_id::text) AS merchant
                   FROM billing_ledgerentry WHERE kind = 'usage'
                  GROUP BY connection_id, request_id) e
             ON e.request_id = r.id AND e.connection_id = r.connection_id
     WHERE r.charged <> coalesce(e.total, 0)
        OR jsonb_array_length(r.draws) <> coalesce(e.lines, 0)
        OR e.balance_after <> r.cycle_remaining + r.bundle_remaining - r.debt_after
        OR e.merchant <> r.merchant_id::text
"""

ORPHANS = """
    SELECT e.connection_id AS connection, e.seq, e.request_id AS request, e.amount
      FROM billing_ledgerentry e
      LEFT JOIN meters_usagerequest r
             ON r.id = e.request_id AND r.connection_id = e.connection_id
     WHERE e.kind = 'usage' AND r.id IS NULL
"""

DRAWS = """
    SELECT d.request, d.grant_id, d.amount AS said, -e.amount AS drawn
      FROM (SELECT r.id AS request, r.connection_id, (x.draw ->> 0)::uuid AS grant_id,
                   (x.draw ->> 1)::numeric AS amount
              FROM meters_usagerequest r, jsonb_array_elements(r.draws) AS x (draw)) d
      LEFT JOIN billing_ledgerentry e
             ON e.connection_id = d.connection_id AND e.request_id = d.request
            AND e.kind = 'usage' AND e.grant_id IS NOT DISTINCT FROM d.grant_id
     WHERE e.amount IS NULL OR -e.amount <> d.amount
"""

TWICE = """
    SELECT merchant_id AS merchant, request_id, count(*) AS times FROM meters_usagerequest
     GROUP BY merchant_id, request_id HAVING count(*) > 1
"""

POSITIONS = """
    WITH used AS (
        SELECT r.id, r.connection_id, r.meter_id, r.quantity, r.position_before,
               CASE p.tier_window WHEN 'cycle' THEN r.subscription_id ELSE r.connection_id END
                    AS scope,
               CASE p.tier_window WHEN 'cycle' THEN r.cycle_index ELSE -1 END AS place
          FROM meters_usagerequest r JOIN meters_meterprice p ON p.id = r.price_id)
    SELECT connection_id AS connection, meter_id AS meter, id::text AS request,
           position_before AS has, expected AS should
      FROM (SELECT *, coalesce(sum(quantity) OVER (
                    PARTITION BY connection_id, meter_id, scope, place
                    ORDER BY position_before, quantity, id
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS expected
              FROM used) u
     WHERE position_before <> expected
    UNION ALL
    SELECT coalesce(u.connection_id, p.connection_id), coalesce(u.meter_id, p.meter_id), NULL,
           p.quantity, u.total
      FROM (SELECT connection_id, meter_id, scope, place, sum(quantity) AS total FROM used
             GROUP BY connection_id, meter_id, scope, place) u
      FULL JOIN meters_meterposition p
             ON (p.connection_id, p.meter_id, p.scope, p."window")
              = (u.connection_id, u.meter_id, u.scope, u.place)
     WHERE p.quantity IS DISTINCT FROM u.total
"""

OVERAGE = """
    SELECT c.id AS connection, c.cycle_overage, coalesce(o.total, 0) AS made
      FROM billing_connection c
      JOIN billing_subscription s ON s.connection_id = c.id AND s.status IN ('active', 'past_due')
      LEFT JOIN LATERAL (
        SELECT -sum(e.amount) AS total
          FROM meters_usagerequest r
          JOIN billing_ledgerentry e ON e.connection_id = c.id AND e.request_id = r.id
               AND e.kind = 'usage' AND e.grant_id IS NULL
         WHERE r.connection_id = c.id AND r.subscription_id = s.id
           AND r.cycle_index = s.cycle_index) o ON true
     WHERE c.cycle_overage <> coalesce(o.total, 0)
"""

MERCHANTS = """
    SELECT r.id AS request, r.merchant_id AS merchant FROM meters_usagerequest r
      JOIN billing_connection c ON c.id = r.connection_id
      JOIN meters_meter m ON m.id = r.meter_id
      JOIN meters_meterprice p ON p.id = r.price_id
      LEFT JOIN billing_subscription s ON s.id = r.subscription_id
     WHERE c.merchant_id <> r.merchant_id OR m.merchant_id <> r.merchant_id
        OR p.meter_id <> r.meter_id OR p.merchant_id <> r.merchant_id
        OR s.connection_id IS DISTINCT FROM r.connection_id
    UNION ALL
    SELECT l.meter_id, l.merchant_id FROM meters_meterplan l
      JOIN meters_meter m ON m.id = l.meter_id JOIN billing_plan p ON p.id = l.plan_id
     WHERE m.merchant_id <> l.merchant_id OR p.merchant_id <> l.merchant_id
"""

CALLS = """
    SELECT g.id AS call, g.status, g.charged, r.charged AS request_charged, h.state AS hold
      FROM meters_gatewaycall g
      LEFT JOIN meters_usagerequest r ON r.id = g.id
      LEFT JOIN billing_hold h ON h.id = g.hold_id
     WHERE g.charged <> coalesce(r.charged, 0)
        OR (r.connection_id, r.meter_id) <> (g.connection_id, g.meter_id)
        OR (g.status = 'pending') <> (g.ended_at IS NULL)
        OR g.status <> 'pending' AND h.state = 'open'
        OR g.status = 'pending' AND g.seen_at < now() - interval '10 minutes'
"""

TOKENS = """
    SELECT t.id AS token, t.held, coalesce(g.held, 0) AS running
      FROM meters_forwardtoken t
      LEFT JOIN (SELECT token_id, sum(held) AS held FROM meters_gatewaycall
                  WHERE status = 'pending' GROUP BY token_id) g ON g.token_id = t.id
     WHERE t.held <> coalesce(g.held, 0)
"""

COSTS = """
    SELECT r.id AS request, r.provider_cost, c.amount FROM meters_usagerequest r
      JOIN meters_requestcost c ON c.id = r.id
     WHERE r.provider_cost IS DISTINCT FROM c.amount OR r.merchant_id <> c.merchant_id
"""

_PRICED = """
    SELECT r.id AS request, r.connection_id AS connection, r.input_tokens, r.output_tokens,
           r.input_characters, r.output_characters, r.input_seconds, r.output_seconds, r.quantity,
           r.position_before, r.fee, r.slices::text AS slices, r.provider_cost, r.charged,
           p.rate_type, p.unit, p.token_basis, p.base_cost_payer, p.tier_starts, p.tier_rates
      FROM meters_usagerequest r JOIN meters_meterprice p ON p.id = r.price_id
"""

_TEN_PLACES = 10**10


def fees_that_do_not_recompute() -> Iterator[audit.Row]:
    """Requests whose count, fee, slices or charge differ from what their price version says."""
    for row in audit.query(_PRICED):
        slices = [
            (int(tier), Decimal(part), Decimal(amount))
            for tier, part, amount in json.loads(row["slices"])
        ]
        counted = _count(row)
        expected = _slices(row, counted)
        fee = sum((amount for _, _, amount in expected), Decimal(0))
        borne = row["base_cost_payer"] == "wallet"
        charged = fee + (row["provider_cost"] or Decimal(0) if borne else Decimal(0))
        said = (row["quantity"], row["fee"], row["charged"], slices)
        if said != (counted, fee, charged, expected):
            yield {
                "request": row["request"],
                "connection": row["connection"],
                "fee": row["fee"],
                "recomputed": fee,
                "charged": row["charged"],
                "slices": slices,
                "slices_recomputed": expected,
            }


def _count(row: audit.Row) -> Decimal:
    """What the price version counts of the request: tokens, characters, seconds, or 1."""
    unit = row["unit"]
    if unit == "requests":
        return Decimal(1)
    if unit == "tokens_1m" and row["token_basis"] == "output":
        return Decimal(row["output_tokens"])
    kind = {"tokens_1m": "tokens", "characters_1m": "characters", "minutes": "seconds"}[unit]
    return Decimal(row[f"input_{kind}"]) + Decimal(row[f"output_{kind}"])


def _slices(row: audit.Row, counted: Decimal) -> list[tuple[int, Decimal, Decimal]]:
    """Walk the units from the position up, tier by tier, and price each stretch exactly."""
    percent = row["rate_type"] == "percentage"
    cost = Fraction(row["provider_cost"] or 0)
    a_minute = 60 if row["unit"] == "minutes" else 1
    starts = [Fraction(start) * a_minute for start in row["tier_starts"]]
    rates = [Fraction(rate) for rate in row["tier_rates"]]
    at = Fraction(row["position_before"])
    if counted == 0:
        if not percent or cost == 0:
            return []
        tier = max([0, *(i for i, start in enumerate(starts) if i and start < at)])
        return [(tier, Decimal(0), _money(cost * rates[tier] / 100))]
    a_unit = {"tokens_1m": 10**6, "characters_1m": 10**6, "minutes": 60, "requests": 1}
    end = at + Fraction(counted)
    running, upto, found = Fraction(0), Decimal(0), []
    for tier, rate in enumerate(rates):
        ceiling = starts[tier + 1] if tier + 1 < len(starts) else end
        part = min(ceiling, end) - at
        if part <= 0:
            continue
        share = part / Fraction(counted) * cost / 100 if percent else part / a_unit[row["unit"]]
        running += share * rate
        amount = _money(running) - upto
        upto += amount
        found.append((tier, _exact(part), amount))
        at += part
    return found


def _money(amount: Fraction) -> Decimal:
    """Half up at the tenth decimal; no amount here is below 0."""
    return _exact(Fraction((amount * _TEN_PLACES + Fraction(1, 2)).__floor__(), _TEN_PLACES))


def _exact(number: Fraction) -> Decimal:
    whole = number * _TEN_PLACES
    assert whole.denominator == 1
    return Decimal(whole.numerator).scaleb(-10)


RULES = (
    audit.Rule(
        "requests_have_their_lines",
        "A charged request has ledger lines of its sum, and answered with the balance after them.",
        LINES,
    ),
    audit.Rule("lines_have_their_request", "Every usage line has its request.", ORPHANS),
    audit.Rule("draws_are_the_lines", "A request's draws are its ledger lines.", DRAWS),
    audit.Rule("charged_once", "A request id is charged once.", TWICE),
    audit.Rule(
        "positions_add_up",
        "Requests stand one behind the other in the tiers, and the position is their sum.",
        POSITIONS,
    ),
    audit.Rule("overage_of_the_cycle", "The cycle's overage is what its requests owe.", OVERAGE),
    audit.Rule(
        "usage_of_one_merchant",
        "A request, its meter and its price have one merchant.",
        MERCHANTS,
    ),
    audit.Rule(
        "calls_are_settled_once",
        "A gateway call is charged as its request, ends its hold with itself, and does not hang.",
        CALLS,
    ),
    audit.Rule("tokens_hold_what_runs", "A token holds what its running calls hold.", TOKENS),
    audit.Rule("costs_are_the_requests", "A request's cost is the cost that was found.", COSTS),
    audit.Rule(
        "fees_recompute",
        "Every fee and slice follows from the stored price version.",
        fees_that_do_not_recompute,
    ),
)
