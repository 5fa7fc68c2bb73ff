-- The merchant wall around refunds, disputes, attempts: each is of the connection of its payment.

ALTER TABLE billing_payment ADD CONSTRAINT payment_of_connection UNIQUE (connection_id, id);

ALTER TABLE billing_refund
    ADD CONSTRAINT a_refund_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_refund_is_of_its_payments_connection
    FOREIGN KEY (connection_id, payment_id) REFERENCES billing_payment (connection_id, id);
ALTER TABLE billing_dispute
    ADD CONSTRAINT a_dispute_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_dispute_is_of_its_payments_connection
    FOREIGN KEY (connection_id, payment_id) REFERENCES billing_payment (connection_id, id);
ALTER TABLE billing_paymentattempt
    ADD CONSTRAINT an_attempt_is_of_its_payments_merchant
    FOREIGN KEY (merchant_id, payment_id) REFERENCES billing_payment (merchant_id, id);

DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'lava_app') THEN
        REVOKE DELETE, TRUNCATE ON billing_refund, billing_dispute FROM lava_app;
        REVOKE UPDATE, DELETE, TRUNCATE ON billing_paymentattempt FROM lava_app;
    END IF;
END
$$;
