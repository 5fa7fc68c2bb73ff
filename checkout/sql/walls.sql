-- The merchant wall for checkout's tables: every pointer carries the merchant with it.

ALTER TABLE checkout_checkoutsession
    ADD CONSTRAINT checkout_of_merchant UNIQUE (merchant_id, id),
    ADD CONSTRAINT a_checkout_is_of_its_plans_merchant
    FOREIGN KEY (merchant_id, plan_id) REFERENCES billing_plan (merchant_id, id),
    ADD CONSTRAINT a_checkout_is_of_its_bundles_merchant
    FOREIGN KEY (merchant_id, bundle_id) REFERENCES billing_creditbundle (merchant_id, id),
    ADD CONSTRAINT a_checkout_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_checkout_is_of_its_payments_merchant
    FOREIGN KEY (merchant_id, payment_id) REFERENCES billing_payment (merchant_id, id);
ALTER TABLE checkout_phoneverification
    ADD CONSTRAINT a_code_is_of_its_checkouts_merchant
    FOREIGN KEY (merchant_id, session_id) REFERENCES checkout_checkoutsession (merchant_id, id)
    ON DELETE CASCADE;
