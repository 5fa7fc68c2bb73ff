"""Requests by month, with their keys in a table of their own. Charges wait while it runs: it reads
all requests twice (to take over their keys, and to prove that they fit the first partition)."""

from pathlib import Path

from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("meters", "0003_volume")]

    operations = [
        migrations.CreateModel(
            name="RequestKey",
            fields=[
                ("merchant_id", models.UUIDField()),
                ("request_id", models.CharField(max_length=255)),
                ("row", models.UUIDField()),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "merchant_id",
                        "request_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
            ],
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveConstraint(
                    model_name="usagerequest", name="a_request_id_is_charged_once"
                )
            ]
        ),
        *(
            migrations.RunSQL(
                (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
            )
            for name in (
                "partitions.sql",
                "charge.sql",
                "batch.sql",
                "rollup_functions.sql",
                "partition_functions.sql",
                "partitions_end.sql",
                "rollup_triggers.sql",
            )
        ),
    ]
