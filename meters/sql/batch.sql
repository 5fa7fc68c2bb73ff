-- Charge many requests in one transaction, each on its own terms, to the last digit as meters_charge
-- would one by one, in the order of their ids. In sets: every line is looked up, priced at its place
-- in the tiers, drawn and stored by a handful of statements, whatever their number.
-- All connections are locked first, in the order of their ids, then requests are stored in the order
-- of theirs; so batches, singles and duplicates wait for each other and never in a circle.
-- What a line's outcome can depend on another's (`enforce`, one id with two bodies, sums at the
-- limit of the books) is charged one by one: all lines of that connection, by meters_charge itself.
-- A line that is refused writes nothing and spoils no other.

-- It names tables that a later migration makes than the first which reads this file.
SET LOCAL check_function_bodies = off;

-- A line of a batch, looked up and priced. Its functions follow it here.
DO $$
BEGIN
    -- A batch that runs meanwhile has found it, and what follows it: it stays where it is as it was.
    IF 40 <> (SELECT c.relnatts FROM pg_class c WHERE c.oid = to_regclass('meters_line')) THEN
        DROP TYPE meters_line CASCADE;
    END IF;
    IF to_regtype('meters_line') IS NULL THEN
        CREATE TYPE meters_line AS (
            place int, id uuid, connection uuid, request_id text, fingerprint bytea,
            happened timestamptz, model text, input_tokens bigint, output_tokens bigint, input_characters bigint,
            output_characters bigint, input_seconds numeric, output_seconds numeric,
            provider_cost numeric, metadata jsonb, cache_read_tokens bigint,
            cache_write_tokens bigint,
            -- Null where it is to be charged.
            outcome text, detail text, currency text,
            -- The connection as it was locked, and what of its plan says whom to wake.
            balance numeric, debt numeric, low_mark numeric, when_depleted text,
            overage_threshold numeric, top_up_threshold numeric, subscription uuid, cycle_index int, cycle_start timestamptz,
            price uuid, meter uuid, scope uuid, "window" int, counted numeric, before numeric,
            peak numeric, fee numeric, slices jsonb, charged numeric, hard boolean
        );
    END IF;
END
$$;

-- Look up and price the lines; a connection's lines in the order of their ids. `hard`: one of the
-- connection's lines must be charged by meters_charge, so all of them are.
CREATE OR REPLACE FUNCTION meters_price_lines(
    p_merchant uuid, p_moment timestamptz, p_ids uuid[], p_connections uuid[], p_meters text[],
    p_meter_ids uuid[], p_request_ids text[], p_fingerprints bytea[], p_timestamps timestamptz[],
    p_models text[], p_input_tokens bigint[], p_output_tokens bigint[],
    p_input_characters bigint[], p_output_characters bigint[], p_input_seconds numeric[],
    p_output_seconds numeric[], p_provider_costs numeric[], p_metadata text[],
    p_enforce boolean[], p_cache_read_tokens bigint[], p_cache_write_tokens bigint[]
) RETURNS SETOF meters_line LANGUAGE sql STABLE AS $$
    WITH told AS MATERIALIZED (
        SELECT l.*, COALESCE(l.said, p_moment) AS happened,
               row_number() OVER (PARTITION BY l.request_id ORDER BY l.place) AS turn,
               l.fingerprint <> first_value(l.fingerprint)
                   OVER (PARTITION BY l.request_id ORDER BY l.place) AS differs
          FROM unnest(
            p_ids, p_connections, p_meters, p_meter_ids, p_request_ids,
            p_fingerprints, p_timestamps, p_models, p_input_tokens, p_output_tokens,
            p_input_characters, p_output_characters, p_input_seconds, p_output_seconds,
            p_provider_costs, p_metadata, p_enforce, p_cache_read_tokens, p_cache_write_tokens)
          WITH ORDINALITY AS l (
            id, at, slug, named_id, request_id, fingerprint, said, model, input_tokens,
            output_tokens, input_characters, output_characters, input_seconds, output_seconds,
            provider_cost, metadata, enforce, cache_read_tokens, cache_write_tokens, place)
    ), named AS MATERIALIZED (
        -- A meter's id is written in its slug's place, so the text alone tells meters apart.
        SELECT n.slug, m.id, m.name, m.price_id
          FROM (SELECT DISTINCT slug, named_id FROM told) n
          JOIN meters_meter m ON m.merchant_id = p_merchant AND m.archived_at IS NULL
           AND CASE WHEN n.named_id IS NULL THEN m.slug = n.slug ELSE m.id = n.named_id END
    ), pairs AS MATERIALIZED (
        SELECT d.at AS paid_by, d.slug AS told_as, c.status, c.currency, c.balance, c.debt, c.low_mark,
               c.cycle_overage, n.id AS meter_id, n.name, p AS price, p.id AS price_id,
               p.rate_type, p.unit, p.tier_starts, p.tier_rates, p.base_cost_payer,
               CASE p.unit WHEN 'minutes' THEN 60 ELSE 1 END AS scale,
               CASE p.unit WHEN 'minutes' THEN 60 WHEN 'requests' THEN 1 ELSE 1000000 END
                   AS divisor,
               p.rate_type = 'fixed' AND p.free_allowance = 0 AND p.package_size = 0
                   AND cardinality(p.tier_kinds) = 0 AND 0 >= ALL (p.tier_flats) AS plain,
               s.id AS subscription, s.cycle_index, s.cycle_start, s.when_depleted,
               s.overage_threshold, s.top_up_threshold,
               w.scope, w."window", COALESCE(q.quantity, 0) AS stood, q.peak
          FROM (SELECT DISTINCT at, slug FROM told) d
          LEFT JOIN billing_connection c ON c.id = d.at AND c.merchant_id = p_merchant
          LEFT JOIN named n ON n.slug = d.slug
          LEFT JOIN meters_meterprice p ON p.id = n.price_id
          LEFT JOIN LATERAL (
            SELECT s.id, s.cycle_index, s.cycle_start, b.when_depleted, b.overage_threshold,
                   CASE WHEN s.auto_top_up_bundle_id IS NOT NULL THEN s.top_up_threshold END
                       AS top_up_threshold
              FROM billing_subscription s
              JOIN billing_plan b ON b.id = s.plan_id
              JOIN meters_meterplan mp ON mp.plan_id = s.plan_id AND mp.meter_id = n.id
             WHERE s.connection_id = c.id AND s.status IN ('active', 'past_due')
               AND NOT (s.pending_change IS NOT DISTINCT FROM 'cancellation'
                        AND s.cycle_end <= p_moment)) s ON true
          LEFT JOIN LATERAL (
            SELECT CASE p.tier_window WHEN 'cycle' THEN s.id ELSE c.id END AS scope,
                   CASE p.tier_window WHEN 'cycle' THEN s.cycle_index ELSE -1 END AS "window"
          ) w ON true
          LEFT JOIN meters_meterposition q
                 ON q.connection_id = c.id AND q.meter_id = n.id AND q.scope = w.scope
                AND q."window" = w."window"
    ), judged AS MATERIALIZED (
        SELECT t.*, p.*, CASE
                WHEN p.status IS NULL OR p.status IN ('pending', 'deleted')
                    THEN 'connection_not_found'
                WHEN r.fingerprint <> t.fingerprint THEN 'request_id_reused'
                WHEN r.id IS NOT NULL THEN 'replayed'
                WHEN p.status = 'disabled' THEN 'connection_disabled'
                WHEN t.happened > p_moment + interval '5 minutes' THEN 'timestamp_in_future'
                WHEN t.happened < p_moment - interval '30 days' THEN 'timestamp_too_old'
                WHEN p.meter_id IS NULL THEN 'meter_not_found'
                WHEN p.subscription IS NULL THEN 'meter_not_on_plan'
                WHEN p.rate_type = 'percentage' AND t.provider_cost IS NULL THEN 'cost_unknown'
                -- The same line again: it meets the one before it.
                WHEN t.turn > 1 THEN 'replayed'
            END AS outcome,
            meters_quantity(p.unit, (p.price).token_basis, t.input_tokens, t.output_tokens,
                t.input_characters, t.output_characters, t.input_seconds, t.output_seconds)
                AS counted,
            bool_or(t.differs) OVER (PARTITION BY t.request_id) AS mixed
          FROM told t
          JOIN pairs p ON p.paid_by = t.at AND p.told_as = t.slug
          LEFT JOIN meters_requestkey k
                 ON k.merchant_id = p_merchant AND k.request_id = t.request_id
          LEFT JOIN meters_usagerequest r ON r.id = k."row"
    ), placed AS MATERIALIZED (
        SELECT j.*, j.stood + COALESCE(sum(j.counted) FILTER (WHERE j.outcome IS NULL) OVER (
                   PARTITION BY j.at, j.meter_id ORDER BY j.request_id COLLATE "C", j.place
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM judged j
    ), tiered AS MATERIALIZED (
        -- The tier that a line falls in whole, where it does: most do, and need no loop.
        SELECT j.*, CASE WHEN j.plain AND j.outcome IS NULL AND j.counted > 0 THEN (
                SELECT max(i) FROM generate_subscripts(j.tier_starts, 1) i
                 WHERE j.tier_starts[i] * j.scale <= j.before) END AS tier
          FROM placed j
    ), priced AS (
        SELECT j.*, CASE WHEN w.whole THEN f.fee ELSE m.fee END AS fee,
               CASE WHEN w.whole
                    THEN jsonb_build_array(jsonb_build_array(
                        j.tier - 1, trim_scale(j.counted)::text, f.fee::text))
                    ELSE m.slices END AS slices
          FROM tiered j
          CROSS JOIN LATERAL (
            SELECT COALESCE(j.before + j.counted <= j.tier_starts[j.tier + 1] * j.scale,
                            j.tier IS NOT NULL) AS whole) w
          CROSS JOIN LATERAL (
            SELECT CASE WHEN w.whole THEN
                round(round(j.counted * j.tier_rates[j.tier], 40) / j.divisor, 10) END AS fee) f
          LEFT JOIN LATERAL (
            SELECT m.fee, m.slices FROM meters_price(
                j.rate_type, j.unit, j.tier_starts, j.tier_rates, j.counted, j.before,
                j.provider_cost, (j.price).tier_flats, (j.price).free_allowance,
                (j.price).package_size, (j.price).package_rounding, j.peak,
                meters_kinds((j.price).tier_kinds, j.input_tokens, j.output_tokens,
                             j.cache_read_tokens, j.cache_write_tokens)) m
             WHERE j.outcome IS NULL AND NOT w.whole OFFSET 0) m ON true
    ), asked AS (
        SELECT j.*, j.fee + CASE j.base_cost_payer
                   WHEN 'wallet' THEN COALESCE(j.provider_cost, 0) ELSE 0 END AS charged
          FROM priced j
    )
    SELECT j.place::int, j.id, j.at, j.request_id, j.fingerprint, j.happened, j.model,
           j.input_tokens, j.output_tokens, j.input_characters, j.output_characters,
           j.input_seconds, j.output_seconds, j.provider_cost, j.metadata::jsonb,
           j.cache_read_tokens, j.cache_write_tokens, j.outcome,
           CASE j.outcome WHEN 'meter_not_on_plan' THEN j.name END, j.currency, j.balance,
           j.debt, j.low_mark, j.when_depleted, j.overage_threshold, j.top_up_threshold,
           j.subscription, j.cycle_index, j.cycle_start, j.price_id, j.meter_id, j.scope,
           j."window", j.counted, j.before, j.peak, j.fee, j.slices, j.charged,
           COALESCE(bool_or(j.enforce OR j.mixed OR j.charged >= 1000000000000) OVER c
               OR j.balance - sum(j.charged) OVER c <= -1000000000000
               OR j.cycle_overage + sum(j.charged) OVER c >= 1000000000000, false)
      FROM asked j
    WINDOW c AS (PARTITION BY j.at)
     ORDER BY j.request_id COLLATE "C", j.place
$$;

CREATE OR REPLACE FUNCTION meters_charge_batch(
    p_key_hash bytea, p_real_now timestamptz, p_ids uuid[], p_connections uuid[],
    p_meters text[], p_meter_ids uuid[], p_request_ids text[], p_fingerprints bytea[],
    p_timestamps timestamptz[], p_models text[], p_input_tokens bigint[],
    p_output_tokens bigint[], p_input_characters bigint[], p_output_characters bigint[],
    p_input_seconds numeric[], p_output_seconds numeric[], p_provider_costs numeric[],
    p_metadata text[], p_enforce boolean[], p_cache_read_tokens bigint[],
    p_cache_write_tokens bigint[]
) RETURNS TABLE (
    place int, outcome text, detail text, collect boolean, fell boolean, currency text,
    request meters_usagerequest, price meters_meterprice
) LANGUAGE plpgsql AS $$
DECLARE
    v record;
    done record;
    merchant record;
    moment timestamptz;
    lines meters_line[];
BEGIN
    SELECT m.id, m.clock_offset INTO merchant
      FROM billing_secretkey k JOIN billing_merchant m ON m.id = k.merchant_id
     WHERE k.secret_hash = p_key_hash AND k.revoked_at IS NULL;
    IF NOT FOUND THEN
        place := 1; outcome := 'unauthenticated';
        RETURN NEXT; RETURN;
    END IF;
    moment := p_real_now + merchant.clock_offset;
    PERFORM c.id FROM billing_connection c
      WHERE c.merchant_id = merchant.id AND c.id = ANY (p_connections)
      ORDER BY c.id FOR NO KEY UPDATE;

    -- As text, so that each is planned for as many lines as there are: a plan for any number joins
    -- a thousand lines by a million comparisons.
    EXECUTE $q$ SELECT ARRAY(SELECT l FROM meters_price_lines(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21) l) $q$
       INTO lines
      USING merchant.id, moment, p_ids, p_connections, p_meters, p_meter_ids, p_request_ids,
            p_fingerprints, p_timestamps, p_models, p_input_tokens, p_output_tokens,
            p_input_characters, p_output_characters, p_input_seconds, p_output_seconds,
            p_provider_costs, p_metadata, p_enforce, p_cache_read_tokens, p_cache_write_tokens;
    PERFORM set_config('lava.notes_in_a_set', 'on', true);
    RETURN QUERY EXECUTE $q$
    WITH due AS MATERIALIZED (
        SELECT l.* FROM unnest($1) WITH ORDINALITY l WHERE NOT l.hard AND l.outcome IS NULL
    ), moved AS (
        INSERT INTO meters_meterposition AS p (
            connection_id, meter_id, scope, "window", quantity, peak, unsettled, first_request)
        SELECT d.connection, d.meter, d.scope, d."window", sum(d.counted), sum(d.counted),
               bool_or(v.volume_starts <> '{}'), (array_agg(d.id ORDER BY d.id))[1]
          FROM due d JOIN meters_meterprice v ON v.id = d.price
         GROUP BY d.connection, d.meter, d.scope, d."window"
        ON CONFLICT (connection_id, meter_id, scope, "window")
        DO UPDATE SET quantity = p.quantity + EXCLUDED.quantity,
                      unsettled = p.unsettled OR EXCLUDED.unsettled,
                      peak = GREATEST(p.peak, p.quantity + EXCLUDED.quantity),
                      first_request = CASE WHEN p.first_request > EXCLUDED.first_request
                                           THEN EXCLUDED.first_request ELSE p.first_request END
    ), spent AS MATERIALIZED (
        SELECT s.*, l.id FROM billing_spend_set(
            ARRAY(SELECT d.connection FROM due d ORDER BY d.ordinality),
            ARRAY(SELECT d.id FROM due d ORDER BY d.ordinality),
            ARRAY(SELECT d.charged FROM due d ORDER BY d.ordinality), $3) s
          JOIN unnest(ARRAY(SELECT d.id FROM due d ORDER BY d.ordinality))
               WITH ORDINALITY l (id, place) ON l.place = s.place
    ), stored AS (
        INSERT INTO meters_usagerequest AS r (
            id, merchant_id, connection_id, meter_id, price_id, subscription_id, cycle_index,
            request_id, fingerprint, status, model, input_tokens, output_tokens,
            input_characters, output_characters, input_seconds, output_seconds,
            cache_read_tokens, cache_write_tokens, quantity, position_before, peak_before, fee,
            slices, draws, provider_cost, charged, cycle_remaining, bundle_remaining, debt_after,
            late, metadata, "timestamp", created_at)
        SELECT d.id, $2, d.connection, d.meter, d.price, d.subscription, d.cycle_index,
               d.request_id, d.fingerprint, 'completed', d.model, d.input_tokens,
               d.output_tokens, d.input_characters, d.output_characters, d.input_seconds,
               d.output_seconds, NULLIF(d.cache_read_tokens, 0),
               NULLIF(d.cache_write_tokens, 0), d.counted, d.before,
               CASE WHEN d.peak > d.before THEN d.peak END, d.fee, d.slices, s.draws,
               d.provider_cost, d.charged, s.cycle_remaining, s.bundle_remaining, s.debt,
               d.happened < d.cycle_start, d.metadata, d.happened, $3
          FROM due d JOIN spent s ON s.id = d.id
         ORDER BY d.ordinality
        RETURNING r AS stored, r.id, r.request_id, r.price_id
    ), keyed AS (
        INSERT INTO meters_requestkey (merchant_id, request_id, "row")
        SELECT $2, d.request_id, d.id FROM due d ORDER BY d.ordinality
    ), noted AS (
        INSERT INTO meters_usagedelta (merchant_id, connection_id, meter_id, model, bucket,
            requests, tokens, characters, seconds, provider_cost, fee, charged, costed)
        SELECT $2, d.connection, d.meter, d.model, meters_bucket(d.happened), count(*),
               sum(d.input_tokens + d.output_tokens),
               sum(d.input_characters + d.output_characters),
               sum(d.input_seconds + d.output_seconds), sum(COALESCE(d.provider_cost, 0)),
               sum(d.fee), sum(d.charged),
               sum(CASE WHEN d.provider_cost IS NULL THEN 0 ELSE d.charged END)
          FROM due d GROUP BY d.connection, d.meter, d.model, meters_bucket(d.happened)
    ), steps AS (
        SELECT d.id, d.when_depleted, d.overage_threshold, d.low_mark, d.top_up_threshold,
               s.debt, COALESCE(lag(s.debt) OVER c, d.debt) AS debt_before,
               s.cycle_remaining + s.bundle_remaining - s.debt AS after,
               COALESCE(lag(s.balance) OVER c, d.balance) AS before
          FROM due d JOIN spent s ON s.id = d.id
        WINDOW c AS (PARTITION BY d.connection ORDER BY d.ordinality)
    ), woken AS (
        SELECT s.id, s.when_depleted = 'overage' AND s.debt_before < s.overage_threshold
                     AND s.debt >= s.overage_threshold AS collect,
               (s.before > 0 AND s.after <= 0)
                   OR COALESCE(s.before >= s.low_mark AND s.after < s.low_mark, false)
                   OR COALESCE(s.before >= s.top_up_threshold
                               AND s.after < s.top_up_threshold, false) AS fell
          FROM steps s
    ), found AS (
        SELECT s.stored, s.id, s.request_id, s.price_id FROM stored s
        UNION ALL
        SELECT r, NULL, r.request_id, r.price_id
          FROM meters_requestkey k JOIN meters_usagerequest r ON r.id = k."row"
         WHERE k.merchant_id = $2 AND k.request_id = ANY (
            ARRAY(SELECT l.request_id FROM unnest($1) l WHERE l.outcome = 'replayed'))
    )
    SELECT l.place, COALESCE(l.outcome, 'charged'), l.detail, COALESCE(w.collect, false),
           COALESCE(w.fell, false), l.currency, f.stored, p
      FROM unnest($1) l
      LEFT JOIN found f ON f.request_id = l.request_id
                       AND (l.outcome IS NULL OR l.outcome = 'replayed')
      LEFT JOIN woken w ON w.id = l.id
      LEFT JOIN meters_meterprice p ON p.id = f.price_id
     WHERE NOT l.hard $q$
    USING lines, merchant.id, moment;
    PERFORM set_config('lava.notes_in_a_set', 'off', true);

    FOR v IN
        SELECT * FROM unnest(
            p_ids, p_connections, p_meters, p_meter_ids, p_request_ids, p_fingerprints,
            p_timestamps, p_models, p_input_tokens, p_output_tokens, p_input_characters,
            p_output_characters, p_input_seconds, p_output_seconds, p_provider_costs, p_metadata,
            p_enforce, p_cache_read_tokens, p_cache_write_tokens)
        WITH ORDINALITY AS l (
            id, connection, meter, meter_id, request_id, fingerprint, happened, model,
            input_tokens, output_tokens, input_characters, output_characters, input_seconds,
            output_seconds, provider_cost, metadata, enforce, cache_read_tokens,
            cache_write_tokens, place)
         WHERE l.place IN (SELECT h.place FROM unnest(lines) h WHERE h.hard)
         ORDER BY l.request_id COLLATE "C", l.place
    LOOP
        SELECT * INTO done FROM meters_charge(
            v.id, p_key_hash, p_real_now, v.connection, v.meter, v.meter_id, v.request_id,
            v.fingerprint, v.happened, v.model, v.input_tokens, v.output_tokens,
            v.input_characters, v.output_characters, v.input_seconds, v.output_seconds,
            v.provider_cost, v.metadata::jsonb, v.enforce, v.cache_read_tokens,
            v.cache_write_tokens);
        place := v.place;
        outcome := done.outcome;
        detail := done.detail;
        collect := done.collect;
        fell := done.fell;
        currency := done.currency;
        request := done.request;
        price := done.price;
        RETURN NEXT;
    END LOOP;
END
$$;
