"""The one-trip charge, and the merchant wall of meters' tables."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("meters", "0001_initial"), ("billing", "0002_ledger")]

    operations = [
        migrations.RunSQL(
            (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        )
        for name in (
            "charge.sql",
            "walls.sql",
            "rollup_functions.sql",
            "rollup_triggers.sql",
            "rollups.sql",
            "batch.sql",
            "gateway_functions.sql",
            "gateway.sql",
        )
    ]
