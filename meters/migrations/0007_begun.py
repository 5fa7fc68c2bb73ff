"""The charge counts credits that a machine whose clock is ahead has given; a key says when it was
made."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("meters", "0006_epochs"), ("billing", "0006_balance")]

    operations = [
        migrations.RunSQL(
            (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        )
        for name in ("charge.sql", "partition_functions.sql")
    ]
