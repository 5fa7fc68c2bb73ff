-- The merchant wall for visits to the portal and their codes, as `walls.sql`.

ALTER TABLE checkout_portalvisit
    ADD CONSTRAINT visit_of_merchant UNIQUE (merchant_id, id),
    ADD CONSTRAINT a_visit_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id);
ALTER TABLE checkout_phoneverification
    ADD CONSTRAINT a_code_is_of_its_visits_merchant
    FOREIGN KEY (merchant_id, visit_id) REFERENCES checkout_portalvisit (merchant_id, id)
    ON DELETE CASCADE;
