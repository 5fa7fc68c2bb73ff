-- Renewals of price 0, many in one statement. Called by billing/renewals.py (`renew_set`); says the
-- same as `subscriptions.advance` row by row, and a test holds both equal on random states. Beside
-- billing/sql/ledger.sql the only writer of the ledger: each set takes the locks of its connections
-- first, and passes by a connection that somebody else has locked.

-- The tail of keys as `billing.ids.new` makes them: 19 of the 20 digits after the milliseconds, the
-- first of which says sandbox; the last tells apart the rows of one renewal. (Of a random UUID the
-- version is left out, and the variant's digit, 8 to b, is the one that says sandbox.)
CREATE OR REPLACE FUNCTION billing_id_tail(p_sandbox boolean, p_random uuid)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_sandbox THEN substr(p_random::text, 20, 1)
                ELSE translate(substr(p_random::text, 20, 1), '89ab', '0123') END
        || substr(p_random::text, 21, 3) || substr(p_random::text, 25, 12)
        || substr(p_random::text, 16, 3)
$$;

-- A key as clients see it, as `billing.ids.public`: 130 bits, five to a letter.
CREATE OR REPLACE FUNCTION billing_public_id(p_prefix text, p_key uuid)
RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    letters text := '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
    bits bit(130) := B'00' || ('x' || replace(p_key::text, '-', ''))::bit(128);
BEGIN
    RETURN p_prefix || CASE get_bit(bits, 50) WHEN 1 THEN '_test_' ELSE '_' END
        || substr(letters, substring(bits FROM 1 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 6 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 11 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 16 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 21 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 26 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 31 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 36 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 41 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 46 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 51 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 56 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 61 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 66 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 71 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 76 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 81 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 86 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 91 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 96 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 101 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 106 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 111 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 116 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 121 FOR 5)::int + 1, 1)
        || substr(letters, substring(bits FROM 126 FOR 5)::int + 1, 1);
END
$$;

-- An instant as Python's isoformat() writes it in UTC.
CREATE OR REPLACE FUNCTION billing_iso(p_moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(p_moment AT TIME ZONE 'UTC',
                   CASE WHEN extract(microseconds FROM p_moment)::bigint % 1000000 = 0
                        THEN 'YYYY-MM-DD"T"HH24:MI:SS' ELSE 'YYYY-MM-DD"T"HH24:MI:SS.US' END) || '+00:00'
$$;

-- Where cycle `p_place` from an anchor begins, as `billing.periods`: months are added to the anchor's
-- wall time, a day that is missing is the last of its month, a skipped wall time moves forward, and
-- one that comes twice takes its first (PostgreSQL by itself takes the second).
CREATE OR REPLACE FUNCTION billing_boundary(
    p_anchor timestamptz, p_every text, p_place int, p_zone text
) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    wall timestamp;
    found timestamptz;
    back interval;
BEGIN
    IF p_place = 0 THEN RETURN p_anchor; END IF;
    wall := (p_anchor AT TIME ZONE p_zone) + p_place * ('1 ' || p_every)::interval;
    found := wall AT TIME ZONE p_zone;
    IF p_zone = 'UTC' THEN RETURN found; END IF;
    FOREACH back IN ARRAY ARRAY['1 hour', '30 minutes', '2 hours', '20 minutes', '40 minutes',
                                '90 minutes', '3 hours', '1 day']::interval[] LOOP
        IF (found - back) AT TIME ZONE p_zone = wall THEN RETURN found - back; END IF;
    END LOOP;
    RETURN found;
END
$$;

-- The place of the cycle that holds an instant, at or after a place that is over or running.
CREATE OR REPLACE FUNCTION billing_place_at(
    p_anchor timestamptz, p_every text, p_from int, p_zone text, p_now timestamptz
) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    place int := p_from;
BEGIN
    WHILE billing_boundary(p_anchor, p_every, place + 1, p_zone) <= p_now LOOP
        place := place + 1;
    END LOOP;
    RETURN place;
END
$$;

-- Renew up to `p_most` subscriptions of price 0 that are due on their merchant's clock, owe nothing,
-- have nothing pending and keep one of `p_zones`; gives how many. The rest is
-- `billing.renewals.renew`'s.
CREATE OR REPLACE FUNCTION billing_renew_set(
    p_real_now timestamptz, p_merchant uuid, p_zones text[], p_most int
) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_count int;
    v_head text := lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0');
BEGIN
    CREATE TEMP TABLE IF NOT EXISTS renewing (
        subscription_id uuid, connection_id uuid, merchant_id uuid, sandbox boolean, now timestamptz,
        currency text, plan_id uuid, plan_name text, rolls boolean, cap numeric, ends_bundles boolean,
        included numeric, low_mark numeric, anchor timestamptz, every text, zone text, was int,
        first int, place int, index int, starts timestamptz, ends timestamptz, tail text
    ) ON COMMIT DROP;
    CREATE TEMP TABLE IF NOT EXISTS renewing_line (
        connection_id uuid, merchant_id uuid, phase int, at timestamptz, key uuid, part int,
        kind text, amount numeric, grant_id uuid, moment timestamptz, origin_at timestamptz,
        seq bigint, running numeric
    ) ON COMMIT DROP;
    TRUNCATE renewing, renewing_line;

    -- The locks; what somebody else holds is passed by, so that workers share the work.
    INSERT INTO renewing
    SELECT s.id, c.id, s.merchant_id, m.mode = 'sandbox', p_real_now + m.clock_offset, c.currency,
           p.id, p.name, p.rollover_type = 'full', p.rollover_cap, p.bundle_rollover_type = 'none',
           p.included_credit, p.low_credit_threshold, s.anchor, p.billing_interval, s.time_zone,
           s.cycle_index, s.anchor_index
      FROM billing_subscription s
      JOIN billing_merchant m ON m.id = s.merchant_id
      JOIN billing_plan p ON p.id = s.plan_id
      JOIN billing_connection c ON c.id = s.connection_id
     WHERE s.status = 'active' AND s.cycle_end <= p_real_now + m.clock_offset
       AND s.pending_change IS NULL AND s.next_attempt_at IS NULL AND p.price = 0
       AND c.status = 'active' AND NOT c.owes AND s.time_zone = ANY (p_zones)
       AND (p_merchant IS NULL OR s.merchant_id = p_merchant)
     ORDER BY s.cycle_end, s.id LIMIT p_most
       FOR NO KEY UPDATE OF c SKIP LOCKED;
    -- What is due, read again under them.
    DELETE FROM renewing r USING billing_subscription s
     WHERE s.id = r.subscription_id AND (s.cycle_index <> r.was OR s.status <> 'active'
        OR s.pending_change IS NOT NULL OR s.next_attempt_at IS NOT NULL OR s.plan_id <> r.plan_id
        OR EXISTS (SELECT 1 FROM billing_payment y
                    WHERE y.subscription_id = s.id AND y.purpose IN ('renewal', 'upgrade')
                      AND y.off_session
                      AND y.status IN ('pending', 'unknown', 'requires_action')));

    UPDATE renewing SET place = billing_place_at(anchor, every, was - first + 1, zone, now);
    UPDATE renewing
       SET index = place + first, starts = billing_boundary(anchor, every, place, zone),
           ends = billing_boundary(anchor, every, place + 1, zone),
           tail = v_head || billing_id_tail(sandbox, gen_random_uuid());
    SELECT count(*) INTO v_count FROM renewing;
    IF v_count = 0 THEN RETURN 0; END IF;
    ANALYZE renewing;

    -- The lines, in the order in which they are entered: lives that are over; then the cycle's
    -- credits, cut and rolled or ended; then bundles that do not roll; then the new credits.
    INSERT INTO renewing_line
    SELECT r.connection_id, r.merchant_id, 1, g.expires_at, g.id, 0, 'expire', -g.remaining, g.id,
           g.expires_at, g.origin_at
      FROM renewing r JOIN billing_creditgrant g ON g.connection_id = r.connection_id
     WHERE NOT g.is_spent AND g.expires_at <= r.now;
    INSERT INTO renewing_line
    SELECT l.connection_id, l.merchant_id, 2, l.origin_at, l.id, part.part,
           CASE part.part WHEN 0 THEN 'expire' ELSE 'roll' END,
           -CASE part.part WHEN 0 THEN l.lost ELSE l.remaining - l.lost END, l.id, l.now, l.origin_at
      FROM (SELECT g.connection_id, r.merchant_id, g.id, g.origin_at, g.remaining, r.now,
                   LEAST(g.remaining, GREATEST(
                       sum(g.remaining) OVER whole - r.cap
                       - (sum(g.remaining) OVER upto - g.remaining), 0)) AS lost
              FROM renewing r JOIN billing_creditgrant g ON g.connection_id = r.connection_id
             WHERE r.rolls AND NOT g.is_spent AND g.pool = 1 AND g.effective_at <= r.now
               AND (g.expires_at IS NULL OR g.expires_at > r.now)
            WINDOW whole AS (PARTITION BY g.connection_id),
                   upto AS (PARTITION BY g.connection_id ORDER BY g.origin_at, g.id)) l,
           (VALUES (0), (1)) part (part)
     WHERE CASE part.part WHEN 0 THEN l.lost ELSE l.remaining - l.lost END <> 0;
    INSERT INTO renewing_line
    SELECT r.connection_id, r.merchant_id, CASE g.pool WHEN 1 THEN 2 ELSE 4 END, g.origin_at, g.id, 0,
           'expire', -g.remaining, g.id, r.now, g.origin_at
      FROM renewing r JOIN billing_creditgrant g ON g.connection_id = r.connection_id
     WHERE NOT g.is_spent AND (g.expires_at IS NULL OR g.expires_at > r.now)
       AND (g.pool = 1 AND NOT r.rolls
            OR g.pool = 2 AND r.ends_bundles AND g.effective_at < r.starts);
    INSERT INTO renewing_line
    SELECT r.connection_id, r.merchant_id, 3, NULL::timestamptz, NULL::uuid, 0, 'roll', rolled.amount,
           (r.tail || '2')::uuid, r.now, rolled.origin_at
      FROM renewing r JOIN (
            SELECT connection_id, -sum(amount) AS amount, min(at) AS origin_at FROM renewing_line
             WHERE phase = 2 AND kind = 'roll' GROUP BY connection_id) rolled USING (connection_id)
    UNION ALL
    SELECT connection_id, merchant_id, 5, NULL, NULL, 0, 'grant', included,
           (tail || '3')::uuid, now, now
      FROM renewing WHERE included > 0;
    UPDATE renewing_line l
       SET seq = c.entry_count + o.place, running = c.balance + o.total
      FROM (SELECT ctid AS line, row_number() OVER w AS place, sum(amount) OVER w AS total
              FROM renewing_line
            WINDOW w AS (PARTITION BY connection_id ORDER BY phase, at, key, part)) o,
           billing_connection c
     WHERE l.ctid = o.line AND c.id = l.connection_id;
    ANALYZE renewing_line;

    PERFORM billing_write_set();
    RETURN v_count;
END
$$;

-- The second half: write what `billing_renew_set` has put into its two temporary tables.
CREATE OR REPLACE FUNCTION billing_write_set() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing_cycle (
        id, merchant_id, subscription_id, index, start, "end", state, created_at,
        plan_id, anchor, place, time_zone, unused_credit, unused_value, owed)
    SELECT (left(r.tail, 16) || lpad(to_hex(missed), 4, '0') || right(r.tail, 11) || '0')::uuid, r.merchant_id, r.subscription_id, r.first + missed,
           billing_boundary(r.anchor, r.every, missed, r.zone),
           billing_boundary(r.anchor, r.every, missed + 1, r.zone), 'skipped', r.now,
           r.plan_id, r.anchor, missed, r.zone, 0, 0, 0
      FROM renewing r, generate_series(r.was - r.first + 1, r.place - 1) missed
    UNION ALL
    SELECT (r.tail || '1')::uuid, r.merchant_id, r.subscription_id, r.index, r.starts, r.ends, 'granted',
           r.now, r.plan_id, r.anchor, r.place, r.zone, 0, 0, 0
      FROM renewing r;
    UPDATE billing_subscription s
       SET cycle_index = r.index, cycle_start = r.starts, cycle_end = r.ends, attempts = 0,
           past_due_since = NULL
      FROM renewing r WHERE s.id = r.subscription_id;
    UPDATE billing_creditgrant g SET remaining = g.remaining + l.amount
      FROM (SELECT grant_id, sum(amount) AS amount FROM renewing_line
             WHERE phase IN (1, 2, 4) GROUP BY grant_id) l
     WHERE g.id = l.grant_id;
    INSERT INTO billing_creditgrant (
        id, merchant_id, connection_id, pool, source, amount, remaining, priority, effective_at,
        expires_at, origin_at, cycle_id, reason, actor, created_at)
    SELECT l.grant_id, r.merchant_id, r.connection_id, 1,
           CASE l.phase WHEN 3 THEN 'rollover' ELSE 'cycle' END, l.amount, l.amount, 0, r.now,
           CASE WHEN l.phase = 5 AND NOT r.rolls THEN GREATEST(r.ends, r.now) END, l.origin_at,
           (r.tail || '1')::uuid, '', '', r.now
      FROM renewing_line l JOIN renewing r USING (connection_id) WHERE l.phase IN (3, 5);
    INSERT INTO billing_ledgerentry (
        merchant_id, connection_id, seq, kind, amount, balance_after, grant_id, reason, actor,
        occurred_at)
    SELECT merchant_id, connection_id, seq, kind, amount, running, grant_id, '', '', moment
      FROM renewing_line ORDER BY connection_id, seq;
    -- Since when a balance is at 0 or below its mark: after the last line that was above.
    UPDATE billing_connection c
       SET cycle_overage = 0, low_mark = r.low_mark,
           entry_count = COALESCE(l.seq, c.entry_count), balance = COALESCE(l.balance, c.balance),
           depleted_at = CASE WHEN l.seq IS NULL THEN c.depleted_at
                              WHEN l.balance <= 0 AND l.was_above THEN l.depleted_at
                              WHEN l.balance <= 0 THEN COALESCE(c.depleted_at, l.depleted_at) END,
           depleted_told = c.depleted_told AND (l.seq IS NULL OR l.balance <= 0 AND NOT l.was_above),
           low_at = CASE WHEN l.seq IS NULL THEN c.low_at
                         WHEN l.balance < r.low_mark AND l.was_high THEN l.low_at
                         WHEN l.balance < r.low_mark THEN COALESCE(c.low_at, l.low_at) END,
           low_told = c.low_told AND (l.seq IS NULL OR COALESCE(
                        l.balance < r.low_mark AND NOT l.was_high, false))
      FROM renewing r
      LEFT JOIN (
        SELECT connection_id, max(seq) AS seq,
               (array_agg(running ORDER BY seq DESC))[1] AS balance,
               bool_or(above) AS was_above, bool_or(high) AS was_high,
               min(moment) FILTER (WHERE seq = last_above + 1) AS depleted_at,
               min(moment) FILTER (WHERE seq = last_high + 1) AS low_at
          FROM (SELECT l.connection_id, l.seq, l.running, l.moment, l.running > 0 AS above,
                       l.running >= r.low_mark AS high,
                       COALESCE(max(l.seq) FILTER (WHERE l.running > 0) OVER w,
                                min(l.seq) OVER w - 1) AS last_above,
                       COALESCE(max(l.seq) FILTER (WHERE l.running >= r.low_mark) OVER w,
                                min(l.seq) OVER w - 1) AS last_high
                  FROM renewing_line l JOIN renewing r USING (connection_id)
                WINDOW w AS (PARTITION BY l.connection_id)) l
         GROUP BY connection_id) l USING (connection_id)
     WHERE c.id = r.connection_id;
    INSERT INTO billing_event (id, merchant_id, name, connection_id, data, created_at)
    SELECT (r.tail || '4')::uuid, r.merchant_id, 'subscription.renewed', r.connection_id,
           jsonb_build_object(
               'subscription_id', billing_public_id('sub', r.subscription_id), 'plan', r.plan_name,
               'cycle_start_at', billing_iso(r.starts), 'cycle_end_at', billing_iso(r.ends),
               'balance', c.balance::numeric(22, 10)::text, 'currency', c.currency), r.now
      FROM renewing r JOIN billing_connection c ON c.id = r.connection_id;
END
$$;
