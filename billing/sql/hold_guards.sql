-- What holds must be, whoever writes them. Run once, by the migration that makes them (holds.sql has
-- the functions).

ALTER TABLE billing_hold
    ADD CONSTRAINT hold_of_connection UNIQUE (connection_id, id),
    ADD CONSTRAINT a_hold_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id);
ALTER TABLE billing_hold SET (fillfactor = 80);

DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'lava_app') THEN
        REVOKE DELETE, TRUNCATE ON billing_hold FROM lava_app;
    END IF;
END
$$;
