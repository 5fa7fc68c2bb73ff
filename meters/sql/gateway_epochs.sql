-- A merchant's epoch of the gateway moves on with every change of what meters_caller tells. Run once.
-- What a token or key is at an instant (expired, paused, revoked) is not in it: meters_hold looks.

CREATE FUNCTION meters_next_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO meters_gatewayepoch AS e (merchant_id, epoch)
    VALUES (COALESCE(NEW.merchant_id, OLD.merchant_id), 1)
    ON CONFLICT (merchant_id) DO UPDATE SET epoch = e.epoch + 1;
    RETURN NULL;
END
$$;

CREATE TRIGGER a_meter_moves_the_epoch
    AFTER INSERT OR DELETE OR UPDATE OF slug, price_id, archived_at ON meters_meter
    FOR EACH ROW EXECUTE FUNCTION meters_next_epoch();
CREATE TRIGGER a_token_moves_the_epoch
    AFTER UPDATE OF connection_id, meter_id, allowed_models, allowed_providers
    ON meters_forwardtoken FOR EACH ROW EXECUTE FUNCTION meters_next_epoch();
CREATE TRIGGER a_provider_moves_the_epoch
    AFTER INSERT OR UPDATE OR DELETE ON meters_provider
    FOR EACH ROW EXECUTE FUNCTION meters_next_epoch();
CREATE TRIGGER a_provider_key_moves_the_epoch
    AFTER INSERT OR UPDATE OR DELETE ON meters_providerkey
    FOR EACH ROW EXECUTE FUNCTION meters_next_epoch();
CREATE TRIGGER a_price_of_a_model_moves_the_epoch
    AFTER INSERT OR UPDATE OR DELETE ON meters_modelprice
    FOR EACH ROW EXECUTE FUNCTION meters_next_epoch();
