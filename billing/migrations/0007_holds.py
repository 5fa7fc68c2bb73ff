"""A hold ends with its charge in one move of the connection. The checks of the tables that every
charge moves, in words that PostgreSQL reads faster: it reads them anew for each statement."""

from pathlib import Path

from django.db import migrations, models

from billing.migrating import AMOUNT, NUMBER, said_again

SQL = Path(__file__).resolve().parent.parent / "sql"
# By table. The rules are the models'; a check that says nothing of NULL lets it pass.
CHECKS = {
    "billing_connection": {
        "a_balance_is_a_number": NUMBER.format("balance"),
        "debt_is_not_negative": AMOUNT.format("debt"),
        "held_is_not_negative": AMOUNT.format("held"),
        "only_debt_is_collected": "collecting >= 0.0 AND collecting <= debt",
    },
    "billing_hold": {
        "a_hold_is_not_negative": AMOUNT.format("amount"),
        "a_hold_has_ended_or_is_open": "(ended_at IS NULL) = (state = 'open')",
    },
    "billing_creditgrant": {
        "a_grant_is_not_negative": AMOUNT.format("amount"),
        "a_grant_keeps_between_nothing_and_all_of_it": "remaining >= 0.0 AND remaining <= amount",
        "a_grant_does_not_end_before_it_starts": "expires_at >= effective_at",
        "a_grant_by_hand_has_a_reason_and_a_name": (
            "source::text <> ALL ('{manual,returned,volume}'::text[])"
            " OR reason <> '' AND actor <> ''"
        ),
    },
    "billing_ledgerentry": {
        "a_ledger_line_moves_something": f"amount <> 0.0 AND {NUMBER.format('amount')}",
        "a_running_balance_is_a_number": NUMBER.format("balance_after"),
    },
}
# Charges read the merchant first and its holds later, so whoever waits for one of the two tables
# with the other in hand would wait for them, and they for it. It gives up long before the database
# looks for a deadlock (a second) and might make a charge the victim, and tries again.
FREE_HOLDS = """
DO $$
BEGIN
    SET LOCAL lock_timeout = '200ms';
    FOR attempt IN 1..100 LOOP
        BEGIN
            LOCK TABLE billing_merchant, billing_hold IN ACCESS EXCLUSIVE MODE;
            ALTER TABLE billing_hold
                DROP CONSTRAINT IF EXISTS billing_hold_merchant_id_2c1c04b4_fk_billing_merchant_id;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            -- What it had locked is free again.
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    RAISE lock_not_available USING MESSAGE = 'billing_hold is never free: migrate again';
END
$$
"""
BIND_HOLDS = """
ALTER TABLE billing_hold
    ADD CONSTRAINT billing_hold_merchant_id_2c1c04b4_fk_billing_merchant_id
    FOREIGN KEY (merchant_id) REFERENCES billing_merchant (id) DEFERRABLE INITIALLY DEFERRED
"""


class Migration(migrations.Migration):
    # Each step by itself, and each may be run again.
    atomic = False

    dependencies = [("billing", "0006_balance")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(FREE_HOLDS, BIND_HOLDS)],
            state_operations=[
                migrations.AlterField(
                    model_name="hold",
                    name="merchant",
                    field=models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
            ],
        ),
        migrations.AlterField(
            model_name="connection",
            name="overage_attempts",
            field=models.SmallIntegerField(default=0, editable=False),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="pool",
            field=models.SmallIntegerField(choices=[(1, "Plan credit"), (2, "Bundle credit")]),
        ),
        *said_again(CHECKS),
        *(
            migrations.RunSQL((SQL / name).read_text(encoding="utf-8"), migrations.RunSQL.noop)
            for name in ("ledger.sql", "holds.sql")
        ),
    ]
