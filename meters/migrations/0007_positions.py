"""A position knows the first request that it counts. The charge counts credits that a machine whose
clock is ahead has given."""

from pathlib import Path

from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("meters", "0006_epochs"), ("billing", "0006_balance")]

    operations = [
        migrations.AddField(
            model_name="meterposition",
            name="first_request",
            field=models.UUIDField(null=True),
        ),
        *(
            migrations.RunSQL(
                (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
            )
            for name in ("charge.sql", "batch.sql")
        ),
    ]
