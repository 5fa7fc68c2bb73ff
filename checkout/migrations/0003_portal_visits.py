"""Visits to the customers' portal; a phone code is a session's or a visit's."""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"

REVERSE = """
ALTER TABLE checkout_phoneverification
    DROP CONSTRAINT a_code_is_of_its_visits_merchant;
ALTER TABLE checkout_portalvisit
    DROP CONSTRAINT a_visit_is_of_its_connections_merchant,
    DROP CONSTRAINT visit_of_merchant;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_ledger"),
        ("checkout", "0002_walls"),
    ]

    operations = [
        migrations.AlterField(
            model_name="phoneverification",
            name="session",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="verifications",
                to="checkout.checkoutsession",
            ),
        ),
        migrations.CreateModel(
            name="PortalVisit",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("secret_hash", models.BinaryField(max_length=32, unique=True)),
                ("phone", models.CharField(max_length=16)),
                ("created_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
                ("verified_at", models.DateTimeField(blank=True, null=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "connection",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.connection",
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
            ],
            options={
                "verbose_name": "portal visit",
            },
        ),
        migrations.AddField(
            model_name="phoneverification",
            name="visit",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="verifications",
                to="checkout.portalvisit",
            ),
        ),
        migrations.AddIndex(
            model_name="phoneverification",
            index=models.Index(fields=["visit", "-sent_at"], name="code_by_visit"),
        ),
        migrations.AddConstraint(
            model_name="phoneverification",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("session__isnull", False), ("visit", None)),
                    models.Q(("session", None), ("visit__isnull", False)),
                    _connector="OR",
                ),
                name="a_code_is_asked_for_by_one",
            ),
        ),
        migrations.AddIndex(
            model_name="portalvisit",
            index=models.Index(
                condition=models.Q(("ended_at", None)), fields=["seen_at"], name="visit_under_way"
            ),
        ),
        migrations.AddConstraint(
            model_name="portalvisit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("connection", None), ("verified_at__isnull", False), _connector="OR"
                ),
                name="only_a_confirmed_phone_opens_a_portal",
            ),
        ),
        migrations.RunSQL((SQL / "visits.sql").read_text(encoding="utf-8"), reverse_sql=REVERSE),
    ]
