-- The bundle that new subscribers top up with is one of the plan's own.
ALTER TABLE billing_creditbundle ADD CONSTRAINT bundle_of_plan UNIQUE (plan_id, id);
ALTER TABLE billing_plan
    ADD CONSTRAINT a_default_bundle_is_of_the_plan
    FOREIGN KEY (id, default_auto_top_up_bundle_id) REFERENCES billing_creditbundle (plan_id, id);
