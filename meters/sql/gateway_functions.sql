-- The gateway's three steps, each one trip to the database: who calls (meters_caller), set aside
-- what it may cost (meters_hold), charge what it did cost (meters_settle); or, in place of the last
-- two, what was refused (meters_blocked). Called by
-- meters/gateway/store.py. The only writer of meters_gatewaycall, of meters_requestcost and of a
-- token's counters. Locks, in this order: connection, call, token.
--
-- A process may keep what meters_caller told: meters_hold looks again at what time or a revocation
-- ends (the key, the token), and everything else that a caller is told has a number, the merchant's
-- epoch, which every change of it moves on (gateway_epochs.sql). A hold that was asked with another
-- epoch is `stale`: nothing was written, ask meters_caller again.
--
-- All of these find rows by their keys, so they are planned without scans of whole tables: a plan
-- made while a table was empty would read it whole until somebody analyses it.

-- Not taken from those that have found it, where it answers what it answered before.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_proc p WHERE p.proname = 'meters_caller'
                AND 'epoch' <> ALL (p.proargnames) AND pg_function_is_visible(p.oid)) THEN
        DROP FUNCTION meters_caller(bytea, bytea, text, timestamptz);
    END IF;
END
$$;
DROP FUNCTION IF EXISTS meters_count_token(uuid, numeric, text, timestamptz, timestamptz);
DROP FUNCTION IF EXISTS meters_hold(
    uuid, uuid, uuid, uuid, uuid, timestamptz, text, boolean, text, text, text, boolean, boolean,
    boolean, bigint, bigint, bigint, numeric, numeric, numeric, numeric, boolean, interval, jsonb);

-- How often what callers of a merchant are told has changed.
CREATE OR REPLACE FUNCTION meters_epoch(p_merchant uuid) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN COALESCE((SELECT e.epoch FROM meters_gatewayepoch e WHERE e.merchant_id = p_merchant), 0);
END
$$;

-- Who calls: the merchant of a key, or of a token with what it may do; and the merchant's own
-- providers, keys and prices as JSON texts. Reads only.
CREATE OR REPLACE FUNCTION meters_caller(
    p_key_hash bytea, p_token_hash bytea, p_meter text, p_real_now timestamptz,
    OUT outcome text, OUT merchant uuid, OUT currency text, OUT clock_offset interval,
    OUT token uuid, OUT connection uuid, OUT meter uuid, OUT needs_cost boolean,
    OUT allowed_models text[], OUT allowed_providers text[],
    OUT providers text, OUT keys text, OUT prices text, OUT epoch bigint
) LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    held meters_forwardtoken;
    moment timestamptz;
BEGIN
    IF p_token_hash IS NULL THEN
        SELECT k.merchant_id INTO merchant FROM billing_secretkey k
         WHERE k.secret_hash = p_key_hash AND k.revoked_at IS NULL;
    ELSE
        SELECT * INTO held FROM meters_forwardtoken t
         WHERE t.secret_hash = p_token_hash AND t.revoked_at IS NULL;
        merchant := held.merchant_id;
    END IF;
    SELECT m.currency, m.clock_offset INTO currency, clock_offset
      FROM billing_merchant m WHERE m.id = merchant;
    IF NOT FOUND THEN outcome := 'unauthenticated'; RETURN; END IF;
    moment := p_real_now + clock_offset;
    epoch := meters_epoch(merchant);
    IF held.id IS NOT NULL THEN
        IF held.expires_at <= moment THEN outcome := 'token_expired'; RETURN; END IF;
        IF held.status <> 'active' THEN outcome := 'token_paused'; RETURN; END IF;
        token := held.id;
        connection := held.connection_id;
        meter := held.meter_id;
        allowed_models := held.allowed_models;
        allowed_providers := held.allowed_providers;
    END IF;
    IF meter IS NOT NULL OR p_meter <> '' THEN
        SELECT r.id, p.rate_type = 'percentage' OR p.base_cost_payer = 'wallet'
          INTO meter, needs_cost
          FROM meters_meter r JOIN meters_meterprice p ON p.id = r.price_id
         WHERE r.merchant_id = merchant AND r.archived_at IS NULL
           AND CASE WHEN meter IS NULL THEN r.slug = p_meter ELSE r.id = meter END;
        IF NOT FOUND THEN outcome := 'meter_not_found'; RETURN; END IF;
    END IF;
    SELECT jsonb_agg(to_jsonb(p) ORDER BY p.id)::text INTO providers FROM meters_provider p
     WHERE p.merchant_id = merchant AND p.archived_at IS NULL;
    SELECT jsonb_object_agg(k.provider, jsonb_build_array(k.origin, encode(k.sealed, 'escape')))
           ::text INTO keys
      FROM meters_providerkey k WHERE k.merchant_id = merchant AND k.revoked_at IS NULL;
    SELECT jsonb_agg(to_jsonb(p) ORDER BY p.id)::text INTO prices FROM meters_modelprice p
     WHERE p.merchant_id = merchant;
    outcome := 'ok';
END
$$;

-- When the running cycle of a limit began, on the merchant's calendar; null: never ends.
CREATE OR REPLACE FUNCTION meters_limit_start(p_cycle text, p_zone text, p_now timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE p_cycle
        WHEN 'daily' THEN date_trunc('day', p_now, p_zone)
        WHEN 'weekly' THEN date_trunc('week', p_now, p_zone)
        WHEN 'monthly' THEN date_trunc('month', p_now, p_zone) END
$$;

-- What a limit has counted in its running cycle, which began at `p_start`; `p_since` is when the cycle
-- began that was counted last. A call's instant is taken before it waits for its token, so one of
-- before the turn may come after: it counts in the cycle that runs, which turns once. A limit of all
-- time counts all.
CREATE OR REPLACE FUNCTION meters_limit_counted(
    p_start timestamptz, p_since timestamptz, p_counted numeric, p_total numeric
) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_start IS NULL THEN p_total WHEN p_since >= p_start THEN p_counted ELSE 0 END
$$;

CREATE OR REPLACE FUNCTION meters_limit_since(p_start timestamptz, p_since timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_start IS NOT NULL THEN GREATEST(p_start, p_since) END
$$;

-- Count a call against a token's limits; `outcome` is `ok` or the limit that is reached, and then
-- nothing is written. `p_again`: it was let through before, no limit stops it now. The caller holds
-- the connection's lock, if there is one.
CREATE OR REPLACE FUNCTION meters_count_token(
    p_token uuid, p_amount numeric, p_zone text, p_now timestamptz, p_real_now timestamptz,
    p_again boolean DEFAULT false,
    OUT outcome text, OUT detail text
) LANGUAGE plpgsql AS $$
DECLARE
    t record;
    v_spend_start timestamptz;
    v_request_start timestamptz;
    v_level numeric;
BEGIN
    SELECT f.status, f.revoked_at, f.expires_at, f.spend_limit, f.spend_cycle, f.spend_cycle_start,
           f.spent, f.total_spent, f.held, f.request_limit, f.request_cycle, f.request_cycle_start,
           f.requests, f.total_requests, f.rpm, f.burst, f.bucket, f.bucket_at
      INTO STRICT t FROM meters_forwardtoken f WHERE f.id = p_token FOR NO KEY UPDATE;
    IF NOT p_again AND t.revoked_at IS NOT NULL THEN outcome := 'unauthenticated'; RETURN; END IF;
    IF NOT p_again AND t.expires_at <= p_now THEN outcome := 'token_expired'; RETURN; END IF;
    IF NOT p_again AND t.status <> 'active' THEN outcome := 'token_paused'; RETURN; END IF;
    v_spend_start := meters_limit_start(t.spend_cycle, p_zone, p_now);
    v_request_start := meters_limit_start(t.request_cycle, p_zone, p_now);
    t.spent := meters_limit_counted(v_spend_start, t.spend_cycle_start, t.spent, t.total_spent);
    t.requests := meters_limit_counted(
        v_request_start, t.request_cycle_start, t.requests, t.total_requests);
    IF NOT p_again AND t.spend_limit IS NOT NULL
       AND (t.spent >= t.spend_limit OR t.spent + t.held + p_amount > t.spend_limit) THEN
        outcome := 'spend_limit_reached'; detail := t.spend_limit::text; RETURN;
    END IF;
    IF NOT p_again AND t.requests >= t.request_limit THEN
        outcome := 'request_limit_reached'; detail := t.request_limit::text; RETURN;
    END IF;
    IF t.rpm IS NOT NULL THEN
        v_level := LEAST(
            COALESCE(t.burst, t.rpm),
            COALESCE(t.bucket + t.rpm * EXTRACT(epoch FROM p_real_now - t.bucket_at) / 60, t.rpm));
        IF v_level < 1 AND NOT p_again THEN
            outcome := 'rate_limited';
            detail := ceil((1 - v_level) * 60 / GREATEST(t.rpm, 1))::text;
            RETURN;
        END IF;
        v_level := GREATEST(v_level - 1, 0);
    END IF;
    UPDATE meters_forwardtoken
       SET spent = t.spent, held = held + p_amount, requests = t.requests + 1,
           spend_cycle_start = meters_limit_since(v_spend_start, t.spend_cycle_start),
           request_cycle_start = meters_limit_since(v_request_start, t.request_cycle_start),
           total_requests = total_requests + 1, bucket = v_level,
           bucket_at = CASE WHEN v_level IS NULL THEN NULL ELSE p_real_now END,
           last_used_at = p_now
     WHERE id = p_token;
    outcome := 'ok';
END
$$;

-- What a version of a price asks the connection for some usage at a position in its tiers.
CREATE OR REPLACE FUNCTION meters_worth(
    p_price meters_meterprice, p_before numeric, p_input_tokens bigint, p_output_tokens bigint,
    p_characters bigint, p_seconds numeric, p_cost numeric
) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT (meters_price(
               p_price.rate_type, p_price.unit, p_price.tier_starts, p_price.tier_rates,
               meters_quantity(p_price.unit, p_price.token_basis, p_input_tokens, p_output_tokens,
                               p_characters, 0, p_seconds, 0),
               p_before, p_cost, p_price.tier_flats, p_price.free_allowance, p_price.package_size,
               p_price.package_rounding, NULL,
               meters_kinds(p_price.tier_kinds, p_input_tokens, p_output_tokens, 0, 0))).fee
         + CASE p_price.base_cost_payer WHEN 'wallet' THEN COALESCE(p_cost, 0) ELSE 0 END
$$;

-- Let a call through: check it, set aside what it may cost, and write it down as running.
-- `p_cap` bounds a hold whose output nobody limited; it never bounds what the input alone costs
-- (`p_floor_cost`: the provider's cost of the input alone). `outcome` is `held` or the code of what
-- was refused; nothing is written unless it is `held`. `fell`: refused for want of credits that an
-- automatic top-up may buy.
CREATE OR REPLACE FUNCTION meters_hold(
    p_id uuid, p_merchant uuid, p_token uuid, p_connection uuid, p_meter uuid,
    p_real_now timestamptz, p_provider text, p_own_key boolean, p_method text, p_endpoint text,
    p_model text, p_stream boolean, p_disabled boolean, p_billed boolean, p_input_tokens bigint,
    p_output_tokens bigint, p_characters bigint, p_seconds numeric, p_cost numeric,
    p_floor_cost numeric, p_cap numeric, p_unpriced boolean, p_life interval,
    p_metadata jsonb, p_key_hash bytea DEFAULT NULL, p_epoch bigint DEFAULT NULL,
    p_again boolean DEFAULT false,
    OUT outcome text, OUT detail text, OUT amount numeric, OUT fell boolean
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    merchant record;
    conn record;
    meter record;
    sub record;
    price meters_meterprice;
    counted record;
    moment timestamptz;
    before numeric := 0;
    available numeric;
    v_hold uuid;
    v_subscription uuid;
    v_reserve numeric;
BEGIN
    amount := 0;
    fell := false;
    SELECT m.id, m.clock_offset, m.time_zone INTO STRICT merchant
      FROM billing_merchant m WHERE m.id = p_merchant;
    moment := p_real_now + merchant.clock_offset;
    IF p_key_hash IS NOT NULL AND NOT p_again THEN
        PERFORM FROM billing_secretkey k
          WHERE k.secret_hash = p_key_hash AND k.merchant_id = merchant.id AND k.revoked_at IS NULL;
        IF NOT FOUND THEN outcome := 'unauthenticated'; RETURN; END IF;
    END IF;
    IF NOT p_again AND p_epoch <> meters_epoch(merchant.id) THEN outcome := 'stale'; RETURN; END IF;
    IF p_connection IS NOT NULL THEN
        SELECT c.id, c.status, c.held, c.cycle_overage INTO conn
          FROM billing_lock(merchant.id, p_connection) c;
        IF NOT FOUND OR conn.status IN ('pending', 'deleted') THEN
            outcome := 'connection_not_found'; RETURN;
        END IF;
        IF conn.status = 'disabled' THEN outcome := 'connection_disabled'; RETURN; END IF;
        SELECT m.id, m.name, m.price_id INTO meter FROM meters_meter m
         WHERE m.merchant_id = merchant.id AND m.id = p_meter AND m.archived_at IS NULL;
        IF NOT FOUND THEN outcome := 'meter_not_found'; RETURN; END IF;
        SELECT s.id, s.cycle_index, s.past_due_since, s.auto_top_up_bundle_id, p.when_depleted,
               p.overage_cap, make_interval(days => p.grace_days) AS grace INTO sub
          FROM billing_subscription s
          JOIN billing_plan p ON p.id = s.plan_id
          JOIN meters_meterplan mp ON mp.plan_id = s.plan_id AND mp.meter_id = meter.id
         WHERE s.connection_id = conn.id AND s.status IN ('active', 'past_due')
           AND NOT (s.pending_change IS NOT DISTINCT FROM 'cancellation'
                    AND s.cycle_end <= moment);
        IF NOT FOUND THEN outcome := 'meter_not_on_plan'; detail := meter.name; RETURN; END IF;
        v_subscription := sub.id;
        IF sub.past_due_since <= moment - sub.grace THEN outcome := 'past_due'; RETURN; END IF;
        SELECT * INTO price FROM meters_meterprice WHERE id = meter.price_id;
        IF p_billed AND NOT p_disabled THEN
            IF (price.rate_type = 'percentage' OR price.base_cost_payer = 'wallet')
               AND p_cost IS NULL THEN
                IF NOT p_unpriced THEN outcome := 'cost_unknown'; RETURN; END IF;
            ELSE
                SELECT quantity INTO before FROM meters_meterposition
                 WHERE connection_id = conn.id AND meter_id = meter.id
                   AND scope = CASE price.tier_window WHEN 'cycle' THEN sub.id ELSE conn.id END
                   AND "window" = CASE price.tier_window
                                  WHEN 'cycle' THEN sub.cycle_index ELSE -1 END;
                amount := meters_worth(
                    price, COALESCE(before, 0), p_input_tokens, p_output_tokens, p_characters,
                    p_seconds, p_cost);
                IF p_cap IS NOT NULL THEN
                    amount := LEAST(amount, GREATEST(p_cap, meters_worth(
                        price, COALESCE(before, 0), p_input_tokens, 0, p_characters, p_seconds,
                        p_floor_cost)));
                END IF;
            END IF;
            IF conn.held + amount >= 1000000000000 THEN
                outcome := 'amount_too_large'; amount := 0; RETURN;
            END IF;
            available := billing_available(conn.id, moment);
            IF NOT p_again AND NOT billing_fits(amount, available, sub.when_depleted, conn.cycle_overage,
                                sub.overage_cap) THEN
                outcome := 'insufficient_credits';
                detail := GREATEST(available, 0)::text;
                fell := sub.auto_top_up_bundle_id IS NOT NULL;
                RETURN;
            END IF;
        END IF;
    END IF;
    v_reserve := CASE WHEN p_connection IS NULL THEN COALESCE(p_cost, 0) ELSE amount END;
    IF p_token IS NOT NULL THEN
        counted := meters_count_token(
            p_token, v_reserve, merchant.time_zone, moment, p_real_now, p_again);
        IF counted.outcome <> 'ok' THEN
            outcome := counted.outcome; detail := counted.detail; amount := 0; RETURN;
        END IF;
    END IF;
    IF p_connection IS NOT NULL AND p_billed AND NOT p_disabled THEN
        v_hold := p_id;
        PERFORM billing_hold(v_hold, conn.id, amount, 'gateway', moment + p_life, moment);
    END IF;
    INSERT INTO meters_gatewaycall (
        id, merchant_id, connection_id, meter_id, price_id, subscription_id, hold_id, token_id,
        status, billing_disabled, provider, own_key, method, endpoint, model, stream, held,
        estimated_input, estimated_output, seen_output, seen_bytes, seen_at, usage, flags, charged,
        http_status, error, overhead_ms, first_byte_ms, total_ms, metadata, created_at)
    VALUES (
        p_id, merchant.id, p_connection, p_meter, price.id, v_subscription, v_hold, p_token, 'pending',
        p_disabled, p_provider, p_own_key, p_method, p_endpoint, p_model, p_stream, v_reserve,
        p_input_tokens, p_output_tokens, 0, 0, p_real_now, '{}', '{}', 0, 0, '', 0, 0, 0,
        p_metadata, moment);
    PERFORM set_config('synchronous_commit', 'off', true);
    outcome := 'held';
END
$$;

-- Settle a call, once: charge what it used, free what it held, write down how it went.
-- `p_billed` false: it failed, or is not billed; what it held is freed and nothing is charged.
-- `outcome` is `settled`, `settled_before`, or `unknown`: no such call is held, nothing was written.
-- `collect` and `fell` as of meters_charge.
CREATE OR REPLACE FUNCTION meters_settle(
    p_id uuid, p_real_now timestamptz, p_request_id text, p_status text, p_billed boolean,
    p_http_status int, p_error text, p_model text, p_usage jsonb, p_input_tokens bigint,
    p_output_tokens bigint, p_characters bigint, p_seconds numeric, p_cost numeric,
    p_cost_source text, p_cost_rates jsonb, p_flags text[], p_bytes bigint, p_overhead_ms int,
    p_first_byte_ms int, p_total_ms int,
    OUT outcome text, OUT charged numeric, OUT cycle_remaining numeric,
    OUT bundle_remaining numeric, OUT debt numeric, OUT collect boolean, OUT fell boolean,
    OUT connection uuid
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    call record;
    done record;
    place record;
    moment timestamptz;
    v_flags text[] := p_flags;
    v_spent numeric;
BEGIN
    collect := false;
    fell := false;
    charged := 0;
    SELECT g.merchant_id, g.connection_id, p_real_now + m.clock_offset AS moment, m.time_zone
      INTO place FROM meters_gatewaycall g JOIN billing_merchant m ON m.id = g.merchant_id
     WHERE g.id = p_id;
    IF NOT FOUND THEN outcome := 'unknown'; RETURN; END IF;
    connection := place.connection_id;
    moment := place.moment;
    IF connection IS NOT NULL THEN PERFORM billing_lock(place.merchant_id, connection); END IF;
    SELECT g.status, g.billing_disabled, g.hold_id, g.token_id, g.price_id, g.subscription_id,
           g.provider, g.held, g.charged, g.metadata
      INTO STRICT call FROM meters_gatewaycall g WHERE g.id = p_id FOR NO KEY UPDATE;
    IF call.status NOT IN ('pending', 'abandoned') THEN
        outcome := 'settled_before';
        charged := call.charged;
        RETURN;
    END IF;
    -- Until something is charged; a record has no fields before it has a row.
    SELECT NULL AS outcome INTO done;
    IF p_billed AND connection IS NOT NULL AND NOT call.billing_disabled THEN
        done := meters_charge(
            p_id, NULL, p_real_now, connection, NULL, NULL, p_request_id,
            sha256(convert_to(p_request_id, 'UTF8')), NULL, p_model, p_input_tokens,
            p_output_tokens, p_characters, 0, p_seconds, 0, p_cost, call.metadata, false,
            LEAST(COALESCE((p_usage ->> 'cache_read')::bigint, 0), p_input_tokens),
            LEAST(COALESCE((p_usage ->> 'cache_write')::bigint, 0),
                  GREATEST(p_input_tokens - COALESCE((p_usage ->> 'cache_read')::bigint, 0), 0)),
            p_hold => call.hold_id, p_merchant => place.merchant_id, p_price => call.price_id,
            p_subscription => call.subscription_id);
        IF done.outcome IN ('charged', 'replayed') THEN
            charged := (done.request).charged;
            cycle_remaining := (done.request).cycle_remaining;
            bundle_remaining := (done.request).bundle_remaining;
            debt := (done.request).debt_after;
            collect := done.collect;
            fell := done.fell;
        ELSE
            -- Nothing could be charged (no cost known, the connection deleted): said, not hidden.
            v_flags := v_flags || left(done.outcome, 20);
        END IF;
    END IF;
    -- A charge has ended it.
    IF call.hold_id IS NOT NULL AND done.outcome IS DISTINCT FROM 'charged' THEN
        PERFORM billing_end_hold(call.hold_id, connection, 'released', moment);
    END IF;
    IF call.token_id IS NOT NULL THEN
        v_spent := CASE WHEN NOT p_billed THEN 0
                        WHEN connection IS NULL THEN COALESCE(p_cost, 0) ELSE charged END;
        UPDATE meters_forwardtoken t
           SET held = t.held - CASE call.status WHEN 'pending' THEN call.held ELSE 0 END,
               spent = v_spent + meters_limit_counted(
                   meters_limit_start(t.spend_cycle, place.time_zone, moment),
                   t.spend_cycle_start, t.spent, t.total_spent),
               spend_cycle_start = meters_limit_since(
                   meters_limit_start(t.spend_cycle, place.time_zone, moment),
                   t.spend_cycle_start),
               total_spent = t.total_spent + v_spent
         WHERE t.id = call.token_id;
    END IF;
    IF p_cost IS NOT NULL AND p_cost_source IS NOT NULL THEN
        INSERT INTO meters_requestcost (id, merchant_id, provider, model, source, amount, rates)
        VALUES (p_id, place.merchant_id, call.provider, p_model, p_cost_source, p_cost, p_cost_rates)
        ON CONFLICT (id) DO NOTHING;
    END IF;
    UPDATE meters_gatewaycall
       SET status = p_status, http_status = p_http_status, error = p_error, model = p_model,
           usage = p_usage, flags = v_flags, charged = meters_settle.charged, seen_bytes = p_bytes,
           seen_output = GREATEST(seen_output, p_output_tokens), overhead_ms = p_overhead_ms,
           first_byte_ms = p_first_byte_ms, total_ms = p_total_ms, ended_at = moment
     WHERE id = p_id;
    outcome := 'settled';
END
$$;

-- Write down a call that was refused before its provider saw anything: it held and cost nothing.
CREATE OR REPLACE FUNCTION meters_blocked(
    p_id uuid, p_merchant uuid, p_token uuid, p_connection uuid, p_meter uuid,
    p_real_now timestamptz, p_provider text, p_own_key boolean, p_method text, p_endpoint text,
    p_model text, p_stream boolean, p_http_status int, p_error text, p_ms int
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO meters_gatewaycall (
        id, merchant_id, connection_id, meter_id, token_id, status, billing_disabled, provider,
        own_key, method, endpoint, model, stream, held, estimated_input, estimated_output,
        seen_output, seen_bytes, seen_at, usage, flags, charged, http_status, error, overhead_ms,
        first_byte_ms, total_ms, metadata, created_at, ended_at)
    SELECT p_id, m.id, c.id, p_meter, p_token, 'blocked', false, p_provider, p_own_key, p_method,
           p_endpoint, p_model, p_stream, 0, 0, 0, 0, 0, p_real_now, '{}', '{}', 0, p_http_status,
           p_error, p_ms, p_ms, p_ms, '{}', p_real_now + m.clock_offset,
           p_real_now + m.clock_offset
      FROM billing_merchant m
      -- A token may name a connection that is not there.
      LEFT JOIN billing_connection c ON c.id = p_connection AND c.merchant_id = m.id
     WHERE m.id = p_merchant
$$;

-- A process says of its running calls that they live, and how far they came.
CREATE OR REPLACE FUNCTION meters_seen(
    p_ids uuid[], p_outputs bigint[], p_bytes bigint[], p_real_now timestamptz
) RETURNS void LANGUAGE sql AS $$
    UPDATE meters_gatewaycall g
       SET seen_at = p_real_now, seen_output = s.output, seen_bytes = s.bytes
      FROM unnest(p_ids, p_outputs, p_bytes) AS s (id, output, bytes)
     WHERE g.id = s.id AND g.status = 'pending'
$$;
