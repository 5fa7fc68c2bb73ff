"""Customers that come from a file, made by a job."""

import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0004_volume"),
    ]

    operations = [
        migrations.CreateModel(
            name="CustomerImport",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=64)),
                ("filename", models.CharField(max_length=255)),
                ("lines", models.JSONField(default=list)),
                ("count", models.PositiveIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[("running", "Under way"), ("done", "Done")],
                        default="running",
                        max_length=7,
                    ),
                ),
                ("actor", models.CharField(max_length=255)),
                ("made", models.PositiveIntegerField(default=0)),
                ("left", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "running")),
                        fields=["id"],
                        name="import_under_way",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("merchant", "key"), name="an_import_is_confirmed_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("finished_at", None), ("state", "running")),
                            models.Q(
                                (
                                    "count",
                                    django.db.models.expressions.CombinedExpression(
                                        models.F("made"), "+", models.F("left")
                                    ),
                                ),
                                ("finished_at__isnull", False),
                                ("state", "done"),
                            ),
                            _connector="OR",
                        ),
                        name="an_import_that_is_done_did_every_line",
                    ),
                ],
            },
        ),
    ]
