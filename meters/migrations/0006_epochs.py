"""Processes of the gateway may keep what they were told of a caller: a number says when it changed.
The functions of the hot path are planned by keys, whatever the size of their tables was."""

from pathlib import Path

from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("meters", "0005_days")]

    operations = [
        migrations.CreateModel(
            name="GatewayEpoch",
            fields=[
                ("merchant_id", models.UUIDField(primary_key=True, serialize=False)),
                ("epoch", models.BigIntegerField()),
            ],
        ),
        *(
            migrations.RunSQL(
                (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
            )
            for name in ("charge.sql", "gateway_functions.sql", "gateway_epochs.sql")
        ),
    ]
