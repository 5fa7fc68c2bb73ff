-- The charge: identify, price, draw and store one request in one trip to the database.
-- Calls billing's functions (billing/sql/ledger.sql) for the lock and the draw and never writes
-- billing's tables. meters/pricing.py says the same about prices in Python; a test holds both equal.

-- What of a count up to a position the tiers see: past the allowance, in whole packages. All three
-- in the unit counted.
CREATE OR REPLACE FUNCTION meters_billable(
    p_position numeric, p_free numeric, p_package numeric, p_rounding text
) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_package = 0 THEN GREATEST(p_position - p_free, 0)
                ELSE p_package * (
                    div(GREATEST(p_position - p_free, 0), p_package)
                    + CASE WHEN p_rounding = 'up'
                            AND mod(GREATEST(p_position - p_free, 0), p_package) > 0
                           THEN 1 ELSE 0 END) END
$$;

-- Price a quantity: graduated tiers, each unit at the rate of the tier it falls in.
-- Quantities are in the unit counted, minutes in seconds; a boundary is still in the lower tier.
-- The exact sums are rounded once, cumulatively, so that the slices add up to the fee. A tier's
-- flat amount is a slice of its own, asked with the first unit in the tier above `p_peak`, the
-- furthest the position ever was. With `p_kinds` there are no tiers: `p_counts` are the tokens of
-- each kind, at the rate of the same place.
CREATE OR REPLACE FUNCTION meters_price(
    p_rate_type text, p_unit text, p_starts numeric[], p_rates numeric[],
    p_quantity numeric, p_before numeric, p_cost numeric,
    p_flats numeric[] DEFAULT '{}', p_free numeric DEFAULT 0, p_package numeric DEFAULT 0,
    p_rounding text DEFAULT 'up', p_peak numeric DEFAULT NULL,
    p_counts numeric[] DEFAULT NULL,
    OUT fee numeric, OUT slices jsonb
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    n int := array_length(p_starts, 1);
    scale numeric := CASE p_unit WHEN 'minutes' THEN 60 ELSE 1 END;
    divisor numeric;
    exact numeric := 0;
    rated numeric := 0;
    upto numeric;
    part numeric;
    since numeric := p_before;
    after numeric := p_before + p_quantity;
    entered numeric := GREATEST(p_before, p_peak);
    tier int := 1;
BEGIN
    fee := 0;
    slices := '[]';
    IF p_free > 0 OR p_package > 0 THEN
        since := meters_billable(since, p_free * scale, p_package * scale, p_rounding);
        after := meters_billable(after, p_free * scale, p_package * scale, p_rounding);
        entered := meters_billable(entered, p_free * scale, p_package * scale, p_rounding);
    END IF;
    IF p_rate_type = 'percentage' THEN
        divisor := 100 * CASE WHEN p_quantity = 0 THEN 1 ELSE p_quantity END;
    ELSE
        divisor := CASE p_unit WHEN 'minutes' THEN 60 WHEN 'requests' THEN 1 ELSE 1000000 END;
    END IF;
    IF p_quantity = 0 THEN
        IF p_rate_type = 'percentage' AND p_cost > 0 THEN
            FOR i IN 2..n LOOP
                IF p_starts[i] * scale < since THEN tier := i; END IF;
            END LOOP;
            fee := round(round(p_cost * p_rates[tier], 40) / divisor, 10);
            slices := jsonb_build_array(jsonb_build_array(tier - 1, '0', fee::text));
        END IF;
        RETURN;
    END IF;
    FOR i IN 1..n LOOP
        part := CASE WHEN p_counts IS NULL
            THEN LEAST(after, COALESCE(p_starts[i + 1] * scale, after))
                 - GREATEST(since, p_starts[i] * scale)
            ELSE p_counts[i] END;
        CONTINUE WHEN part <= 0;
        IF p_flats[i] > 0 AND p_starts[i] * scale >= entered THEN
            slices := slices || jsonb_build_array(
                jsonb_build_array(i - 1, '0', round(p_flats[i], 10)::text));
            fee := fee + p_flats[i];
        END IF;
        exact := exact + part * p_rates[i]
               * CASE WHEN p_rate_type = 'percentage' THEN p_cost ELSE 1 END;
        upto := round(round(exact, 40) / divisor, 10);
        slices := slices || jsonb_build_array(
            jsonb_build_array(i - 1, trim_scale(part)::text, (upto - rated)::text));
        fee := fee + upto - rated;
        rated := upto;
    END LOOP;
END
$$;

-- The tokens of a request by the kinds of a price, in their order; null where it has none. Cached
-- input without a rate of its own pays the input's.
CREATE OR REPLACE FUNCTION meters_kinds(
    p_kinds text[], p_input bigint, p_output bigint, p_read bigint, p_write bigint
) RETURNS numeric[] LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN cardinality(p_kinds) > 0 THEN ARRAY(
        SELECT CASE kind
            WHEN 'output' THEN p_output
            WHEN 'cache_read' THEN p_read
            WHEN 'cache_write' THEN p_write
            ELSE p_input - CASE WHEN 'cache_read' = ANY (p_kinds) THEN p_read ELSE 0 END
                         - CASE WHEN 'cache_write' = ANY (p_kinds) THEN p_write ELSE 0 END
            END::numeric
          FROM unnest(p_kinds) WITH ORDINALITY AS k (kind, place) ORDER BY place) END
$$;

-- What a request counts, in the unit of its price: tokens, characters, seconds or requests.
CREATE OR REPLACE FUNCTION meters_quantity(
    p_unit text, p_token_basis text, p_input_tokens bigint, p_output_tokens bigint,
    p_input_characters bigint, p_output_characters bigint, p_input_seconds numeric,
    p_output_seconds numeric
) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_unit
        WHEN 'tokens_1m' THEN
            CASE p_token_basis WHEN 'output' THEN 0 ELSE p_input_tokens END + p_output_tokens
        WHEN 'characters_1m' THEN p_input_characters + p_output_characters
        WHEN 'minutes' THEN p_input_seconds + p_output_seconds
        ELSE 1
    END::numeric
$$;

-- The one of the version before takes another name, as billing_spend's (ledger.sql).
DO $$
DECLARE
    old regprocedure;
BEGIN
    FOR old IN
        SELECT p.oid FROM pg_proc p
         WHERE p.proname = 'meters_charge' AND p.pronargs <> 26 AND pg_function_is_visible(p.oid)
    LOOP
        EXECUTE format('ALTER FUNCTION %s RENAME TO meters_charge_before', old);
    END LOOP;
END
$$;

-- One charge. `outcome` is `charged`, `replayed`, or the code of what was refused; nothing is
-- written unless it is `charged`. `detail` names what the message needs. `collect`: the debt has
-- reached the plan's threshold. `fell`: the balance fell to 0, below the mark at which the customer
-- is told, or below the threshold of an automatic top-up; or a request was refused for want of
-- credits that a top-up may buy.
-- `p_hold` ends with the charge: what it set aside is free for its draw; one that expired is settled
-- late, since its work has run. `p_merchant`, `p_price` and `p_subscription` are those of a gateway
-- call that has run, and its connection is locked: they were settled when it was let through, and
-- what was checked then is not refused now. `p_call` names such a call, as the `meters_settle` of the
-- version before does, which may still run.
-- It finds rows by their keys, so it is planned without scans of whole tables: a plan made while a
-- table was empty would read it whole until somebody analyses it.
CREATE OR REPLACE FUNCTION meters_charge(
    p_id uuid, p_key_hash bytea, p_real_now timestamptz, p_connection uuid, p_meter text,
    p_meter_id uuid, p_request_id text, p_fingerprint bytea, p_timestamp timestamptz,
    p_model text, p_input_tokens bigint, p_output_tokens bigint, p_input_characters bigint,
    p_output_characters bigint, p_input_seconds numeric, p_output_seconds numeric,
    p_provider_cost numeric, p_metadata jsonb, p_enforce boolean,
    p_cache_read_tokens bigint DEFAULT 0, p_cache_write_tokens bigint DEFAULT 0,
    p_hold uuid DEFAULT NULL, p_merchant uuid DEFAULT NULL, p_price uuid DEFAULT NULL,
    p_subscription uuid DEFAULT NULL, p_call uuid DEFAULT NULL,
    OUT outcome text, OUT detail text, OUT collect boolean, OUT fell boolean, OUT currency text,
    OUT request meters_usagerequest, OUT price meters_meterprice
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    merchant record;
    conn billing_connection;
    earlier uuid;
    sub record;
    spent record;
    priced record;
    moment timestamptz;
    happened timestamptz;
    counted numeric;
    before numeric;
    peak numeric;
    charged numeric;
    spendable numeric;
    after numeric;
    v_scope uuid;
    v_window int;
    freed numeric := 0;
    has_run boolean := p_merchant IS NOT NULL OR p_call IS NOT NULL;
BEGIN
    collect := false;
    fell := false;
    IF p_call IS NOT NULL THEN
        SELECT g.merchant_id, g.price_id, g.subscription_id
          INTO STRICT p_merchant, p_price, p_subscription
          FROM meters_gatewaycall g WHERE g.id = p_call;
    END IF;
    IF has_run THEN
        SELECT m.id, m.clock_offset INTO merchant FROM billing_merchant m WHERE m.id = p_merchant;
        SELECT * INTO conn FROM billing_connection c
         WHERE c.id = p_connection AND c.merchant_id = p_merchant;
    ELSE
        SELECT m.id, m.clock_offset INTO merchant
          FROM billing_secretkey k JOIN billing_merchant m ON m.id = k.merchant_id
         WHERE k.secret_hash = p_key_hash AND k.revoked_at IS NULL;
        IF NOT FOUND THEN outcome := 'unauthenticated'; RETURN; END IF;
        SELECT * INTO conn FROM billing_lock(merchant.id, p_connection);
    END IF;
    moment := p_real_now + merchant.clock_offset;
    happened := COALESCE(p_timestamp, moment);
    IF NOT FOUND OR conn.status IN ('pending', 'deleted') THEN
        outcome := 'connection_not_found'; RETURN;
    END IF;
    currency := conn.currency;

    SELECT k."row" INTO earlier FROM meters_requestkey k
     WHERE k.merchant_id = merchant.id AND k.request_id = p_request_id;
    IF FOUND THEN
        SELECT * INTO STRICT request FROM meters_usagerequest WHERE id = earlier;
        IF request.fingerprint <> p_fingerprint THEN outcome := 'request_id_reused'; RETURN; END IF;
        SELECT * INTO price FROM meters_meterprice WHERE id = request.price_id;
        outcome := 'replayed';
        RETURN;
    END IF;

    IF conn.status = 'disabled' AND NOT has_run THEN outcome := 'connection_disabled'; RETURN; END IF;
    IF happened > moment + interval '5 minutes' THEN outcome := 'timestamp_in_future'; RETURN; END IF;
    IF happened < moment - interval '30 days' THEN outcome := 'timestamp_too_old'; RETURN; END IF;

    IF NOT has_run THEN
        IF p_meter_id IS NULL THEN
            SELECT p.* INTO price FROM meters_meter m JOIN meters_meterprice p ON p.id = m.price_id
             WHERE m.merchant_id = merchant.id AND m.slug = p_meter AND m.archived_at IS NULL;
        ELSE
            SELECT p.* INTO price FROM meters_meter m JOIN meters_meterprice p ON p.id = m.price_id
             WHERE m.merchant_id = merchant.id AND m.id = p_meter_id AND m.archived_at IS NULL;
        END IF;
        IF NOT FOUND THEN outcome := 'meter_not_found'; RETURN; END IF;
        SELECT s.id, s.cycle_index, s.cycle_start, p.when_depleted, p.overage_threshold,
               p.overage_cap, s.auto_top_up_bundle_id, s.top_up_threshold
          INTO sub
          FROM billing_subscription s
          JOIN billing_plan p ON p.id = s.plan_id
          JOIN meters_meterplan mp ON mp.plan_id = s.plan_id AND mp.meter_id = price.meter_id
         WHERE s.connection_id = conn.id AND s.status IN ('active', 'past_due')
           AND NOT (s.pending_change IS NOT DISTINCT FROM 'cancellation' AND s.cycle_end <= moment);
        IF NOT FOUND THEN
            outcome := 'meter_not_on_plan';
            SELECT m.name INTO detail FROM meters_meter m WHERE m.id = price.meter_id;
            RETURN;
        END IF;
    ELSE
        SELECT * INTO STRICT price FROM meters_meterprice WHERE id = p_price;
        -- The subscription that counts now, else the one that the call ran on.
        SELECT s.id, s.cycle_index, s.cycle_start, p.when_depleted, p.overage_threshold,
               p.overage_cap, s.auto_top_up_bundle_id, s.top_up_threshold
          INTO STRICT sub
          FROM billing_subscription s JOIN billing_plan p ON p.id = s.plan_id
         WHERE s.connection_id = conn.id
           AND (s.status IN ('active', 'past_due') OR s.id = p_subscription)
         ORDER BY s.status IN ('active', 'past_due') DESC LIMIT 1;
    END IF;
    IF price.rate_type = 'percentage' AND p_provider_cost IS NULL THEN
        outcome := 'cost_unknown'; RETURN;
    END IF;
    IF p_hold IS NOT NULL AND NOT has_run THEN
        SELECT CASE state WHEN 'settled' THEN 'hold_settled' WHEN 'released' THEN 'hold_released' END
          INTO outcome FROM billing_hold WHERE id = p_hold AND connection_id = conn.id;
        IF NOT FOUND THEN outcome := 'hold_not_found'; END IF;
        IF outcome IS NOT NULL THEN RETURN; END IF;
    END IF;
    counted := meters_quantity(
        price.unit, price.token_basis, p_input_tokens, p_output_tokens, p_input_characters,
        p_output_characters, p_input_seconds, p_output_seconds);
    IF price.tier_window = 'cycle' THEN
        v_scope := sub.id; v_window := sub.cycle_index;
    ELSE
        v_scope := conn.id; v_window := -1;
    END IF;
    SELECT p.quantity, p.peak INTO before, peak FROM meters_meterposition p
     WHERE connection_id = conn.id AND meter_id = price.meter_id AND scope = v_scope
       AND "window" = v_window;
    before := COALESCE(before, 0);
    priced := meters_price(
        price.rate_type, price.unit, price.tier_starts, price.tier_rates, counted, before,
        p_provider_cost, price.tier_flats, price.free_allowance, price.package_size,
        price.package_rounding, peak,
        meters_kinds(price.tier_kinds, p_input_tokens, p_output_tokens, p_cache_read_tokens,
                     p_cache_write_tokens));
    charged := priced.fee + CASE price.base_cost_payer
        WHEN 'wallet' THEN COALESCE(p_provider_cost, 0) ELSE 0 END;
    IF charged >= 1000000000000 OR conn.balance - charged <= -1000000000000
       OR conn.cycle_overage + charged >= 1000000000000 THEN
        outcome := 'amount_too_large'; RETURN;
    END IF;

    IF p_enforce AND charged > 0 THEN
        SELECT COALESCE(sum(remaining), 0) - conn.debt INTO spendable FROM billing_creditgrant
         WHERE connection_id = conn.id AND NOT is_spent
           AND billing_has_begun(effective_at, moment)
           AND (expires_at IS NULL OR expires_at > moment);
        -- What open holds have set aside is not there to spend.
        spendable := GREATEST(spendable, 0) - conn.held;
        IF charged > spendable AND (
            sub.when_depleted = 'block'
            OR conn.cycle_overage + charged - spendable > sub.overage_cap) THEN
            outcome := 'insufficient_credits'; detail := GREATEST(spendable, 0)::text;
            fell := sub.auto_top_up_bundle_id IS NOT NULL;
            RETURN;
        END IF;
    END IF;

    IF p_hold IS NOT NULL THEN
        freed := COALESCE(billing_close_hold(p_hold, conn.id, 'settled', moment, p_id), 0);
    END IF;
    spent := billing_spend(conn.id, charged, p_id, moment, freed);
    INSERT INTO meters_meterposition (
        connection_id, meter_id, scope, "window", quantity, peak, unsettled, first_request)
    VALUES (conn.id, price.meter_id, v_scope, v_window, counted, counted,
            price.volume_starts <> '{}', p_id)
    ON CONFLICT (connection_id, meter_id, scope, "window")
    DO UPDATE SET quantity = meters_meterposition.quantity + EXCLUDED.quantity,
                  unsettled = meters_meterposition.unsettled OR EXCLUDED.unsettled,
                  peak = GREATEST(meters_meterposition.peak,
                                  meters_meterposition.quantity + EXCLUDED.quantity),
                  -- Keys do not come in their order; what was not noted stays unknown.
                  first_request = CASE WHEN meters_meterposition.first_request > EXCLUDED.first_request
                                       THEN EXCLUDED.first_request
                                       ELSE meters_meterposition.first_request END;
    INSERT INTO meters_usagerequest (
        id, merchant_id, connection_id, meter_id, price_id, subscription_id, cycle_index,
        request_id, fingerprint, status, model, input_tokens, output_tokens, input_characters,
        output_characters, input_seconds, output_seconds, cache_read_tokens, cache_write_tokens,
        quantity, position_before, peak_before, fee, slices,
        draws, provider_cost, charged, cycle_remaining, bundle_remaining, debt_after, late,
        metadata, "timestamp", created_at)
    VALUES (
        p_id, merchant.id, conn.id, price.meter_id, price.id, sub.id, sub.cycle_index, p_request_id,
        p_fingerprint, 'completed', p_model, p_input_tokens, p_output_tokens, p_input_characters,
        p_output_characters, p_input_seconds, p_output_seconds,
        NULLIF(p_cache_read_tokens, 0), NULLIF(p_cache_write_tokens, 0), counted, before,
        CASE WHEN peak > before THEN peak END, priced.fee,
        priced.slices, spent.draws, p_provider_cost, charged, spent.cycle_remaining,
        spent.bundle_remaining, spent.debt, happened < sub.cycle_start, p_metadata, happened,
        moment)
    RETURNING * INTO request;
    outcome := 'charged';
    -- Only the charge that crosses the threshold wakes a worker; the sweep finds what stays above.
    collect := sub.when_depleted = 'overage'
        AND conn.debt < sub.overage_threshold AND spent.debt >= sub.overage_threshold;
    -- Likewise for a fall; `billing.depletion` and `billing.topups` look again under the lock.
    after := spent.cycle_remaining + spent.bundle_remaining - spent.debt;
    fell := (conn.balance > 0 AND after <= 0)
        OR COALESCE(conn.balance >= conn.low_mark AND after < conn.low_mark, false)
        OR (sub.auto_top_up_bundle_id IS NOT NULL
            AND conn.balance >= sub.top_up_threshold AND after < sub.top_up_threshold);
END
$$;
