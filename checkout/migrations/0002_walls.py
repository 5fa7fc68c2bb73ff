"""The merchant wall's foreign keys for checkout's tables."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).resolve().parent.parent / "sql"

REVERSE = """
ALTER TABLE checkout_phoneverification
    DROP CONSTRAINT a_code_is_of_its_visits_merchant,
    DROP CONSTRAINT a_code_is_of_its_checkouts_merchant;
ALTER TABLE checkout_portalvisit
    DROP CONSTRAINT a_visit_is_of_its_connections_merchant,
    DROP CONSTRAINT visit_of_merchant;
ALTER TABLE checkout_checkoutsession
    DROP CONSTRAINT a_checkout_is_of_its_plans_merchant,
    DROP CONSTRAINT a_checkout_is_of_its_bundles_merchant,
    DROP CONSTRAINT a_checkout_is_of_its_connections_merchant,
    DROP CONSTRAINT a_checkout_is_of_its_payments_merchant,
    DROP CONSTRAINT checkout_of_merchant;
"""


class Migration(migrations.Migration):
    dependencies = [("checkout", "0001_initial"), ("billing", "0002_ledger")]

    operations = [
        migrations.RunSQL((SQL / "walls.sql").read_text(encoding="utf-8"), reverse_sql=REVERSE),
        migrations.RunSQL(
            (SQL / "visits.sql").read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        ),
    ]
