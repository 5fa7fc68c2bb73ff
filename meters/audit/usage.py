"""Requests and their lines, positions, voids, rollups, gateway calls: each sum taken anew."""

from __future__ import annotations

from billing.audit.asking import Rule

LINES = """
    SELECT r.id AS request, r.connection_id AS connection, r.charged, e.total, e.lines,
           e.balance_after
      FROM meters_usagerequest r
      LEFT JOIN (SELECT connection_id, request_id, -sum(amount) AS total, count(*) AS lines,
                        -- Each draws from what the one before left: the last one's is the least.
                        min(balance_after) AS balance_after, bool_or(amount > 0) AS rises,
                        min(merchant_id::text) AS merchant
                   FROM billing_ledgerentry WHERE kind = 'usage'
                  GROUP BY connection_id, request_id) e
             ON e.request_id = r.id AND e.connection_id = r.connection_id
     WHERE r.charged <> coalesce(e.total, 0)
        OR jsonb_array_length(r.draws) <> coalesce(e.lines, 0)
        OR e.balance_after <> r.cycle_remaining + r.bundle_remaining - r.debt_after OR e.rises
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

KEYS = """
    SELECT COALESCE(r.merchant_id, k.merchant_id) AS merchant,
           COALESCE(r.request_id, k.request_id) AS request_id, r.id AS request, k."row" AS key_of
      FROM meters_usagerequest r
      FULL JOIN meters_requestkey k
             ON k.merchant_id = r.merchant_id AND k.request_id = r.request_id AND k."row" = r.id
     WHERE r.id IS NULL OR k."row" IS NULL
"""

ROLLUPS = """
    WITH summed AS (
        SELECT merchant_id, connection_id, meter_id, bucket, requests, tokens, characters, seconds,
               provider_cost, fee, charged, costed FROM meters_connectionusage
        UNION ALL
        SELECT merchant_id, connection_id, meter_id, bucket, requests, tokens, characters, seconds,
               provider_cost, fee, charged, costed FROM meters_usagedelta
        UNION ALL
        SELECT merchant_id, connection_id, meter_id,
               to_timestamp(floor(extract(epoch FROM "timestamp") / 900) * 900), -1,
               -(input_tokens + output_tokens), -(input_characters + output_characters),
               -(input_seconds + output_seconds), -coalesce(provider_cost, 0), -fee, -charged,
               CASE WHEN provider_cost IS NULL THEN 0 ELSE -charged END
          FROM meters_usagerequest WHERE status = 'completed'
    ), whole AS (
        SELECT merchant_id, meter_id, bucket, requests, tokens, fee, charged, costed
          FROM meters_merchantusage
        UNION ALL
        SELECT merchant_id, meter_id, bucket, -requests, -tokens, -fee, -charged, -costed
          FROM meters_connectionusage
    )
    SELECT connection_id::text AS scope, meter_id AS meter, bucket, sum(requests) AS requests,
           sum(fee) AS fee, sum(charged) AS charged
      FROM summed GROUP BY 1, 2, 3
    HAVING sum(requests) <> 0 OR sum(tokens) <> 0 OR sum(characters) <> 0 OR sum(seconds) <> 0
        OR sum(provider_cost) <> 0 OR sum(fee) <> 0 OR sum(charged) <> 0 OR sum(costed) <> 0
    UNION ALL
    SELECT merchant_id::text, meter_id, bucket, sum(requests), sum(fee), sum(charged)
      FROM whole GROUP BY 1, 2, 3
    HAVING sum(requests) <> 0 OR sum(tokens) <> 0 OR sum(fee) <> 0 OR sum(charged) <> 0
        OR sum(costed) <> 0
"""

# The sums by local day are those by quarter of an hour, eight days those of the eight.
DAYS = """
    SELECT connection_id AS connection, span, day, sum(charged) AS charged, sum(costed) AS costed,
           sum(provider_cost) AS cost
      FROM (SELECT connection_id, span, day, charged, costed, provider_cost FROM meters_dayusage
            UNION ALL
            SELECT u.connection_id, 1, (u.bucket AT TIME ZONE m.time_zone)::date, -u.charged,
                   -u.costed, -u.provider_cost
              FROM meters_connectionusage u JOIN billing_merchant m ON m.id = u.merchant_id
            UNION ALL
            SELECT connection_id, 8, day - (day - DATE '1970-01-01') % 8, -charged, -costed,
                   -provider_cost FROM meters_dayusage WHERE span = 1) d
     GROUP BY 1, 2, 3
    HAVING sum(charged) <> 0 OR sum(costed) <> 0 OR sum(provider_cost) <> 0
"""

MODELS = """
    SELECT merchant_id AS merchant, bucket, model, sum(requests) AS requests,
           sum(charged) AS charged, sum(costed) AS costed, sum(provider_cost) AS cost
      FROM (SELECT merchant_id, bucket, model, requests, charged, costed, provider_cost
              FROM meters_modelusage
            UNION ALL
            SELECT merchant_id, bucket, model, requests, charged, costed, provider_cost
              FROM meters_usagedelta
            UNION ALL
            SELECT merchant_id, to_timestamp(floor(extract(epoch FROM "timestamp") / 900) * 900),
                   model, -1, -charged,
                   CASE WHEN provider_cost IS NULL THEN 0 ELSE -charged END,
                   -coalesce(provider_cost, 0)
              FROM meters_usagerequest WHERE status = 'completed') u
     GROUP BY 1, 2, 3
    HAVING sum(requests) <> 0 OR sum(charged) <> 0 OR sum(costed) <> 0
        OR sum(provider_cost) <> 0
"""

# Each request is a step up from where the meter's count stood, each void a step down, and all of
# them one walk from 0 to where it stands: at each place as many steps arrive as leave.
POSITIONS = """
    WITH charged AS (
        SELECT r.id, r.connection_id, r.meter_id, r.quantity, r.position_before,
               CASE p.tier_window WHEN 'cycle' THEN r.subscription_id ELSE r.connection_id END
                    AS scope,
               CASE p.tier_window WHEN 'cycle' THEN r.cycle_index ELSE -1 END AS place
          FROM meters_usagerequest r JOIN meters_meterprice p ON p.id = r.price_id),
    steps AS (
        SELECT connection_id, meter_id, scope, place, position_before AS "from",
               position_before + quantity AS "to", id FROM charged
        UNION ALL
        SELECT c.connection_id, c.meter_id, c.scope, c.place, v.position_before,
               v.position_before - c.quantity, c.id
          FROM meters_void v JOIN charged c ON c.id = v.request_id),
    places AS (
        SELECT connection_id, meter_id, scope, place, "from" AS at, id,
               CASE WHEN "from" <> "to" THEN 1 ELSE 0 END AS leaves FROM steps
        UNION ALL
        SELECT connection_id, meter_id, scope, place, "to", id, -1 FROM steps WHERE "from" <> "to"
        UNION ALL
        SELECT DISTINCT connection_id, meter_id, scope, place, 0::numeric, NULL::uuid, -1
          FROM charged
        UNION ALL
        SELECT connection_id, meter_id, scope, "window", quantity, NULL, 1
          FROM meters_meterposition)
    SELECT connection_id AS connection, meter_id AS meter, place, at,
           sum(leaves) AS steps_too_many, min(id::text) AS request
      FROM places GROUP BY connection_id, meter_id, scope, place, at
    HAVING sum(leaves) <> 0 OR bool_and(leaves = 0)
"""

# Where the count was furthest is the highest step; a request remembers it only when it stood back.
PEAKS = """
    SELECT p.connection_id AS connection, p.meter_id AS meter, p.peak, max(r.reached) AS reached
      FROM meters_meterposition p LEFT JOIN (
        SELECT u.connection_id, u.meter_id, u.position_before + u.quantity AS reached,
               CASE m.tier_window WHEN 'cycle' THEN u.subscription_id ELSE u.connection_id END
                    AS scope,
               CASE m.tier_window WHEN 'cycle' THEN u.cycle_index ELSE -1 END AS place,
               u.peak_before, u.position_before
          FROM meters_usagerequest u JOIN meters_meterprice m ON m.id = u.price_id) r
             ON (r.connection_id, r.meter_id, r.scope, r.place)
              = (p.connection_id, p.meter_id, p.scope, p."window")
     GROUP BY p.connection_id, p.meter_id, p.scope, p."window"
    HAVING p.peak IS DISTINCT FROM max(r.reached) OR p.peak < p.quantity
        OR bool_or(r.peak_before <= r.position_before OR r.peak_before > p.peak)
"""

# A request taken back gave each draw back once: to its grant, or out of the debt and as a grant.
VOIDS = """
    SELECT r.id AS request, r.status, v.id AS void, NULL::numeric AS drawn, NULL::numeric AS given
      FROM meters_usagerequest r LEFT JOIN meters_void v ON v.request_id = r.id
     WHERE (r.status = 'voided') <> (v.id IS NOT NULL) OR v.merchant_id <> r.merchant_id
    UNION ALL
    SELECT * FROM (
        SELECT r.id, r.status, v.id, -sum(e.amount) FILTER (WHERE e.kind = 'usage') AS drawn,
               sum(e.amount) FILTER (WHERE e.kind IN ('refund', 'grant')) AS given
          FROM meters_void v JOIN meters_usagerequest r ON r.id = v.request_id
          JOIN billing_ledgerentry e ON e.connection_id = r.connection_id AND e.request_id = r.id
         GROUP BY r.id, v.id, CASE WHEN e.kind <> 'grant' THEN e.grant_id END) g
     WHERE drawn IS DISTINCT FROM given
    UNION ALL
    SELECT e.request_id, r.status, NULL, NULL, e.amount
      FROM billing_ledgerentry e LEFT JOIN meters_usagerequest r
             ON r.id = e.request_id AND r.connection_id = e.connection_id
     WHERE e.kind = 'refund' AND r.status IS DISTINCT FROM 'voided'
"""

OVERAGE = """
    SELECT c.id AS connection, c.cycle_overage, coalesce(o.total, 0) AS made
      FROM billing_connection c
      JOIN billing_subscription s ON s.connection_id = c.id AND s.status IN ('active', 'past_due')
      LEFT JOIN (
        SELECT r.subscription_id, r.cycle_index, -sum(e.amount) AS total
          FROM billing_ledgerentry e
          JOIN meters_usagerequest r ON r.id = e.request_id AND r.connection_id = e.connection_id
         WHERE e.kind = 'usage' AND e.grant_id IS NULL AND r.status <> 'voided'
         GROUP BY r.subscription_id, r.cycle_index) o
             ON o.subscription_id = s.id AND o.cycle_index = s.cycle_index
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

# A hold that was settled names its request; the request is of its connection.
SETTLED = """
    SELECT h.id AS hold, h.request_id AS request FROM billing_hold h
      LEFT JOIN meters_usagerequest r
             ON r.id = h.request_id AND r.connection_id = h.connection_id
     WHERE h.state = 'settled' AND r.id IS NULL
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


RULES = (
    Rule(
        "requests_have_their_lines",
        "A charged request has ledger lines of its sum, and answered with the balance after them.",
        LINES,
    ),
    Rule("lines_have_their_request", "Every usage line has its request.", ORPHANS),
    Rule("draws_are_the_lines", "A request's draws are its ledger lines.", DRAWS),
    Rule("charged_once", "Every request has the one key of its id, for ever.", KEYS),
    Rule(
        "positions_add_up",
        "Requests stand one behind the other in the tiers, and the position is their sum.",
        POSITIONS,
    ),
    Rule(
        "peaks_are_the_furthest",
        "A meter's peak is the furthest its count ever was, so that a flat amount is asked once.",
        PEAKS,
    ),
    Rule(
        "voids_give_back_once",
        "A request taken back gave each of its draws back, once; no other gave any.",
        VOIDS,
    ),
    Rule("overage_of_the_cycle", "The cycle's overage is what its requests owe.", OVERAGE),
    Rule(
        "usage_of_one_merchant",
        "A request, its meter and its price have one merchant.",
        MERCHANTS,
    ),
    Rule("holds_are_settled_by_requests", "A settled hold has its request.", SETTLED),
    Rule(
        "calls_are_settled_once",
        "A gateway call is charged as its request, ends its hold with itself, and does not hang.",
        CALLS,
    ),
    Rule("tokens_hold_what_runs", "A token holds what its running calls hold.", TOKENS),
    Rule("costs_are_the_requests", "A request's cost is the cost that was found.", COSTS),
    Rule(
        "usage_adds_up",
        "The sums of usage and what is not yet summed are the requests, to the last digit.",
        ROLLUPS,
    ),
    Rule(
        "usage_by_day_adds_up",
        "The sums by local day, and by eight of them, are those by quarter of an hour.",
        DAYS,
    ),
    Rule(
        "usage_by_model_adds_up",
        "The sums by model, and what is not yet summed, are the requests.",
        MODELS,
    ),
)
