-- The second half of `partitions.sql`, once the functions are there.

DO $$
BEGIN
    EXECUTE format(
        'ALTER TABLE meters_usagerequest ATTACH PARTITION meters_usagerequest_first'
        ' FOR VALUES FROM (MINVALUE) TO (%L)',
        meters_month_begins((date_trunc('month', now() AT TIME ZONE 'UTC') + '1 month')::date));
END
$$;
-- Where a month was not made in time: no charge ever waits for one.
CREATE TABLE meters_usagerequest_rest PARTITION OF meters_usagerequest DEFAULT;
SELECT meters_make_months(3);

ALTER TABLE meters_void
    ADD CONSTRAINT a_void_is_of_a_request
    FOREIGN KEY (request_id) REFERENCES meters_usagerequest (id) DEFERRABLE INITIALLY DEFERRED;
