"""Answers of POSTs with an Idempotency-Key, kept to be given again."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0004_webhooks"),
    ]

    operations = [
        migrations.CreateModel(
            name="IdempotentCall",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.CharField(max_length=255)),
                ("fingerprint", models.BinaryField(max_length=32)),
                ("status", models.PositiveSmallIntegerField(null=True)),
                ("answer", models.BinaryField(null=True)),
                ("leased_until", models.DateTimeField()),
                ("created_at", models.DateTimeField()),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["created_at"], name="call_by_time")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("merchant", "key"),
                        name="an_idempotency_key_is_used_once_by_a_merchant",
                    )
                ],
            },
        ),
    ]
