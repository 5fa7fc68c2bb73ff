-- Settlements of prices by volume (meters/volume.py): of one merchant in all they name, and final.

ALTER TABLE meters_volumesettlement
    ADD CONSTRAINT volume_settlement_of_merchant UNIQUE (merchant_id, id),
    ADD CONSTRAINT a_volume_settlement_is_of_its_connections_merchant
    FOREIGN KEY (merchant_id, connection_id) REFERENCES billing_connection (merchant_id, id),
    ADD CONSTRAINT a_volume_settlement_is_of_its_subscriptions_merchant
    FOREIGN KEY (merchant_id, subscription_id) REFERENCES billing_subscription (merchant_id, id),
    ADD CONSTRAINT a_volume_settlement_has_a_price_of_its_merchants_meter
    FOREIGN KEY (merchant_id, meter_id, price_id)
    REFERENCES meters_meterprice (merchant_id, meter_id, id),
    ADD CONSTRAINT a_volume_settlement_gives_to_its_connection
    FOREIGN KEY (connection_id, grant_id) REFERENCES billing_creditgrant (connection_id, id);

CREATE OR REPLACE FUNCTION meters_refuse_settled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'A settlement never changes: what comes after it is settled by another.'
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE OR REPLACE TRIGGER a_volume_settlement_never_changes
    BEFORE UPDATE OR DELETE ON meters_volumesettlement
    FOR EACH ROW EXECUTE FUNCTION meters_refuse_settled();
