-- The sums by local day: what was there before, and a merchant's days anew when its zone changes.
-- Run once, by the migration that makes them, with the requests locked.

-- A merchant's days, or everybody's, out of the quarters of an hour; nobody may compact meanwhile.
CREATE FUNCTION meters_sum_days(p_merchant uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(6734503);
    DELETE FROM meters_dayusage d WHERE p_merchant IS NULL OR d.merchant_id = p_merchant;
    INSERT INTO meters_dayusage (merchant_id, span, day, connection_id, provider_cost, charged,
        costed)
    SELECT u.merchant_id, x.span, meters_day(u.bucket, m.time_zone, x.span), u.connection_id,
           sum(u.provider_cost), sum(u.charged), sum(u.costed)
      FROM meters_connectionusage u JOIN billing_merchant m ON m.id = u.merchant_id
     CROSS JOIN (VALUES (1), (8)) x (span)
     WHERE p_merchant IS NULL OR u.merchant_id = p_merchant
     GROUP BY 1, 2, 3, 4;
END
$$;

CREATE FUNCTION meters_other_days() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM meters_sum_days(NEW.id);
    RETURN NULL;
END
$$;

CREATE TRIGGER usage_is_summed_by_the_days_of_the_zone AFTER UPDATE OF time_zone
    ON billing_merchant FOR EACH ROW WHEN (OLD.time_zone IS DISTINCT FROM NEW.time_zone)
    EXECUTE FUNCTION meters_other_days();

-- What is noted without its model goes into the sums; then both new ones are taken from the whole.
SELECT pg_advisory_xact_lock(6734503);
SELECT meters_compact();
DELETE FROM meters_modelusage;
INSERT INTO meters_modelusage (merchant_id, bucket, model, requests, provider_cost, charged, costed)
SELECT merchant_id, meters_bucket("timestamp"), model, count(*), sum(COALESCE(provider_cost, 0)),
       sum(charged), sum(CASE WHEN provider_cost IS NULL THEN 0 ELSE charged END)
  FROM meters_usagerequest WHERE status = 'completed' GROUP BY 1, 2, 3;
SELECT meters_sum_days(NULL);
