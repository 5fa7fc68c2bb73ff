-- The gateway's tables: room for updates in place, and the merchant wall. Run once.

ALTER TABLE meters_gatewaycall SET (fillfactor = 70);
ALTER TABLE meters_forwardtoken SET (fillfactor = 70);

-- The merchant wall, for the gateway's tables.
ALTER TABLE meters_forwardtoken
    ADD CONSTRAINT token_of_merchant UNIQUE (merchant_id, id),
    ADD CONSTRAINT a_token_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_token_is_of_its_meters_merchant
    FOREIGN KEY (merchant_id, meter_id) REFERENCES meters_meter (merchant_id, id);
ALTER TABLE meters_gatewaycall
    ADD CONSTRAINT a_call_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_call_is_of_its_meters_merchant
    FOREIGN KEY (merchant_id, meter_id) REFERENCES meters_meter (merchant_id, id),
    ADD CONSTRAINT a_call_has_a_price_of_its_meter
    FOREIGN KEY (meter_id, price_id) REFERENCES meters_meterprice (meter_id, id),
    ADD CONSTRAINT a_call_has_a_hold_of_its_connection
    FOREIGN KEY (connection_id, hold_id) REFERENCES billing_hold (connection_id, id),
    ADD CONSTRAINT a_call_is_of_its_tokens_merchant
    FOREIGN KEY (merchant_id, token_id) REFERENCES meters_forwardtoken (merchant_id, id);

DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'lava_app') THEN
        REVOKE DELETE, TRUNCATE ON meters_gatewaycall, meters_requestcost FROM lava_app;
        REVOKE UPDATE ON meters_requestcost FROM lava_app;
    END IF;
END
$$;
