"""A request can be taken back: once, with a reason and a name."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0003_voids"),
        ("meters", "0002_charge"),
    ]

    operations = [
        migrations.AlterField(
            model_name="usagerequest",
            name="status",
            field=models.CharField(
                choices=[
                    ("pending", "Running"),
                    ("completed", "Charged"),
                    ("error", "Failed"),
                    ("voided", "Taken back"),
                ],
                default="completed",
                max_length=9,
            ),
        ),
        migrations.CreateModel(
            name="Void",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("reason", models.CharField(max_length=255)),
                ("actor", models.CharField(max_length=255)),
                ("position_before", models.DecimalField(decimal_places=6, max_digits=28)),
                ("cycle_remaining", models.DecimalField(decimal_places=10, max_digits=22)),
                ("bundle_remaining", models.DecimalField(decimal_places=10, max_digits=22)),
                ("debt_after", models.DecimalField(decimal_places=10, max_digits=22)),
                ("created_at", models.DateTimeField()),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
                (
                    "request",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="void",
                        to="meters.usagerequest",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("reason", ""), _negated=True),
                            models.Q(("actor", ""), _negated=True),
                        ),
                        name="a_void_has_a_reason_and_a_name",
                    )
                ],
            },
        ),
    ]
