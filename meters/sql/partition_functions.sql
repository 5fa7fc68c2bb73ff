-- The months of the requests' table, split by the time in a row's own key (billing/ids.py): when it
-- was made, in real time, whatever a sandbox's clock says.

-- The least key of a month, in UTC.
CREATE OR REPLACE FUNCTION meters_month_begins(p_month date) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT rpad(lpad(to_hex((extract(epoch FROM p_month) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

-- The month in which a key was made, in UTC.
CREATE OR REPLACE FUNCTION meters_month_of(p_key uuid) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT date_trunc('month', to_timestamp(
        ('x' || left(replace(p_key::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
        AT TIME ZONE 'UTC')::date
$$;

-- Where the months end that are there: the least key that would go to the rest.
CREATE OR REPLACE FUNCTION meters_room_until() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT b.upper FROM (
        SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([0-9a-f-]{36})''\)')::uuid
               AS upper
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'meters_usagerequest'::regclass) b
     WHERE b.upper IS NOT NULL ORDER BY b.upper DESC LIMIT 1
$$;

-- Make the partitions that are missing until so many months ahead; gives how many. Run by the owner's
-- right, since the product's own role makes no tables. A month of which rows have come into the rest
-- stays there.
-- A lock that it does not get at once is an error, and the next run tries again: so charges never
-- wait for it long, and where it and a charge would wait for each other it gives up long before the
-- database looks for a deadlock (a second) and might make the charge the victim.
CREATE OR REPLACE FUNCTION meters_make_months(p_ahead int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    made int := 0;
    v_month date;
    v_name text;
BEGIN
    PERFORM pg_advisory_xact_lock(6734504);
    v_month := meters_month_of(meters_room_until());
    WHILE v_month <= (now() AT TIME ZONE 'UTC') + make_interval(months => p_ahead) LOOP
        v_name := 'meters_usagerequest_' || to_char(v_month, 'YYYY_MM');
        IF NOT EXISTS (
            SELECT FROM meters_usagerequest_rest
             WHERE id >= meters_month_begins(v_month)
               AND id < meters_month_begins((v_month + interval '1 month')::date)
        ) THEN
            EXECUTE format(
                'CREATE TABLE %I (LIKE meters_usagerequest INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                v_name);
            EXECUTE format(
                'ALTER TABLE meters_usagerequest ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                v_name, meters_month_begins(v_month),
                meters_month_begins((v_month + interval '1 month')::date));
            made := made + 1;
        END IF;
        v_month := (v_month + interval '1 month')::date;
    END LOOP;
    RETURN made;
END
$$;
