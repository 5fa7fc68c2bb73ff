-- Sums of usage by quarter of an hour (every zone's offset is a multiple of one).
-- A charge appends one narrow row beside its request, in its own transaction, and waits for nobody:
-- no row of a sum is hot. `meters_compact` moves what is committed into the sums, in one
-- transaction. Whoever reads sums + deltas in one statement reads exactly the requests that are
-- committed, late and voided ones included.

CREATE OR REPLACE FUNCTION meters_bucket(p_at timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT date_bin('15 minutes', p_at, 'epoch'::timestamptz)
$$;

-- Only completed requests are usage: one that runs, failed or was voided counts nothing.
CREATE OR REPLACE FUNCTION meters_note_usage(r meters_usagerequest, p_sign int)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF r.status <> 'completed' THEN RETURN; END IF;
    INSERT INTO meters_usagedelta (merchant_id, connection_id, meter_id, bucket, requests, tokens,
        characters, seconds, provider_cost, fee, charged)
    VALUES (r.merchant_id, r.connection_id, r.meter_id,
        date_bin('15 minutes', r."timestamp", 'epoch'::timestamptz), p_sign,
        p_sign * (r.input_tokens + r.output_tokens),
        p_sign * (r.input_characters + r.output_characters),
        p_sign * (r.input_seconds + r.output_seconds),
        p_sign * COALESCE(r.provider_cost, 0), p_sign * r.fee, p_sign * r.charged);
END
$$;

CREATE OR REPLACE FUNCTION meters_note_new_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'completed' THEN
        INSERT INTO meters_usagedelta (merchant_id, connection_id, meter_id, bucket, requests,
            tokens, characters, seconds, provider_cost, fee, charged)
        VALUES (NEW.merchant_id, NEW.connection_id, NEW.meter_id,
            date_bin('15 minutes', NEW."timestamp", 'epoch'::timestamptz), 1,
            NEW.input_tokens + NEW.output_tokens, NEW.input_characters + NEW.output_characters,
            NEW.input_seconds + NEW.output_seconds, COALESCE(NEW.provider_cost, 0), NEW.fee,
            NEW.charged);
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
    RETURN NULL;
END
$$;

-- A batch notes its requests in one set (meters_charge_batch), and says so for that statement.
CREATE TRIGGER usage_is_noted AFTER INSERT ON meters_usagerequest
    FOR EACH ROW WHEN (current_setting('lava.notes_in_a_set', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION meters_note_new_usage();
CREATE TRIGGER changed_usage_is_noted AFTER UPDATE ON meters_usagerequest
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION meters_note_changed_usage();
CREATE TRIGGER removed_usage_is_noted AFTER DELETE ON meters_usagerequest
    FOR EACH ROW EXECUTE FUNCTION meters_note_removed_usage();

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
            characters, seconds, provider_cost, fee, charged)
        SELECT merchant_id, meter_id, bucket, sum(requests), sum(tokens), sum(characters),
               sum(seconds), sum(provider_cost), sum(fee), sum(charged)
          FROM gone GROUP BY merchant_id, meter_id, bucket
        ON CONFLICT (merchant_id, meter_id, bucket) DO UPDATE SET
            requests = s.requests + EXCLUDED.requests, tokens = s.tokens + EXCLUDED.tokens,
            characters = s.characters + EXCLUDED.characters,
            seconds = s.seconds + EXCLUDED.seconds,
            provider_cost = s.provider_cost + EXCLUDED.provider_cost,
            fee = s.fee + EXCLUDED.fee, charged = s.charged + EXCLUDED.charged
    ), by_connection AS (
        INSERT INTO meters_connectionusage AS s (merchant_id, connection_id, meter_id, bucket,
            requests, tokens, characters, seconds, provider_cost, fee, charged)
        SELECT merchant_id, connection_id, meter_id, bucket, sum(requests), sum(tokens),
               sum(characters), sum(seconds), sum(provider_cost), sum(fee), sum(charged)
          FROM gone GROUP BY merchant_id, connection_id, meter_id, bucket
        ON CONFLICT (connection_id, meter_id, bucket) DO UPDATE SET
            requests = s.requests + EXCLUDED.requests, tokens = s.tokens + EXCLUDED.tokens,
            characters = s.characters + EXCLUDED.characters,
            seconds = s.seconds + EXCLUDED.seconds,
            provider_cost = s.provider_cost + EXCLUDED.provider_cost,
            fee = s.fee + EXCLUDED.fee, charged = s.charged + EXCLUDED.charged
    )
    SELECT count(*) INTO moved FROM gone;
    RETURN moved;
END
$$;

-- Emptied all the time: sweep it often, so that reading it stays cheap.
ALTER TABLE meters_usagedelta SET (autovacuum_vacuum_scale_factor = 0,
                                   autovacuum_vacuum_threshold = 5000);
-- The edges of a span are read from the requests themselves; almost in order of time, so a few
-- pages say where.
CREATE INDEX request_by_timestamp ON meters_usagerequest
    USING brin ("timestamp") WITH (pages_per_range = 32, autosummarize = on);

-- What was there before.
INSERT INTO meters_usagedelta (merchant_id, connection_id, meter_id, bucket, requests, tokens,
    characters, seconds, provider_cost, fee, charged)
SELECT merchant_id, connection_id, meter_id, meters_bucket("timestamp"), 1,
       input_tokens + output_tokens, input_characters + output_characters,
       input_seconds + output_seconds, COALESCE(provider_cost, 0), fee, charged
  FROM meters_usagerequest WHERE status = 'completed';
