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

-- An instant of a zone's wall time, as `billing.periods`: a wall time that is skipped moves forward,
-- and one that comes twice is its first (PostgreSQL by itself takes the second).
CREATE OR REPLACE FUNCTION billing_instant(p_wall timestamp, p_zone text)
RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    found timestamptz := p_wall AT TIME ZONE p_zone;
    back interval;
BEGIN
    FOREACH back IN ARRAY ARRAY['1 hour', '30 minutes', '2 hours', '20 minutes', '40 minutes',
                                '90 minutes', '3 hours', '1 day']::interval[] LOOP
        IF (found - back) AT TIME ZONE p_zone = p_wall THEN RETURN found - back; END IF;
    END LOOP;
    RETURN found;
END
$$;

-- Where cycle `p_place` from an anchor begins, as `billing.periods`: months are added to the anchor's
-- wall time, a day that is missing is the last of its month. (One expression, and stable as the
-- reading of an interval is, so that it becomes a part of the statement that asks.)
CREATE OR REPLACE FUNCTION billing_boundary(
    p_anchor timestamptz, p_every text, p_place int, p_zone text
) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_place = 0 THEN p_anchor
        WHEN p_zone = 'UTC' THEN
            ((p_anchor AT TIME ZONE 'UTC') + p_place * ('1 ' || p_every)::interval) AT TIME ZONE 'UTC'
        ELSE billing_instant(
            (p_anchor AT TIME ZONE p_zone) + p_place * ('1 ' || p_every)::interval, p_zone) END
$$;

-- The place of the cycle that holds an instant, at or after a place that is over or running.
CREATE OR REPLACE FUNCTION billing_place_at(
    p_anchor timestamptz, p_every text, p_from int, p_zone text, p_now timestamptz
) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
    place int := p_from;
BEGIN
    WHILE billing_boundary(p_anchor, p_every, place + 1, p_zone) <= p_now LOOP
        place := place + 1;
    END LOOP;
    RETURN place;
END
$$;

-- Lock the connections of up to `p_most` subscriptions of price 0 that are due on their merchant's
-- clock, owe nothing, have nothing pending and keep one of `p_zones`. What somebody else holds is
-- passed by, so that workers share the work. The settings keep it to walks along the indexes: a
-- set reads its own rows, however many are due.
CREATE OR REPLACE FUNCTION billing_lock_due(
    p_real_now timestamptz, p_merchant uuid, p_zones text[], p_most int
) RETURNS uuid[] LANGUAGE sql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET join_collapse_limit = 1
AS $$
    SELECT array_agg(due.id) FROM (
        SELECT c.id
          FROM billing_merchant m
          JOIN billing_subscription s ON s.merchant_id = m.id
           AND s.cycle_end <= p_real_now + m.clock_offset
          JOIN billing_plan p ON p.id = s.plan_id
          JOIN billing_connection c ON c.id = s.connection_id
         WHERE (p_merchant IS NULL OR m.id = p_merchant)
           AND s.status = 'active' AND s.pending_change IS NULL AND s.next_attempt_at IS NULL
           AND s.time_zone = ANY (p_zones) AND p.price = 0 AND c.status = 'active' AND NOT c.owes
           AND NOT EXISTS (SELECT FROM billing_payment y
                            WHERE y.subscription_id = s.id AND y.purpose IN ('renewal', 'upgrade')
                              AND y.off_session
                              AND y.status IN ('pending', 'unknown', 'requires_action'))
         LIMIT p_most
           FOR NO KEY UPDATE OF c SKIP LOCKED) due
$$;

-- Renew such a set; gives how many. The rest is `billing.renewals.renew`'s.
--
-- One statement: everything is read again under the locks, worked out, and written. `due` are the
-- subscriptions with their new cycle, `lots` what is left of their credits, `lines` the ledger's
-- lines in the order in which they are entered: lives that are over; then the cycle's credits, cut
-- and rolled or ended; what was rolled, as one lot; then bundles that do not roll; then the new
-- credits. As text, so that it is planned for as many as there are.
CREATE OR REPLACE FUNCTION billing_renew_set(
    p_real_now timestamptz, p_merchant uuid, p_zones text[], p_most int
) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_connections uuid[] := billing_lock_due(p_real_now, p_merchant, p_zones, p_most);
    v_count int;
BEGIN
    IF v_connections IS NULL THEN RETURN 0; END IF;
    EXECUTE $q$
    WITH asked AS MATERIALIZED (
        SELECT s.id AS subscription_id, s.connection_id, s.merchant_id, m.mode = 'sandbox' AS sandbox,
               $2 + m.clock_offset AS now, p.id AS plan_id, p.name AS plan_name,
               p.rollover_type = 'full' AS rolls, p.rollover_cap AS cap,
               p.bundle_rollover_type = 'none' AS ends_bundles, p.included_credit AS included,
               p.low_credit_threshold AS low_mark, s.anchor, p.billing_interval AS every,
               s.time_zone AS zone, s.anchor_index AS first,
               s.cycle_index - s.anchor_index + 1 AS next, c.currency, c.balance, c.entry_count,
               gen_random_uuid() AS random
          FROM billing_connection c
          JOIN billing_subscription s ON s.connection_id = c.id
          JOIN billing_merchant m ON m.id = s.merchant_id
          JOIN billing_plan p ON p.id = s.plan_id
         WHERE c.id = ANY ($1) AND c.status = 'active' AND NOT c.owes
           AND s.status = 'active' AND s.cycle_end <= $2 + m.clock_offset
           AND s.pending_change IS NULL AND s.next_attempt_at IS NULL AND p.price = 0
           AND s.time_zone = ANY ($3)
           AND NOT EXISTS (SELECT FROM billing_payment y
                            WHERE y.subscription_id = s.id AND y.purpose IN ('renewal', 'upgrade')
                              AND y.off_session
                              AND y.status IN ('pending', 'unknown', 'requires_action'))
    ), placed AS MATERIALIZED (
        SELECT *, CASE WHEN billing_boundary(anchor, every, next + 1, zone) > now THEN next
                       ELSE billing_place_at(anchor, every, next + 1, zone, now) END AS place
          FROM asked
    ), due AS MATERIALIZED (
        SELECT *, place + first AS index, billing_boundary(anchor, every, place, zone) AS starts,
               billing_boundary(anchor, every, place + 1, zone) AS ends,
               $4 || billing_id_tail(sandbox, random) AS tail
          FROM placed
    ), lots AS MATERIALIZED (
        SELECT g.connection_id, g.id, g.pool, g.remaining, g.origin_at, g.effective_at,
               CASE WHEN g.expires_at <= d.now THEN g.expires_at END AS over_at,
               d.now, d.starts, d.rolls, d.cap, d.ends_bundles
          FROM due d JOIN billing_creditgrant g ON g.connection_id = d.connection_id
         WHERE NOT g.is_spent
    ), parts AS MATERIALIZED (
        SELECT connection_id, 1 AS phase, over_at AS at, id AS key, 0 AS part, 'expire' AS kind,
               -remaining AS amount, over_at AS moment, origin_at
          FROM lots WHERE over_at IS NOT NULL
        UNION ALL
        SELECT l.connection_id, 2, l.origin_at, l.id, part.part,
               CASE part.part WHEN 0 THEN 'expire' ELSE 'roll' END,
               -CASE part.part WHEN 0 THEN l.lost ELSE l.remaining - l.lost END, l.now, l.origin_at
          FROM (SELECT lots.*, LEAST(remaining, GREATEST(
                           sum(remaining) OVER whole - cap - (sum(remaining) OVER upto - remaining),
                           0)) AS lost
                  FROM lots
                 WHERE rolls AND pool = 1 AND over_at IS NULL
                   AND billing_has_begun(effective_at, now)
                WINDOW upto AS (PARTITION BY connection_id ORDER BY origin_at, id),
                       whole AS (PARTITION BY connection_id)) l,
               (VALUES (0), (1)) part (part)
         WHERE CASE part.part WHEN 0 THEN l.lost ELSE l.remaining - l.lost END <> 0
        UNION ALL
        SELECT connection_id, CASE pool WHEN 1 THEN 2 ELSE 4 END, origin_at, id, 0, 'expire',
               -remaining, now, origin_at
          FROM lots
         WHERE over_at IS NULL
           AND (pool = 1 AND NOT rolls OR pool = 2 AND ends_bundles AND effective_at < starts)
    ), lines AS MATERIALIZED (
        SELECT x.*, d.entry_count + row_number() OVER turns AS seq,
               d.balance + sum(x.amount) OVER turns AS running, d.merchant_id, d.low_mark
          FROM (SELECT * FROM parts
                UNION ALL
                SELECT d.connection_id, 3, NULL, (d.tail || '2')::uuid, 0, 'roll', r.amount, d.now,
                       r.origin_at
                  FROM due d JOIN (
                        SELECT connection_id, -sum(amount) AS amount, min(at) AS origin_at
                          FROM parts WHERE phase = 2 AND kind = 'roll' GROUP BY connection_id) r
                    ON r.connection_id = d.connection_id
                UNION ALL
                SELECT connection_id, 5, NULL, (tail || '3')::uuid, 0, 'grant', included, now, now
                  FROM due WHERE included > 0) x
          JOIN due d ON d.connection_id = x.connection_id
        WINDOW turns AS (PARTITION BY x.connection_id ORDER BY x.phase, x.at, x.key, x.part)
    ), heads AS MATERIALIZED (
        -- Since when a balance is at 0 or below its mark: after the last line that was above.
        SELECT connection_id, max(seq) AS seq, sum(amount) AS moved,
               bool_or(above) AS was_above, bool_or(high) AS was_high,
               min(moment) FILTER (WHERE seq = last_above + 1) AS depleted_at,
               min(moment) FILTER (WHERE seq = last_high + 1) AS low_at
          FROM (SELECT l.connection_id, l.seq, l.amount, l.moment, l.running > 0 AS above,
                       l.running >= l.low_mark AS high,
                       COALESCE(max(l.seq) FILTER (WHERE l.running > 0) OVER whole,
                                min(l.seq) OVER whole - 1) AS last_above,
                       COALESCE(max(l.seq) FILTER (WHERE l.running >= l.low_mark) OVER whole,
                                min(l.seq) OVER whole - 1) AS last_high
                  FROM lines l WINDOW whole AS (PARTITION BY l.connection_id)) l
         GROUP BY connection_id
    ), opened AS (
        INSERT INTO billing_cycle (
            id, merchant_id, subscription_id, index, start, "end", state, created_at,
            plan_id, anchor, place, time_zone, unused_credit, unused_value, owed)
        SELECT (left(tail, 16) || lpad(to_hex(missed), 4, '0') || right(tail, 11) || '0')::uuid,
               merchant_id, subscription_id, first + missed,
               billing_boundary(anchor, every, missed, zone),
               billing_boundary(anchor, every, missed + 1, zone), 'skipped', now,
               plan_id, anchor, missed, zone, 0, 0, 0
          FROM due, generate_series(next, place - 1) missed
         WHERE next < place
        UNION ALL
        SELECT (tail || '1')::uuid, merchant_id, subscription_id, index, starts, ends, 'granted',
               now, plan_id, anchor, place, zone, 0, 0, 0
          FROM due
    ), moved AS (
        UPDATE billing_subscription s
           SET cycle_index = d.index, cycle_start = d.starts, cycle_end = d.ends, attempts = 0,
               past_due_since = NULL
          FROM due d WHERE s.id = d.subscription_id
    ), drawn AS (
        UPDATE billing_creditgrant g SET remaining = g.remaining + t.amount
          FROM (SELECT key, sum(amount) AS amount FROM parts GROUP BY key) t
         WHERE g.id = t.key
    ), granted AS (
        INSERT INTO billing_creditgrant (
            id, merchant_id, connection_id, pool, source, amount, remaining, priority, effective_at,
            expires_at, origin_at, cycle_id, reason, actor, created_at)
        SELECT l.key, d.merchant_id, d.connection_id, 1,
               CASE l.phase WHEN 3 THEN 'rollover' ELSE 'cycle' END, l.amount, l.amount, 0, d.now,
               CASE WHEN l.phase = 5 AND NOT d.rolls THEN GREATEST(d.ends, d.now) END, l.origin_at,
               (d.tail || '1')::uuid, '', '', d.now
          FROM lines l JOIN due d ON d.connection_id = l.connection_id WHERE l.phase IN (3, 5)
    ), entered AS (
        INSERT INTO billing_ledgerentry (
            merchant_id, connection_id, seq, kind, amount, balance_after, grant_id, reason, actor,
            occurred_at)
        SELECT merchant_id, connection_id, seq, kind, amount, running, key, '', '', moment
          FROM lines ORDER BY connection_id, seq
    ), headed AS (
        UPDATE billing_connection c
           SET cycle_overage = 0, low_mark = d.low_mark,
               entry_count = COALESCE(h.seq, c.entry_count),
               balance = c.balance + COALESCE(h.moved, 0),
               depleted_at = CASE WHEN h.seq IS NULL THEN c.depleted_at
                                  WHEN c.balance + h.moved > 0 THEN NULL
                                  WHEN h.was_above THEN h.depleted_at
                                  ELSE COALESCE(c.depleted_at, h.depleted_at) END,
               depleted_told = c.depleted_told
                   AND (h.seq IS NULL OR c.balance + h.moved <= 0 AND NOT h.was_above),
               low_at = CASE WHEN h.seq IS NULL THEN c.low_at
                             WHEN c.balance + h.moved < d.low_mark AND h.was_high THEN h.low_at
                             WHEN c.balance + h.moved < d.low_mark
                             THEN COALESCE(c.low_at, h.low_at) END,
               low_told = c.low_told AND (h.seq IS NULL OR COALESCE(
                   c.balance + h.moved < d.low_mark AND NOT h.was_high, false))
          FROM due d LEFT JOIN heads h ON h.connection_id = d.connection_id
         WHERE c.id = d.connection_id
    ), told AS (
        INSERT INTO billing_event (id, merchant_id, name, connection_id, data, created_at)
        SELECT (d.tail || '4')::uuid, d.merchant_id, 'subscription.renewed', d.connection_id,
               jsonb_build_object(
                   'subscription_id', billing_public_id('sub', d.subscription_id),
                   'plan', d.plan_name, 'cycle_start_at', billing_iso(d.starts),
                   'cycle_end_at', billing_iso(d.ends),
                   'balance', (d.balance + COALESCE(h.moved, 0))::numeric(22, 10)::text,
                   'currency', d.currency), d.now
          FROM due d LEFT JOIN heads h ON h.connection_id = d.connection_id
    )
    SELECT count(*) FROM due $q$
    INTO v_count
    USING v_connections, p_real_now, p_zones,
          lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0');
    RETURN v_count;
END
$$;
