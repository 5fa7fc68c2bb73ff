-- Every request is noted, whoever writes it. Run by the migration that makes the sums, and by the one
-- that makes the requests' table anew.

-- A batch notes its requests in one set (meters_charge_batch), and says so for that statement.
CREATE TRIGGER usage_is_noted AFTER INSERT ON meters_usagerequest
    FOR EACH ROW WHEN (current_setting('lava.notes_in_a_set', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION meters_note_new_usage();
CREATE TRIGGER changed_usage_is_noted AFTER UPDATE ON meters_usagerequest
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION meters_note_changed_usage();
CREATE TRIGGER removed_usage_is_noted AFTER DELETE ON meters_usagerequest
    FOR EACH ROW EXECUTE FUNCTION meters_note_removed_usage();
