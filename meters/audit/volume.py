"""Settlements of prices by volume: what a cycle cost in the end, worked out anew."""

from __future__ import annotations

from billing.audit.asking import Rule

SETTLEMENTS = """
    WITH terms AS (
        SELECT id, tier_starts || volume_starts AS starts, tier_rates || volume_rates AS rates,
               free_allowance * scale AS free, package_size * scale AS package, package_rounding,
               scale,
               CASE unit WHEN 'minutes' THEN 60 WHEN 'requests' THEN 1 ELSE 1000000 END AS a_unit
          FROM meters_meterprice, LATERAL (
               SELECT CASE unit WHEN 'minutes' THEN 60 ELSE 1 END AS scale) s
         WHERE volume_starts <> '{}'),
    seen AS (
        SELECT v.*, t.starts, t.rates, t.scale, t.a_unit,
               CASE WHEN t.package = 0 THEN past
                    WHEN t.package_rounding = 'up' THEN ceil(past / t.package) * t.package
                    ELSE floor(past / t.package) * t.package END AS reached,
               coalesce(sum(v.amount) OVER (each ROWS BETWEEN UNBOUNDED PRECEDING
                                                          AND 1 PRECEDING), 0) AS given,
               row_number() OVER (PARTITION BY v.subscription_id, v.cycle_index, v.price_id
                                  ORDER BY v.id DESC) = 1 AS newest
          FROM meters_volumesettlement v LEFT JOIN terms t ON t.id = v.price_id,
               LATERAL (SELECT greatest(v.total - t.free, 0) AS past) p
        WINDOW each AS (PARTITION BY v.subscription_id, v.cycle_index, v.price_id ORDER BY v.id)),
    worked_out AS (
        SELECT s.*, CASE WHEN tier = 1 THEN s.charged
                         ELSE round(s.billed * s.rates[tier] / s.a_unit, 10) END AS due
          FROM seen s, LATERAL (
               SELECT count(*)::int AS tier FROM unnest(s.starts) WITH ORDINALITY x (start, place)
                WHERE place = 1 OR start * s.scale < s.reached) t),
    -- Where nothing was given back, a request may have been taken back since.
    requests AS (
        SELECT w.id, sum(r.quantity) AS total,
               sum(r.fee) FILTER (WHERE r.price_id = w.price_id) AS charged, sum((
                   SELECT coalesce(sum((part ->> 1)::numeric), 0)
                     FROM jsonb_array_elements(r.slices) part)
               ) FILTER (WHERE r.price_id = w.price_id) AS billed
          FROM worked_out w JOIN meters_usagerequest r
               ON r.connection_id = w.connection_id AND r.meter_id = w.meter_id
              AND r.subscription_id = w.subscription_id AND r.cycle_index = w.cycle_index
          JOIN meters_meterprice m ON m.id = r.price_id AND m.tier_window = 'cycle'
          LEFT JOIN meters_void x ON x.request_id = r.id
         WHERE w.newest AND (x.id IS NULL OR x.created_at > w.created_at)
         GROUP BY w.id)
    SELECT w.id AS settlement, w.connection_id AS connection, w.fee, w.due, w.amount, w.given
      FROM worked_out w
      LEFT JOIN requests r ON r.id = w.id
      LEFT JOIN billing_creditgrant g ON g.id = w.grant_id
      LEFT JOIN meters_meterposition p
             ON p.connection_id = w.connection_id AND p.meter_id = w.meter_id
            AND p.scope = w.subscription_id AND p."window" = w.cycle_index
     WHERE w.fee IS DISTINCT FROM w.due
        OR w.amount <> greatest(w.charged - w.fee - w.given, 0)
        OR w.amount <> coalesce(g.amount, 0) OR g.source <> 'volume'
        OR w.newest AND NOT p.unsettled AND (w.total, w.charged, w.billed)
           IS DISTINCT FROM (r.total, r.charged, r.billed)
    UNION ALL
    SELECT NULL, g.connection_id, NULL, NULL, g.amount, NULL
      FROM billing_creditgrant g LEFT JOIN meters_volumesettlement v ON v.grant_id = g.id
     WHERE g.source = 'volume' AND v.id IS NULL
"""

# A day after its end, or after the next try of its renewal, by the merchant's clock.
WAITING = """
    SELECT p.connection_id AS connection, p.meter_id AS meter, p."window" AS cycle
      FROM meters_meterposition p
      JOIN billing_subscription s ON s.id = p.scope
      JOIN billing_merchant m ON m.id = s.merchant_id
     WHERE p.unsettled
       AND (CASE WHEN s.ended_at IS NOT NULL THEN s.ended_at
                 WHEN p."window" < s.cycle_index THEN s.cycle_start
                 ELSE greatest(s.cycle_end, s.next_attempt_at) END)
           < now() + m.clock_offset - interval '1 day'
"""

RULES = (
    Rule(
        "volume_is_worked_out",
        "What a cycle cost by its volume follows from its count, and the rest was given back once.",
        SETTLEMENTS,
    ),
    Rule("volume_is_settled", "A cycle with a price by volume is settled when it ends.", WAITING),
)
