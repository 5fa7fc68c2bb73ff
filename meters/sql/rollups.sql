-- Sums of usage by quarter of an hour (every zone's offset is a multiple of one).
-- A charge appends one narrow row beside its request, in its own transaction, and waits for nobody:
-- no row of a sum is hot. `meters_compact` moves what is committed into the sums, in one
-- transaction. Whoever reads sums + deltas in one statement reads exactly the requests that are
-- committed, late and voided ones included. The functions are in `rollup_functions.sql`, and what
-- calls them in `rollup_triggers.sql`.

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
