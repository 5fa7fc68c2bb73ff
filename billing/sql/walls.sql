-- The merchant wall in the database: rows of two merchants cannot point at each other, because
-- every foreign key between tenants' tables carries the merchant with it.

ALTER TABLE billing_plan ADD CONSTRAINT plan_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_creditbundle ADD CONSTRAINT bundle_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_customer ADD CONSTRAINT customer_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_connection ADD CONSTRAINT connection_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_subscription ADD CONSTRAINT subscription_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_cycle ADD CONSTRAINT cycle_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_paymentmethod ADD CONSTRAINT card_of_connection UNIQUE (connection_id, id);
ALTER TABLE billing_payment ADD CONSTRAINT payment_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_creditgrant ADD CONSTRAINT grant_of_connection UNIQUE (connection_id, id);

ALTER TABLE billing_creditbundle
    ADD CONSTRAINT a_bundle_is_of_its_plans_merchant
    FOREIGN KEY (merchant_id, plan_id) REFERENCES billing_plan (merchant_id, id);
ALTER TABLE billing_connection
    ADD CONSTRAINT a_connection_is_of_its_customers_merchant
    FOREIGN KEY (merchant_id, customer_id) REFERENCES billing_customer (merchant_id, id);
ALTER TABLE billing_subscription
    ADD CONSTRAINT a_subscription_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_subscription_is_of_its_plans_merchant
    FOREIGN KEY (merchant_id, plan_id) REFERENCES billing_plan (merchant_id, id),
    ADD CONSTRAINT a_top_up_bundle_is_of_the_merchant
    FOREIGN KEY (merchant_id, auto_top_up_bundle_id)
    REFERENCES billing_creditbundle (merchant_id, id);
ALTER TABLE billing_cycle
    ADD CONSTRAINT a_cycle_is_of_its_subscriptions_merchant
    FOREIGN KEY (merchant_id, subscription_id) REFERENCES billing_subscription (merchant_id, id),
    ADD CONSTRAINT a_cycle_is_of_its_payments_merchant
    FOREIGN KEY (merchant_id, payment_id) REFERENCES billing_payment (merchant_id, id);
ALTER TABLE billing_paymentmethod
    ADD CONSTRAINT a_card_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id);
ALTER TABLE billing_payment
    ADD CONSTRAINT a_payment_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_payment_is_of_its_plans_merchant
    FOREIGN KEY (merchant_id, plan_id) REFERENCES billing_plan (merchant_id, id),
    ADD CONSTRAINT a_payment_is_of_its_bundles_merchant
    FOREIGN KEY (merchant_id, bundle_id) REFERENCES billing_creditbundle (merchant_id, id),
    ADD CONSTRAINT a_payment_is_of_its_subscriptions_merchant
    FOREIGN KEY (merchant_id, subscription_id) REFERENCES billing_subscription (merchant_id, id),
    ADD CONSTRAINT a_payment_uses_a_card_of_its_connection
    FOREIGN KEY (connection_id, card_id) REFERENCES billing_paymentmethod (connection_id, id);
ALTER TABLE billing_creditgrant
    ADD CONSTRAINT a_grant_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_grant_is_of_its_payments_merchant
    FOREIGN KEY (merchant_id, payment_id) REFERENCES billing_payment (merchant_id, id),
    ADD CONSTRAINT a_grant_is_of_its_cycles_merchant
    FOREIGN KEY (merchant_id, cycle_id) REFERENCES billing_cycle (merchant_id, id),
    ADD CONSTRAINT a_grant_is_of_its_bundles_merchant
    FOREIGN KEY (merchant_id, bundle_id) REFERENCES billing_creditbundle (merchant_id, id);
ALTER TABLE billing_ledgerentry
    ADD CONSTRAINT a_ledger_line_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_ledger_line_is_of_its_grants_connection
    FOREIGN KEY (connection_id, grant_id) REFERENCES billing_creditgrant (connection_id, id),
    ADD CONSTRAINT a_ledger_line_is_of_its_payments_merchant
    FOREIGN KEY (merchant_id, payment_id) REFERENCES billing_payment (merchant_id, id);
ALTER TABLE billing_event
    ADD CONSTRAINT an_event_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id);
