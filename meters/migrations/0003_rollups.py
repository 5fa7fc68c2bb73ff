"""Sums of usage behind `GET /v1/usage`, and the charge of many requests in one trip."""

from decimal import Decimal
from pathlib import Path

from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [
        ("meters", "0002_charge"),
    ]

    operations = [
        migrations.CreateModel(
            name="ConnectionUsage",
            fields=[
                ("requests", models.BigIntegerField(default=0)),
                ("tokens", models.BigIntegerField(default=0)),
                ("characters", models.BigIntegerField(default=0)),
                (
                    "seconds",
                    models.DecimalField(decimal_places=6, default=Decimal("0"), max_digits=28),
                ),
                (
                    "provider_cost",
                    models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=30),
                ),
                (
                    "fee",
                    models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=30),
                ),
                (
                    "charged",
                    models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=30),
                ),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "connection_id",
                        "meter_id",
                        "bucket",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("merchant_id", models.UUIDField()),
                ("connection_id", models.UUIDField()),
                ("meter_id", models.UUIDField()),
                ("bucket", models.DateTimeField()),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="MerchantUsage",
            fields=[
                ("requests", models.BigIntegerField(default=0)),
                ("tokens", models.BigIntegerField(default=0)),
                ("characters", models.BigIntegerField(default=0)),
                (
                    "seconds",
                    models.DecimalField(decimal_places=6, default=Decimal("0"), max_digits=28),
                ),
                (
                    "provider_cost",
                    models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=30),
                ),
                (
                    "fee",
                    models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=30),
                ),
                (
                    "charged",
                    models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=30),
                ),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "merchant_id",
                        "meter_id",
                        "bucket",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("merchant_id", models.UUIDField()),
                ("meter_id", models.UUIDField()),
                ("bucket", models.DateTimeField()),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="UsageDelta",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("merchant_id", models.UUIDField()),
                ("connection_id", models.UUIDField()),
                ("meter_id", models.UUIDField()),
                ("bucket", models.DateTimeField()),
                ("requests", models.SmallIntegerField()),
                ("tokens", models.BigIntegerField()),
                ("characters", models.BigIntegerField()),
                ("seconds", models.DecimalField(decimal_places=6, max_digits=18)),
                ("provider_cost", models.DecimalField(decimal_places=10, max_digits=22)),
                ("fee", models.DecimalField(decimal_places=10, max_digits=22)),
                ("charged", models.DecimalField(decimal_places=10, max_digits=22)),
            ],
        ),
        *(
            migrations.RunSQL(
                (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
            )
            for name in ("rollups.sql", "batch.sql")
        ),
    ]
