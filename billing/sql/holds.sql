-- Holds: the only writer of billing_hold and of a connection's `held`. Called by billing/holds.py
-- and by meters' gateway, always with the connection's row locked (billing_lock).
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

-- End a hold: its amount can be spent again. Gives the amount; null when it had ended before.
-- With `p_request` it is settled by that request, also after it expired: its work has run.
CREATE OR REPLACE FUNCTION billing_end_hold(
    p_id uuid, p_connection uuid, p_state text, p_now timestamptz, p_request uuid DEFAULT NULL
) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    freed numeric;
BEGIN
    UPDATE billing_hold SET state = p_state, ended_at = p_now, request_id = p_request
     WHERE id = p_id AND connection_id = p_connection AND state = 'open'
    RETURNING amount INTO freed;
    IF freed > 0 THEN
        UPDATE billing_connection SET held = held - freed WHERE id = p_connection;
    ELSIF freed IS NULL AND p_request IS NOT NULL THEN
        UPDATE billing_hold SET state = p_state, ended_at = p_now, request_id = p_request
         WHERE id = p_id AND connection_id = p_connection AND state = 'expired';
    END IF;
    RETURN freed;
END
$$;

ALTER TABLE billing_hold
    ADD CONSTRAINT hold_of_connection UNIQUE (connection_id, id),
    ADD CONSTRAINT a_hold_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id);
ALTER TABLE billing_hold SET (fillfactor = 80);

DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'lava_app') THEN
        REVOKE DELETE, TRUNCATE ON billing_hold FROM lava_app;
    END IF;
END
$$;
