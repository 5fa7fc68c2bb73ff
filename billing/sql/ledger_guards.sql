-- What nobody may do to the ledger and to plans that were sold, whoever asks; and how the hottest
-- rows lie. Run once; what may run again at any time is in ledger.sql.

-- Append-only: whoever asks, a line is never changed and never removed.
CREATE OR REPLACE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The ledger is append-only: write a linked correction instead.'
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER the_ledger_is_append_only
    BEFORE UPDATE OR DELETE ON billing_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

-- Price and interval of a plan that has or had subscribers never change.
CREATE OR REPLACE FUNCTION billing_keep_plan_terms() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.price, NEW.price_currency, NEW.billing_interval)
       IS DISTINCT FROM (OLD.price, OLD.price_currency, OLD.billing_interval)
       AND EXISTS (SELECT 1 FROM billing_subscription WHERE plan_id = OLD.id) THEN
        RAISE EXCEPTION 'Price and interval of a plan with subscribers do not change.'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER a_sold_plan_keeps_its_terms
    BEFORE UPDATE ON billing_plan
    FOR EACH ROW EXECUTE FUNCTION billing_keep_plan_terms();

-- The hottest rows are updated in place: leave room for it in their pages.
ALTER TABLE billing_connection SET (fillfactor = 70);
ALTER TABLE billing_creditgrant SET (fillfactor = 70);

-- The product's role may add lines and nothing else. (The role exists where the installation
-- separates it from the owner of the tables, as `manage.py up` does.)
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'lava_app') THEN
        REVOKE UPDATE, DELETE, TRUNCATE ON billing_ledgerentry FROM lava_app;
        REVOKE DELETE, TRUNCATE ON billing_payment, billing_creditgrant, billing_connection
            FROM lava_app;
    END IF;
END
$$;
