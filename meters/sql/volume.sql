-- Prices by volume (meters/volume.py): the rate of a cycle, and settlements, which are of one
-- merchant in all they name, and final.

-- The rate of the tier that a count over a whole cycle reaches; starts, allowance and packages in
-- the unit of the price, the count as it is counted (minutes in seconds).
CREATE OR REPLACE FUNCTION meters_volume_rate(
    p_starts numeric[], p_rates numeric[], p_unit text, p_total numeric, p_free numeric,
    p_package numeric, p_rounding text
) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT t.rate
      FROM unnest(p_starts, p_rates) WITH ORDINALITY AS t (start, rate, place),
           LATERAL (SELECT CASE p_unit WHEN 'minutes' THEN 60 ELSE 1 END AS scale) s
     WHERE t.place = 1
        OR t.start * s.scale < meters_billable(
               p_total, p_free * s.scale, p_package * s.scale, p_rounding)
     ORDER BY t.place DESC LIMIT 1
$$;

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
