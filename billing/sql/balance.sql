-- What a connection can spend. Reads only.

-- What can be spent beyond what is owed and what is set aside; below 0 when more is owed and held
-- than there is.
CREATE OR REPLACE FUNCTION billing_available(p_connection uuid, p_now timestamptz)
RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT GREATEST(COALESCE((
               SELECT sum(g.remaining) FROM billing_creditgrant g
                WHERE g.connection_id = c.id AND NOT g.is_spent
                  AND billing_has_begun(g.effective_at, p_now)
                  AND (g.expires_at IS NULL OR g.expires_at > p_now)), 0) - c.debt, 0) - c.held
      FROM billing_connection c WHERE c.id = p_connection
$$;

-- A balance in one trip: the connection of a key's merchant, what its live grants hold by pool, what
-- it owes and what is set aside. Called by billing/balances.py, which says what is missing where.
-- It finds rows by their keys, so it is planned without scans of whole tables: a plan made while a
-- table was empty would read it whole until somebody analyses it.
CREATE OR REPLACE FUNCTION billing_balance(
    p_key_hash bytea, p_connection uuid, p_real_now timestamptz,
    OUT merchant uuid, OUT connection uuid, OUT currency text, OUT cycle numeric,
    OUT bundle numeric, OUT debt numeric, OUT held numeric
) LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    moment timestamptz;
BEGIN
    SELECT m.id, p_real_now + m.clock_offset, c.id, c.currency, c.debt, c.held
      INTO merchant, moment, connection, currency, debt, held
      FROM billing_secretkey k
      JOIN billing_merchant m ON m.id = k.merchant_id
      LEFT JOIN billing_connection c ON c.id = p_connection AND c.merchant_id = m.id
                                    AND c.status NOT IN ('pending', 'deleted')
     WHERE k.secret_hash = p_key_hash AND k.revoked_at IS NULL;
    IF connection IS NOT NULL THEN
        SELECT COALESCE(sum(g.remaining) FILTER (WHERE g.pool = 1), 0),
               COALESCE(sum(g.remaining) FILTER (WHERE g.pool = 2), 0)
          INTO cycle, bundle
          FROM billing_creditgrant g
         WHERE g.connection_id = connection AND NOT g.is_spent
           AND billing_has_begun(g.effective_at, moment)
           AND (g.expires_at IS NULL OR g.expires_at > moment);
    END IF;
END
$$;
