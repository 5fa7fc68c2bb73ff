-- The audit trail is only ever added to.
CREATE OR REPLACE FUNCTION billing_trail_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The audit trail is append-only.' USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER the_audit_trail_is_append_only
    BEFORE UPDATE OR DELETE ON billing_auditentry
    FOR EACH ROW EXECUTE FUNCTION billing_trail_is_append_only();

DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'lava_app') THEN
        REVOKE UPDATE, DELETE, TRUNCATE ON billing_auditentry FROM lava_app;
    END IF;
END
$$;
