"""The ledger's functions, its append-only trigger, and the merchant wall's foreign keys."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).resolve().parent.parent / "sql"
NAMES = (
    "walls.sql",
    "ledger.sql",
    "ledger_guards.sql",
    "cards.sql",
    "approvals.sql",
    "changes.sql",
    "renewals.sql",
    "defaults.sql",
    "webhooks.sql",
    "holds.sql",
    "hold_guards.sql",
    "trail.sql",
)


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [
        migrations.RunSQL(
            (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        )
        for name in NAMES
    ]
