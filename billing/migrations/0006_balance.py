"""A balance is read in one trip; what a machine whose clock is ahead has given is there for all."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_imports")]

    operations = [
        migrations.RunSQL(
            (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        )
        for name in ("ledger.sql", "balance.sql", "renewals.sql")
    ]
