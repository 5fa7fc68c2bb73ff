-- The functions behind the sums of usage (`rollup_triggers.sql` has their triggers). Run by the migration
-- that makes them and by each that changes them.

CREATE OR REPLACE FUNCTION meters_bucket(p_at timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT date_bin('15 minutes', p_at, 'epoch'::timestamptz)
$$;

-- The first of the so many local days, counted from 1970, in which an instant lies.
CREATE OR REPLACE FUNCTION meters_day(p_at timestamptz, p_zone text, p_span int)
RETURNS date LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (p_at AT TIME ZONE p_zone)::date
           - ((p_at AT TIME ZONE p_zone)::date - DATE '1970-01-01') % p_span
$$;

-- Only completed requests are usage: one that runs, failed or was voided counts nothing.
CREATE OR REPLACE FUNCTION meters_note_usage(r meters_usagerequest, p_sign int)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF r.status <> 'completed' THEN RETURN; END IF;
    INSERT INTO meters_usagedelta (merchant_id, connection_id, meter_id, model, bucket, requests,
        tokens, characters, seconds, provider_cost, fee, charged, costed)
    VALUES (r.merchant_id, r.connection_id, r.meter_id, r.model,
        date_bin('15 minutes', r."timestamp", 'epoch'::timestamptz), p_sign,
        p_sign * (r.input_tokens + r.output_tokens),
        p_sign * (r.input_characters + r.output_characters),
        p_sign * (r.input_seconds + r.output_seconds),
        p_sign * COALESCE(r.provider_cost, 0), p_sign * r.fee, p_sign * r.charged,
        p_sign * CASE WHEN r.provider_cost IS NULL THEN 0 ELSE r.charged END);
END
$$;

-- Its key is noted with it: whoever adds a request, it is charged once.
CREATE OR REPLACE FUNCTION meters_note_new_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO meters_requestkey (merchant_id, request_id, "row")
    VALUES (NEW.merchant_id, NEW.request_id, NEW.id);
    IF NEW.status = 'completed' THEN
        INSERT INTO meters_usagedelta (merchant_id, connection_id, meter_id, model, bucket,
            requests, tokens, characters, seconds, provider_cost, fee, charged, costed)
        VALUES (NEW.merchant_id, NEW.connection_id, NEW.meter_id, NEW.model,
            date_bin('15 minutes', NEW."timestamp", 'epoch'::timestamptz), 1,
            NEW.input_tokens + NEW.output_tokens, NEW.input_characters + NEW.output_characters,
            NEW.input_seconds + NEW.output_seconds, COALESCE(NEW.provider_cost, 0), NEW.fee,
            NEW.charged, CASE WHEN NEW.provider_cost IS NULL THEN 0 ELSE NEW.charged END);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION meters_note_changed_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM meters_note_usage(OLD, -1);
    PERFORM meters_note_usage(NEW, 1);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION meters_note_removed_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM meters_note_usage(OLD, -1);
    DELETE FROM meters_requestkey k
     WHERE k.merchant_id = OLD.merchant_id AND k.request_id = OLD.request_id;
    RETURN NULL;
END
$$;

-- Move committed deltas into the sums. Gives how many; 0 also while another process does it.
CREATE OR REPLACE FUNCTION meters_compact() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(6734503) THEN RETURN 0; END IF;
    WITH gone AS (
        DELETE FROM meters_usagedelta RETURNING *
    ), by_merchant AS (
        INSERT INTO meters_merchantusage AS s (merchant_id, meter_id, bucket, requests, tokens,
            characters, seconds, provider_cost, fee, charged, costed)
        SELECT merchant_id, meter_id, bucket, sum(requests), sum(tokens), sum(characters),
               sum(seconds), sum(provider_cost), sum(fee), sum(charged), sum(costed)
          FROM gone GROUP BY merchant_id, meter_id, bucket
        ON CONFLICT (merchant_id, meter_id, bucket) DO UPDATE SET
            requests = s.requests + EXCLUDED.requests, tokens = s.tokens + EXCLUDED.tokens,
            characters = s.characters + EXCLUDED.characters,
            seconds = s.seconds + EXCLUDED.seconds,
            provider_cost = s.provider_cost + EXCLUDED.provider_cost,
            fee = s.fee + EXCLUDED.fee, charged = s.charged + EXCLUDED.charged,
            costed = s.costed + EXCLUDED.costed
    ), by_connection AS (
        INSERT INTO meters_connectionusage AS s (merchant_id, connection_id, meter_id, bucket,
            requests, tokens, characters, seconds, provider_cost, fee, charged, costed)
        SELECT merchant_id, connection_id, meter_id, bucket, sum(requests), sum(tokens),
               sum(characters), sum(seconds), sum(provider_cost), sum(fee), sum(charged),
               sum(costed)
          FROM gone GROUP BY merchant_id, connection_id, meter_id, bucket
        ON CONFLICT (connection_id, meter_id, bucket) DO UPDATE SET
            requests = s.requests + EXCLUDED.requests, tokens = s.tokens + EXCLUDED.tokens,
            characters = s.characters + EXCLUDED.characters,
            seconds = s.seconds + EXCLUDED.seconds,
            provider_cost = s.provider_cost + EXCLUDED.provider_cost,
            fee = s.fee + EXCLUDED.fee, charged = s.charged + EXCLUDED.charged,
            costed = s.costed + EXCLUDED.costed
    ), by_model AS (
        INSERT INTO meters_modelusage AS s (merchant_id, bucket, model, requests, provider_cost,
            charged, costed)
        SELECT merchant_id, bucket, model, sum(requests), sum(provider_cost), sum(charged),
               sum(costed)
          FROM gone GROUP BY merchant_id, bucket, model
        ON CONFLICT (merchant_id, bucket, model) DO UPDATE SET
            requests = s.requests + EXCLUDED.requests,
            provider_cost = s.provider_cost + EXCLUDED.provider_cost,
            charged = s.charged + EXCLUDED.charged, costed = s.costed + EXCLUDED.costed
    ), by_day AS (
        INSERT INTO meters_dayusage AS s (merchant_id, span, day, connection_id, provider_cost,
            charged, costed)
        SELECT g.merchant_id, x.span, meters_day(g.bucket, m.time_zone, x.span), g.connection_id,
               sum(g.provider_cost), sum(g.charged), sum(g.costed)
          FROM gone g JOIN billing_merchant m ON m.id = g.merchant_id
         CROSS JOIN (VALUES (1), (8)) x (span)
         GROUP BY g.merchant_id, x.span, meters_day(g.bucket, m.time_zone, x.span), g.connection_id
        ON CONFLICT (merchant_id, span, day, connection_id) DO UPDATE SET
            provider_cost = s.provider_cost + EXCLUDED.provider_cost,
            charged = s.charged + EXCLUDED.charged, costed = s.costed + EXCLUDED.costed
    )
    SELECT count(*) INTO moved FROM gone;
    RETURN moved;
END
$$;
