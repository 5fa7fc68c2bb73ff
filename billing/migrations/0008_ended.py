"""What returns to credits after a change of plan ends as the plan says whose cycle was over."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_holds")]

    operations = [
        migrations.RunSQL(
            (SQL / "ledger.sql").read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        )
    ]
