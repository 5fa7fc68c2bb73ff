-- The merchant wall of webhooks: an endpoint hears of its own merchant's events alone.
ALTER TABLE billing_event ADD CONSTRAINT event_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_webhookendpoint ADD CONSTRAINT webhook_of_merchant UNIQUE (merchant_id, id);
ALTER TABLE billing_delivery
    ADD CONSTRAINT a_delivery_is_of_its_webhooks_merchant
    FOREIGN KEY (merchant_id, endpoint_id) REFERENCES billing_webhookendpoint (merchant_id, id),
    ADD CONSTRAINT a_delivery_is_of_its_events_merchant
    FOREIGN KEY (merchant_id, event_id) REFERENCES billing_event (merchant_id, id);
-- Events of before there were webhooks are told to nobody.
UPDATE billing_event SET is_told = true;
