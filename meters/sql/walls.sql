-- The merchant wall of meters' tables, and what never changes in them.

ALTER TABLE meters_meterposition SET (fillfactor = 70);

ALTER TABLE meters_meter ADD CONSTRAINT meter_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE meters_meterprice
    ADD CONSTRAINT price_of_meter UNIQUE (meter_id, id),
    ADD CONSTRAINT price_of_meter_of_merchant UNIQUE (merchant_id, meter_id, id);
ALTER TABLE meters_meterplan
    ADD CONSTRAINT a_link_is_of_its_meters_merchant
    FOREIGN KEY (merchant_id, meter_id) REFERENCES meters_meter (merchant_id, id),
    ADD CONSTRAINT a_link_is_of_its_plans_merchant
    FOREIGN KEY (merchant_id, plan_id) REFERENCES billing_plan (merchant_id, id);
ALTER TABLE meters_meterprice
    ADD CONSTRAINT a_price_is_of_its_meters_merchant
    FOREIGN KEY (merchant_id, meter_id) REFERENCES meters_meter (merchant_id, id);
ALTER TABLE meters_meter
    ADD CONSTRAINT a_meter_uses_a_price_of_its_own
    FOREIGN KEY (id, price_id) REFERENCES meters_meterprice (meter_id, id) DEFERRABLE;
ALTER TABLE meters_usagerequest
    ADD CONSTRAINT a_request_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    -- One key for both: a price is of a meter, and a meter of a merchant. Each key of a request
    -- that points at a shared row costs a lock on that row, for which parallel charges compete.
    ADD CONSTRAINT a_request_has_a_price_of_its_merchants_meter
    FOREIGN KEY (merchant_id, meter_id, price_id)
    REFERENCES meters_meterprice (merchant_id, meter_id, id);

-- A published price never changes: requests point at it.
CREATE OR REPLACE FUNCTION meters_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'A published price never changes: publish a new version instead.'
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER a_published_price_never_changes
    BEFORE UPDATE OR DELETE ON meters_meterprice
    FOR EACH ROW EXECUTE FUNCTION meters_refuse_change();
