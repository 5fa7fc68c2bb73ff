"""Holds: the table, what a connection has set aside, and the functions that write both."""

from decimal import Decimal
from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_ledger"),
    ]

    operations = [
        migrations.CreateModel(
            name="Hold",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("amount", models.DecimalField(decimal_places=10, max_digits=22)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "Set aside"),
                            ("settled", "Charged"),
                            ("released", "Given back"),
                            ("expired", "Given back after its time"),
                        ],
                        default="open",
                        max_length=8,
                    ),
                ),
                ("purpose", models.CharField(blank=True, max_length=255)),
                ("expires_at", models.DateTimeField()),
                ("created_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.AddField(
            model_name="connection",
            name="held",
            field=models.DecimalField(
                decimal_places=10, default=Decimal("0"), editable=False, max_digits=22
            ),
        ),
        migrations.AddConstraint(
            model_name="connection",
            constraint=models.CheckConstraint(
                condition=models.Q(("held__gte", 0), ("held__lt", 1000000000000)),
                name="held_is_not_negative",
            ),
        ),
        migrations.AddField(
            model_name="hold",
            name="connection",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="holds",
                to="billing.connection",
            ),
        ),
        migrations.AddField(
            model_name="hold",
            name="merchant",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.merchant",
            ),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(
                condition=models.Q(("state", "open")),
                fields=["connection", "expires_at"],
                name="hold_that_is_open",
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__gte", 0), ("amount__lt", 1000000000000)),
                name="a_hold_is_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("ended_at", None), ("state", "open")),
                    models.Q(
                        models.Q(("state", "open"), _negated=True), ("ended_at__isnull", False)
                    ),
                    _connector="OR",
                ),
                name="a_hold_has_ended_or_is_open",
            ),
        ),
        migrations.RunSQL(
            (SQL / "holds.sql").read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        ),
    ]
