-- The merchant wall for what changes of plan point at (see walls.sql).
ALTER TABLE billing_plan
    ADD CONSTRAINT a_version_is_of_its_plans_merchant
    FOREIGN KEY (merchant_id, family_id) REFERENCES billing_plan (merchant_id, id);
ALTER TABLE billing_subscription
    ADD CONSTRAINT a_pending_plan_is_of_the_merchant
    FOREIGN KEY (merchant_id, pending_plan_id) REFERENCES billing_plan (merchant_id, id);
ALTER TABLE billing_cycle
    ADD CONSTRAINT a_cycle_is_of_its_plans_merchant
    FOREIGN KEY (merchant_id, plan_id) REFERENCES billing_plan (merchant_id, id);
ALTER TABLE billing_planmove
    ADD CONSTRAINT a_move_leaves_a_plan_of_the_merchant
    FOREIGN KEY (merchant_id, from_plan_id) REFERENCES billing_plan (merchant_id, id),
    ADD CONSTRAINT a_move_reaches_a_plan_of_the_merchant
    FOREIGN KEY (merchant_id, to_plan_id) REFERENCES billing_plan (merchant_id, id);
