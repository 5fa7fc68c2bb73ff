"""Tiers by volume: the further tiers of a price, what is to be settled, what was."""

from pathlib import Path

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

from billing.models.base import bounded

SQL = Path(__file__).resolve().parent.parent / "sql"


def link(to: str) -> models.ForeignKey:
    return models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to=to)


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_volume"), ("meters", "0002_charge")]

    operations = [
        migrations.AddField(
            model_name="meterprice",
            name="volume_starts",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.DecimalField(decimal_places=6, max_digits=22), default=list
            ),
        ),
        migrations.AddField(
            model_name="meterprice",
            name="volume_rates",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.DecimalField(decimal_places=10, max_digits=22), default=list
            ),
        ),
        migrations.AddField(
            model_name="meterposition",
            name="unsettled",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddIndex(
            model_name="meterposition",
            index=models.Index(
                condition=models.Q(unsettled=True), fields=["scope"], name="position_to_settle"
            ),
        ),
        migrations.CreateModel(
            name="VolumeSettlement",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("cycle_index", models.IntegerField()),
                ("total", models.DecimalField(decimal_places=6, max_digits=28)),
                ("billed", models.DecimalField(decimal_places=6, max_digits=28)),
                ("charged", models.DecimalField(decimal_places=10, max_digits=22)),
                ("fee", models.DecimalField(decimal_places=10, max_digits=22)),
                ("amount", models.DecimalField(decimal_places=10, max_digits=22)),
                ("created_at", models.DateTimeField()),
                ("connection", link("billing.connection")),
                (
                    "grant",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.creditgrant",
                    ),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
                ("meter", link("meters.meter")),
                ("price", link("meters.meterprice")),
                ("subscription", link("billing.subscription")),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=bounded("amount") & bounded("fee") & bounded("charged"),
                        name="a_volume_settlement_gives_no_less_than_nothing",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(amount=0, grant=None)
                        | models.Q(amount__gt=0, grant__isnull=False),
                        name="what_a_volume_settlement_gives_is_a_grant",
                    ),
                ],
            },
        ),
        *(
            migrations.RunSQL(
                (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
            )
            for name in ("charge.sql", "batch.sql", "volume.sql")
        ),
    ]
