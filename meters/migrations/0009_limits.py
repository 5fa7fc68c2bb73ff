"""A token's limits turn once a cycle, and those of all time count all."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("meters", "0008_settle")]

    operations = [
        migrations.RunSQL(
            (SQL / "gateway_functions.sql").read_text(encoding="utf-8"), migrations.RunSQL.noop
        ),
    ]
