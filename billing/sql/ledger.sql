-- The ledger: the only writer of billing_ledgerentry, of a grant's remainder and of the money
-- columns of billing_connection (`held` beside holds.sql). Called by billing/ledger.py and by meters'
-- charge.
--
-- Every function here expects the connection's row to be locked by its transaction
-- (billing_lock). A line belongs to a grant, or (grant null) to the debt. After any of them:
--   sum of a grant's lines = its remainder; sum of the lines without a grant = -debt;
--   balance = sum of all lines; sequences dense.
-- A line that moves nothing is not written. Each line also keeps `depleted_at` and `low_at`: since
-- when the balance is at 0 or below, and below the mark; who is told of it is billing.depletion's.

CREATE OR REPLACE FUNCTION billing_lock(p_merchant uuid, p_connection uuid)
RETURNS SETOF billing_connection LANGUAGE sql AS $$
    SELECT * FROM billing_connection
     WHERE id = p_connection AND merchant_id = p_merchant
       FOR NO KEY UPDATE
$$;

-- Append one line and move its account and the head with it. Returns the balance after it.
CREATE OR REPLACE FUNCTION billing_append(
    p_connection uuid, p_kind text, p_amount numeric, p_grant uuid, p_request uuid,
    p_payment uuid, p_reason text, p_actor text, p_now timestamptz
) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    head record;
BEGIN
    IF p_amount = 0 THEN
        RETURN (SELECT balance FROM billing_connection WHERE id = p_connection);
    END IF;
    UPDATE billing_connection
       SET entry_count = entry_count + 1,
           balance = balance + p_amount,
           debt = CASE WHEN p_grant IS NULL THEN debt - p_amount ELSE debt END,
           depleted_at = CASE WHEN balance + p_amount <= 0 THEN COALESCE(depleted_at, p_now) END,
           depleted_told = depleted_told AND balance + p_amount <= 0,
           low_at = CASE WHEN balance + p_amount < low_mark THEN COALESCE(low_at, p_now) END,
           low_told = low_told AND COALESCE(balance + p_amount < low_mark, false)
     WHERE id = p_connection
    RETURNING merchant_id, entry_count, balance INTO STRICT head;
    IF p_grant IS NOT NULL THEN
        UPDATE billing_creditgrant SET remaining = remaining + p_amount
         WHERE id = p_grant AND connection_id = p_connection;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'grant % is not of connection %', p_grant, p_connection;
        END IF;
    END IF;
    INSERT INTO billing_ledgerentry (
        merchant_id, connection_id, seq, kind, amount, balance_after, grant_id, request_id,
        payment_id, reason, actor, occurred_at)
    VALUES (
        head.merchant_id, p_connection, head.entry_count, p_kind, p_amount, head.balance, p_grant,
        p_request, p_payment, p_reason, p_actor, p_now);
    RETURN head.balance;
END
$$;

-- Enter the end of every grant whose life is over. Returns the sum that ended.
CREATE OR REPLACE FUNCTION billing_expire(p_connection uuid, p_now timestamptz)
RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    lot record;
    ended numeric := 0;
BEGIN
    FOR lot IN
        SELECT id, remaining, expires_at FROM billing_creditgrant
         WHERE connection_id = p_connection AND NOT is_spent AND expires_at <= p_now
         ORDER BY expires_at, id
    LOOP
        PERFORM billing_append(p_connection, 'expire', -lot.remaining, lot.id, NULL, NULL,
                               '', '', lot.expires_at);
        ended := ended + lot.remaining;
    END LOOP;
    RETURN ended;
END
$$;

-- Whether a grant's life has begun at an instant. The machines of an installation need not agree to
-- the second (lava/clocks.py stops one that is a minute off the database, so two of them may be two
-- apart): credits that one has given are there for all.
CREATE OR REPLACE FUNCTION billing_has_begun(p_effective_at timestamptz, p_now timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT p_effective_at <= p_now + interval '2 minutes'
$$;

-- Pay debt out of live grants, in the order of the draw: two lines a grant, so that it is seen.
-- What an open overage charge collects from the card is left to it. Returns the sum paid.
CREATE OR REPLACE FUNCTION billing_pay_debt(p_connection uuid, p_now timestamptz)
RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    lot record;
    due numeric;
    take numeric;
    paid numeric := 0;
BEGIN
    SELECT debt - collecting INTO due FROM billing_connection WHERE id = p_connection;
    FOR lot IN
        SELECT id, remaining FROM billing_creditgrant
         WHERE connection_id = p_connection AND NOT is_spent
           AND billing_has_begun(effective_at, p_now)
           AND (expires_at IS NULL OR expires_at > p_now)
         ORDER BY priority, expires_at NULLS LAST, pool, origin_at, id
    LOOP
        EXIT WHEN due <= 0;
        take := LEAST(due, lot.remaining);
        PERFORM billing_append(p_connection, 'debt', -take, lot.id, NULL, NULL, '', '', p_now);
        PERFORM billing_append(p_connection, 'debt', take, NULL, NULL, NULL, '', '', p_now);
        due := due - take;
        paid := paid + take;
    END LOOP;
    RETURN paid;
END
$$;

-- Add a lot of credits; debt is paid first out of it.
CREATE OR REPLACE FUNCTION billing_grant(
    p_id uuid, p_connection uuid, p_pool int, p_source text, p_amount numeric, p_priority int,
    p_expires_at timestamptz, p_origin_at timestamptz, p_cycle uuid, p_payment uuid,
    p_bundle uuid, p_reason text, p_actor text, p_now timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM billing_expire(p_connection, p_now);
    INSERT INTO billing_creditgrant (
        id, merchant_id, connection_id, pool, source, amount, remaining, priority, effective_at,
        expires_at, origin_at, cycle_id, payment_id, bundle_id, reason, actor, created_at)
    SELECT p_id, merchant_id, id, p_pool, p_source, p_amount, 0, p_priority, p_now,
           p_expires_at, p_origin_at, p_cycle, p_payment, p_bundle, p_reason, p_actor, p_now
      FROM billing_connection WHERE id = p_connection;
    PERFORM billing_append(
        p_connection, CASE p_source WHEN 'rollover' THEN 'roll' ELSE 'grant' END, p_amount, p_id,
        NULL, p_payment, p_reason, p_actor, p_now);
    PERFORM billing_pay_debt(p_connection, p_now);
END
$$;

-- The one of the version before takes another name: a charge that runs while a new version is brought
-- in may have found it already, and would fail where it is gone.
DO $$
BEGIN
    IF to_regprocedure('billing_spend(uuid, numeric, uuid, timestamptz)') IS NOT NULL THEN
        ALTER FUNCTION billing_spend(uuid, numeric, uuid, timestamptz)
            RENAME TO billing_spend_before;
    END IF;
END
$$;

-- Draw a fee from the grants in order; what they do not cover becomes debt. `p_freed` is what a hold
-- that ends with it (billing_close_hold) had set aside.
-- Gives what is left after it, and the draws as [[grant id or null, amount as text], ...].
CREATE OR REPLACE FUNCTION billing_spend(
    p_connection uuid, p_amount numeric, p_request uuid, p_now timestamptz,
    p_freed numeric DEFAULT 0,
    OUT cycle_remaining numeric, OUT bundle_remaining numeric, OUT debt numeric,
    OUT draws jsonb
) LANGUAGE plpgsql AS $$
DECLARE
    head record;
    lot record;
    need numeric := p_amount;
    take numeric;
    line bigint;
    running numeric;
BEGIN
    SELECT c.merchant_id, c.entry_count, c.balance, c.debt, EXISTS (
               SELECT 1 FROM billing_creditgrant
                WHERE connection_id = c.id AND NOT is_spent AND expires_at <= p_now) AS has_ended
      INTO STRICT head
      FROM billing_connection c WHERE c.id = p_connection;
    IF head.has_ended THEN
        PERFORM billing_expire(p_connection, p_now);
        SELECT c.merchant_id, c.entry_count, c.balance, c.debt INTO STRICT head
          FROM billing_connection c WHERE c.id = p_connection;
    END IF;
    line := head.entry_count;
    running := head.balance;
    cycle_remaining := 0;
    bundle_remaining := 0;
    draws := '[]';
    FOR lot IN
        SELECT id, pool, remaining FROM billing_creditgrant
         WHERE connection_id = p_connection AND NOT is_spent
           AND billing_has_begun(effective_at, p_now)
         ORDER BY priority, expires_at NULLS LAST, pool, origin_at, id
    LOOP
        take := LEAST(need, lot.remaining);
        IF take > 0 THEN
            need := need - take;
            line := line + 1;
            running := running - take;
            UPDATE billing_creditgrant SET remaining = remaining - take WHERE id = lot.id;
            INSERT INTO billing_ledgerentry (
                merchant_id, connection_id, seq, kind, amount, balance_after, grant_id,
                request_id, reason, actor, occurred_at)
            VALUES (head.merchant_id, p_connection, line, 'usage', -take, running, lot.id,
                    p_request, '', '', p_now);
            draws := draws || jsonb_build_array(jsonb_build_array(lot.id, take::text));
        END IF;
        IF lot.pool = 1 THEN
            cycle_remaining := cycle_remaining + lot.remaining - take;
        ELSE
            bundle_remaining := bundle_remaining + lot.remaining - take;
        END IF;
    END LOOP;
    debt := head.debt + need;
    IF need > 0 THEN
        line := line + 1;
        running := running - need;
        INSERT INTO billing_ledgerentry (
            merchant_id, connection_id, seq, kind, amount, balance_after, grant_id,
            request_id, reason, actor, occurred_at)
        VALUES (head.merchant_id, p_connection, line, 'usage', -need, running, NULL,
                p_request, '', '', p_now);
        draws := draws || jsonb_build_array(jsonb_build_array(NULL, need::text));
    END IF;
    IF p_amount > 0 THEN
        UPDATE billing_connection c
           SET entry_count = line, balance = running, debt = billing_spend.debt,
               held = c.held - p_freed, cycle_overage = c.cycle_overage + need,
               depleted_at = CASE WHEN running <= 0 THEN COALESCE(c.depleted_at, p_now) END,
               depleted_told = c.depleted_told AND running <= 0,
               low_at = CASE WHEN running < c.low_mark THEN COALESCE(c.low_at, p_now) END,
               low_told = c.low_told AND COALESCE(running < c.low_mark, false)
         WHERE c.id = p_connection;
    ELSIF p_freed > 0 THEN
        UPDATE billing_connection SET held = held - p_freed WHERE id = p_connection;
    END IF;
END
$$;

-- Draw many amounts, as billing_spend would one by one in their order, in sets: amounts and grants
-- are stretches of one line, and each amount draws from the grants that its stretch lies over.
-- The connections are locked. `balance` is the connection's after the draw; `place` counts from 1.
CREATE OR REPLACE FUNCTION billing_spend_set(
    p_connections uuid[], p_requests uuid[], p_amounts numeric[], p_now timestamptz
) RETURNS TABLE (
    place bigint, cycle_remaining numeric, bundle_remaining numeric, debt numeric, draws jsonb,
    balance numeric
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM billing_expire(o.id, p_now) FROM (
        SELECT DISTINCT g.connection_id AS id FROM billing_creditgrant g
         WHERE g.connection_id = ANY (p_connections) AND NOT g.is_spent AND g.expires_at <= p_now
    ) o;
    -- As text, so that it is planned for as many amounts as there are.
    RETURN QUERY EXECUTE $q$
    WITH lines AS MATERIALIZED (
        SELECT l.place, l.connection, l.request, l.amount,
               sum(l.amount) OVER (PARTITION BY l.connection ORDER BY l.place) AS upto
          FROM unnest($1, $2, $3) WITH ORDINALITY AS l (connection, request, amount, place)
    ), heads AS MATERIALIZED (
        SELECT c.id, c.merchant_id, c.entry_count, c.balance, c.debt
          FROM billing_connection c WHERE c.id = ANY ($1)
    ), lots AS MATERIALIZED (
        SELECT g.connection_id AS connection, g.id, g.pool, g.remaining,
               row_number() OVER turns AS turn, sum(g.remaining) OVER turns AS upto
          FROM billing_creditgrant g
         WHERE g.connection_id = ANY ($1) AND NOT g.is_spent
           AND billing_has_begun(g.effective_at, $4)
        WINDOW turns AS (PARTITION BY g.connection_id
                         ORDER BY g.priority, g.expires_at NULLS LAST, g.pool, g.origin_at, g.id)
    ), funds AS MATERIALIZED (
        SELECT o.connection, sum(o.remaining) AS total FROM lots o GROUP BY o.connection
    ), takes AS (
        SELECT l.place, l.connection, l.request, o.id AS lot, o.turn,
               LEAST(l.upto, o.upto)
                   - GREATEST(l.upto - l.amount, o.upto - o.remaining) AS take
          FROM lines l JOIN lots o ON o.connection = l.connection
           AND o.upto > l.upto - l.amount AND o.upto - o.remaining < l.upto
         WHERE l.amount > 0
        UNION ALL
        SELECT l.place, l.connection, l.request, NULL, NULL,
               l.upto - GREATEST(l.upto - l.amount, COALESCE(f.total, 0))
          FROM lines l LEFT JOIN funds f ON f.connection = l.connection
         WHERE l.amount > 0 AND l.upto > COALESCE(f.total, 0)
    ), entries AS MATERIALIZED (
        SELECT t.*, row_number() OVER turns AS n, sum(t.take) OVER turns AS upto
          FROM takes t
        WINDOW turns AS (PARTITION BY t.connection ORDER BY t.place, t.turn NULLS LAST)
    ), entered AS (
        INSERT INTO billing_ledgerentry (
            merchant_id, connection_id, seq, kind, amount, balance_after, grant_id, request_id,
            reason, actor, occurred_at)
        SELECT h.merchant_id, e.connection, h.entry_count + e.n, 'usage', -e.take,
               h.balance - e.upto, e.lot, e.request, '', '', $4
          FROM entries e JOIN heads h ON h.id = e.connection
         ORDER BY e.place, e.n
    ), drawn AS (
        UPDATE billing_creditgrant g SET remaining = g.remaining - d.take
          FROM (SELECT e.lot, sum(e.take) AS take FROM entries e
                 WHERE e.lot IS NOT NULL GROUP BY e.lot) d
         WHERE g.id = d.lot
    ), moved AS (
        UPDATE billing_connection c
           SET entry_count = c.entry_count + m.n, balance = c.balance - m.take,
               debt = c.debt + m.owed, cycle_overage = c.cycle_overage + m.owed,
               depleted_at = CASE WHEN c.balance - m.take <= 0
                                  THEN COALESCE(c.depleted_at, $4) END,
               depleted_told = c.depleted_told AND c.balance - m.take <= 0,
               low_at = CASE WHEN c.balance - m.take < c.low_mark THEN COALESCE(c.low_at, $4) END,
               low_told = c.low_told AND COALESCE(c.balance - m.take < c.low_mark, false)
          FROM (SELECT e.connection, count(*) AS n, sum(e.take) AS take,
                       COALESCE(sum(e.take) FILTER (WHERE e.lot IS NULL), 0) AS owed
                  FROM entries e GROUP BY e.connection) m
         WHERE c.id = m.connection
    ), told AS (
        SELECT e.place,
               jsonb_agg(jsonb_build_array(e.lot, e.take::text) ORDER BY e.n) AS draws
          FROM entries e GROUP BY e.place
    ), remains AS (
        SELECT l.place,
               COALESCE(sum(LEAST(o.remaining, GREATEST(o.upto - l.upto, 0)))
                        FILTER (WHERE o.pool = 1), 0) AS cycle,
               COALESCE(sum(LEAST(o.remaining, GREATEST(o.upto - l.upto, 0)))
                        FILTER (WHERE o.pool <> 1), 0) AS bundle
          FROM lines l LEFT JOIN lots o ON o.connection = l.connection
         GROUP BY l.place
    )
    SELECT l.place, r.cycle, r.bundle,
           h.debt + GREATEST(l.upto - COALESCE(f.total, 0), 0),
           COALESCE(t.draws, '[]'), h.balance - l.upto
      FROM lines l
      JOIN remains r ON r.place = l.place
      JOIN heads h ON h.id = l.connection
      LEFT JOIN funds f ON f.connection = l.connection
      LEFT JOIN told t ON t.place = l.place
     ORDER BY l.place $q$
    USING p_connections, p_requests, p_amounts, p_now;
END
$$;

-- Whether what returns to a grant is over: its life has ended, what was left of it was ended (or
-- cut by a cap) after the line `p_seq`, or, where nothing was left to end, what would have ended
-- it has happened since: its subscription is over, or a cycle was opened after one whose plan does
-- not carry its pool on. Credits that rolled over are not over, nor is what an upgrade left of those
-- it took in payment, nor are bundles after one.
CREATE OR REPLACE FUNCTION billing_has_ended(
    p_grant uuid, p_connection uuid, p_seq bigint, p_now timestamptz
) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(g.expires_at <= p_now, false)
        OR EXISTS (SELECT 1 FROM billing_ledgerentry e
                    WHERE e.connection_id = p_connection AND e.seq > p_seq
                      AND e.grant_id = g.id AND e.kind = 'expire'
                      AND e.reason NOT LIKE 'Given in payment for %')
        OR EXISTS (SELECT 1 FROM billing_subscription s JOIN billing_plan p ON p.id = s.plan_id
                    WHERE s.connection_id = p_connection AND s.ended_at >= g.effective_at
                      AND (g.pool = 1 OR p.bundle_rollover_type = 'none'))
        OR EXISTS (SELECT 1 FROM billing_subscription s
                     JOIN billing_cycle y ON y.subscription_id = s.id
                     JOIN LATERAL (
                          SELECT b.plan_id, b.created_at FROM billing_cycle b
                           WHERE b.subscription_id = s.id AND b.index < y.index
                             AND b.state = 'granted'
                           ORDER BY b.index DESC LIMIT 1) b ON true
                     -- Moved at once, the cycle ended on the terms of the version it was moved to.
                     JOIN billing_plan p ON p.id = COALESCE((
                          SELECT v.to_plan_id FROM billing_planmove v
                           WHERE v.from_plan_id = b.plan_id AND v.to_plan_id = y.plan_id
                             AND v."when" = 'at_once' AND v.created_at <= y.created_at
                             AND COALESCE(v.finished_at, 'infinity') >= b.created_at
                           LIMIT 1), b.plan_id)
                     LEFT JOIN billing_payment m ON m.id = y.payment_id
                    WHERE s.connection_id = p_connection AND y.state = 'granted'
                      AND y.id IS DISTINCT FROM g.cycle_id
                      AND CASE g.pool
                          WHEN 1 THEN p.rollover_type = 'none' AND y.created_at >= g.effective_at
                          ELSE p.bundle_rollover_type = 'none' AND y.start > g.effective_at
                               AND m.purpose IS DISTINCT FROM 'upgrade'
                               AND y.unused_value = 0 AND y.owed = 0 END)
      FROM billing_creditgrant g WHERE g.id = p_grant
$$;

-- Give back what a request drew, once: each draw to the grant it came from; a grant that has ended
-- meanwhile ends again at once. What became debt is owed no more; the part of it that is paid
-- already, or that an open charge is collecting, becomes a grant of its own (`p_returned`) without
-- end, since somebody's money stands behind it. Then debt is paid first out of what came back.
-- Returns the sum given back; 0 when it was given back before.
CREATE OR REPLACE FUNCTION billing_unspend(
    p_connection uuid, p_request uuid, p_returned uuid, p_in_cycle boolean, p_reason text,
    p_actor text, p_now timestamptz
) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    draw record;
    forgiven numeric;
    given numeric := 0;
BEGIN
    IF EXISTS (SELECT 1 FROM billing_ledgerentry
                WHERE connection_id = p_connection AND request_id = p_request
                  AND kind IN ('refund', 'grant')) THEN
        RETURN 0;
    END IF;
    PERFORM billing_expire(p_connection, p_now);
    FOR draw IN
        SELECT seq, grant_id, -amount AS amount FROM billing_ledgerentry
         WHERE connection_id = p_connection AND request_id = p_request AND kind = 'usage'
         ORDER BY seq
    LOOP
        given := given + draw.amount;
        IF draw.grant_id IS NOT NULL THEN
            PERFORM billing_append(p_connection, 'refund', draw.amount, draw.grant_id, p_request,
                                   NULL, p_reason, p_actor, p_now);
            IF billing_has_ended(draw.grant_id, p_connection, draw.seq, p_now) THEN
                PERFORM billing_append(p_connection, 'expire', -draw.amount, draw.grant_id,
                                       p_request, NULL, '', '', p_now);
            END IF;
            CONTINUE;
        END IF;
        SELECT LEAST(draw.amount, debt - collecting) INTO STRICT forgiven
          FROM billing_connection WHERE id = p_connection;
        PERFORM billing_append(p_connection, 'refund', forgiven, NULL, p_request, NULL,
                               p_reason, p_actor, p_now);
        IF forgiven < draw.amount THEN
            INSERT INTO billing_creditgrant (
                id, merchant_id, connection_id, pool, source, amount, remaining, priority,
                effective_at, origin_at, reason, actor, created_at)
            SELECT p_returned, merchant_id, id, 2, 'returned', draw.amount - forgiven, 0, 0,
                   p_now, p_now, p_reason, p_actor, p_now
              FROM billing_connection WHERE id = p_connection;
            PERFORM billing_append(p_connection, 'grant', draw.amount - forgiven, p_returned,
                                   p_request, NULL, p_reason, p_actor, p_now);
        END IF;
        IF p_in_cycle THEN
            UPDATE billing_connection SET cycle_overage = cycle_overage - draw.amount
             WHERE id = p_connection;
        END IF;
    END LOOP;
    PERFORM billing_pay_debt(p_connection, p_now);
    RETURN given;
END
$$;
