-- Approvals: each is of the connection of its payment and refund, and decided for good.

ALTER TABLE billing_refund ADD CONSTRAINT refund_of_payment UNIQUE (payment_id, id);

ALTER TABLE billing_approval
    ADD CONSTRAINT an_approval_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT an_approval_is_of_its_payments_connection
    FOREIGN KEY (connection_id, payment_id) REFERENCES billing_payment (connection_id, id),
    ADD CONSTRAINT an_approval_is_of_its_refunds_payment
    FOREIGN KEY (payment_id, refund_id) REFERENCES billing_refund (payment_id, id);

CREATE OR REPLACE FUNCTION billing_approval_is_decided_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.state <> 'waiting'
       OR (NEW.merchant_id, NEW.act, NEW.connection_id, NEW.amount, NEW.forced, NEW.reason, NEW.key,
           NEW.asked_by_id, NEW.asked_at, NEW.expires_at)
          IS DISTINCT FROM
          (OLD.merchant_id, OLD.act, OLD.connection_id, OLD.amount, OLD.forced, OLD.reason, OLD.key,
           OLD.asked_by_id, OLD.asked_at, OLD.expires_at)
       OR NEW.payment_id IS DISTINCT FROM OLD.payment_id THEN
        RAISE EXCEPTION 'An approval is decided once and keeps what was asked.'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER an_approval_is_decided_once
    BEFORE UPDATE OR DELETE ON billing_approval
    FOR EACH ROW EXECUTE FUNCTION billing_approval_is_decided_once();

DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'lava_app') THEN
        REVOKE DELETE, TRUNCATE ON billing_approval FROM lava_app;
    END IF;
END
$$;
