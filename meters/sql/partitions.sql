-- Requests by month, and their keys for ever. Run once, by the migration that makes the keys' table;
-- `partition_functions.sql` makes the months.
--
-- What is there becomes the first partition as it stands: no row is copied. A unique key cannot
-- span partitions without the column they are split by, so the client's own ids have a slim table:
-- it is what lets a request be charged once, however long ago the first one was.

INSERT INTO meters_requestkey (merchant_id, request_id, "row")
SELECT merchant_id, request_id, id FROM meters_usagerequest;

DROP TRIGGER usage_is_noted ON meters_usagerequest;
DROP TRIGGER changed_usage_is_noted ON meters_usagerequest;
DROP TRIGGER removed_usage_is_noted ON meters_usagerequest;
-- A function holds to the table that its types are of, whatever it is called later: those of the
-- requests are made again, by their own files.
DO $$
DECLARE
    old regprocedure;
    key name;
BEGIN
    FOR old IN
        SELECT p.oid FROM pg_proc p
         WHERE 'meters_usagerequest'::regtype = ANY (
            COALESCE(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype)
    LOOP
        EXECUTE format('DROP FUNCTION %s', old);
    END LOOP;
    SELECT conname INTO STRICT key FROM pg_constraint
     WHERE contype = 'f' AND conrelid = 'meters_void'::regclass
       AND confrelid = 'meters_usagerequest'::regclass;
    EXECUTE format('ALTER TABLE meters_void DROP CONSTRAINT %I', key);
END
$$;

ALTER TABLE meters_usagerequest DROP CONSTRAINT a_request_id_is_charged_once;
ALTER TABLE meters_usagerequest RENAME TO meters_usagerequest_first;
ALTER INDEX meters_usagerequest_pkey RENAME TO meters_usagerequest_first_pkey;
ALTER INDEX request_by_merchant RENAME TO meters_usagerequest_first_by_merchant;
ALTER INDEX request_by_connection RENAME TO meters_usagerequest_first_by_connection;
ALTER INDEX request_by_timestamp RENAME TO meters_usagerequest_first_by_timestamp;

CREATE TABLE meters_usagerequest (
    LIKE meters_usagerequest_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX request_by_merchant ON meters_usagerequest (merchant_id, id DESC);
CREATE INDEX request_by_connection ON meters_usagerequest (connection_id, id DESC);
CREATE INDEX request_by_timestamp ON meters_usagerequest
    USING brin ("timestamp") WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE meters_usagerequest
    ADD CONSTRAINT a_request_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_request_has_a_price_of_its_merchants_meter
    FOREIGN KEY (merchant_id, meter_id, price_id)
    REFERENCES meters_meterprice (merchant_id, meter_id, id);
