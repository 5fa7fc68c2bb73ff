-- Holds: the only writer of billing_hold, and with billing_spend of a connection's `held`. Called by
-- billing/holds.py, by the charge and by meters' gateway, always with the connection's row locked
-- (billing_lock).
-- After any of them: held = sum of the connection's open holds.

-- Whether an amount fits: into what is available, or into the overage that the plan allows.
CREATE OR REPLACE FUNCTION billing_fits(
    p_amount numeric, p_available numeric, p_when_depleted text, p_cycle_overage numeric,
    p_overage_cap numeric
) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT p_amount <= 0 OR p_amount <= p_available OR (
        p_when_depleted = 'overage' AND (
            p_overage_cap IS NULL OR p_cycle_overage + p_amount - p_available <= p_overage_cap))
$$;

-- Set an amount aside. The caller has checked that it fits.
CREATE OR REPLACE FUNCTION billing_hold(
    p_id uuid, p_connection uuid, p_amount numeric, p_purpose text, p_expires_at timestamptz,
    p_now timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing_hold (
        id, merchant_id, connection_id, amount, state, purpose, expires_at, created_at)
    SELECT p_id, merchant_id, id, p_amount, 'open', p_purpose, p_expires_at, p_now
      FROM billing_connection WHERE id = p_connection;
    IF p_amount > 0 THEN
        UPDATE billing_connection SET held = held + p_amount WHERE id = p_connection;
    END IF;
END
$$;

-- The first half of a hold's end, for who takes it off the connection's `held` in an update of their
-- own (billing_spend). Gives what is to be taken off; 0 when it had expired, null when it had ended
-- before. With `p_request` it is settled by that request, also after it expired: its work has run.
CREATE OR REPLACE FUNCTION billing_close_hold(
    p_id uuid, p_connection uuid, p_state text, p_now timestamptz, p_request uuid DEFAULT NULL
) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    freed numeric;
BEGIN
    UPDATE billing_hold SET state = p_state, ended_at = p_now, request_id = p_request
     WHERE id = p_id AND connection_id = p_connection AND state = 'open'
    RETURNING amount INTO freed;
    IF freed IS NULL AND p_request IS NOT NULL THEN
        UPDATE billing_hold SET state = p_state, ended_at = p_now, request_id = p_request
         WHERE id = p_id AND connection_id = p_connection AND state = 'expired'
        RETURNING 0 INTO freed;
    END IF;
    RETURN freed;
END
$$;

-- End a hold, whole: its amount can be spent again. Gives the amount; null when it had ended before.
-- `p_request` is only for the charge of the version before, which may still run.
CREATE OR REPLACE FUNCTION billing_end_hold(
    p_id uuid, p_connection uuid, p_state text, p_now timestamptz, p_request uuid DEFAULT NULL
) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    freed numeric := billing_close_hold(p_id, p_connection, p_state, p_now, p_request);
BEGIN
    IF freed > 0 THEN
        UPDATE billing_connection SET held = held - freed WHERE id = p_connection;
    END IF;
    RETURN freed;
END
$$;
