-- Charge many requests in one transaction: each as meters_charge does, in the order of the locks.
-- All connections are locked first, in the order of their ids, then requests are charged in the
-- order of theirs; so batches, singles and duplicates wait for each other and never in a circle.
-- A line that is refused writes nothing and spoils no other.
CREATE OR REPLACE FUNCTION meters_charge_batch(
    p_key_hash bytea, p_real_now timestamptz, p_ids uuid[], p_connections uuid[],
    p_meters text[], p_meter_ids uuid[], p_request_ids text[], p_fingerprints bytea[],
    p_timestamps timestamptz[], p_models text[], p_input_tokens bigint[],
    p_output_tokens bigint[], p_input_characters bigint[], p_output_characters bigint[],
    p_input_seconds numeric[], p_output_seconds numeric[], p_provider_costs numeric[],
    p_metadata text[], p_enforce boolean[], p_cache_read_tokens bigint[],
    p_cache_write_tokens bigint[]
) RETURNS TABLE (
    place int, outcome text, detail text, collect boolean, fell boolean, currency text,
    request meters_usagerequest, price meters_meterprice
) LANGUAGE plpgsql AS $$
DECLARE
    line record;
    done record;
    v_merchant uuid;
BEGIN
    SELECT k.merchant_id INTO v_merchant FROM billing_secretkey k
     WHERE k.secret_hash = p_key_hash AND k.revoked_at IS NULL;
    PERFORM c.id FROM billing_connection c
      WHERE c.merchant_id = v_merchant AND c.id = ANY (p_connections)
      ORDER BY c.id FOR NO KEY UPDATE;
    FOR line IN
        SELECT * FROM unnest(
            p_ids, p_connections, p_meters, p_meter_ids, p_request_ids, p_fingerprints,
            p_timestamps, p_models, p_input_tokens, p_output_tokens, p_input_characters,
            p_output_characters, p_input_seconds, p_output_seconds, p_provider_costs, p_metadata,
            p_enforce, p_cache_read_tokens, p_cache_write_tokens)
        WITH ORDINALITY AS l (
            id, connection, meter, meter_id, request_id, fingerprint, happened, model,
            input_tokens, output_tokens, input_characters, output_characters, input_seconds,
            output_seconds, provider_cost, metadata, enforce, cache_read_tokens,
            cache_write_tokens, place)
        ORDER BY l.request_id COLLATE "C", l.place
    LOOP
        SELECT * INTO done FROM meters_charge(
            line.id, p_key_hash, p_real_now, line.connection, line.meter, line.meter_id,
            line.request_id, line.fingerprint, line.happened, line.model, line.input_tokens,
            line.output_tokens, line.input_characters, line.output_characters,
            line.input_seconds, line.output_seconds, line.provider_cost, line.metadata::jsonb,
            line.enforce, line.cache_read_tokens, line.cache_write_tokens);
        place := line.place;
        outcome := done.outcome;
        detail := done.detail;
        collect := done.collect;
        fell := done.fell;
        currency := done.currency;
        request := done.request;
        price := done.price;
        RETURN NEXT;
    END LOOP;
END
$$;
