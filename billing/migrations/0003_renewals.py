"""Renewals in one statement a set, and no index that a renewal writes to for nothing."""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_ledger"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="subscription",
            name="subscription_by_connection",
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="payment",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="grants",
                to="billing.payment",
            ),
        ),
        migrations.AlterField(
            model_name="cycle",
            name="payment",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.payment",
            ),
        ),
        migrations.AlterField(
            model_name="cycle",
            name="subscription",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="cycles",
                to="billing.subscription",
            ),
        ),
        migrations.AlterField(
            model_name="subscription",
            name="auto_top_up_bundle",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.creditbundle",
            ),
        ),
        migrations.AlterField(
            model_name="subscription",
            name="pending_plan",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.plan",
            ),
        ),
        migrations.AddIndex(
            model_name="creditgrant",
            index=models.Index(
                condition=models.Q(("payment__isnull", False)),
                fields=["payment"],
                name="grant_by_payment",
            ),
        ),
        migrations.AddIndex(
            model_name="cycle",
            index=models.Index(
                condition=models.Q(("payment__isnull", False)),
                fields=["payment"],
                name="cycle_by_payment",
            ),
        ),
        migrations.AddIndex(
            model_name="subscription",
            index=models.Index(
                condition=models.Q(("auto_top_up_bundle__isnull", False)),
                fields=["auto_top_up_bundle"],
                name="subscription_by_bundle",
            ),
        ),
        migrations.AddIndex(
            model_name="subscription",
            index=models.Index(
                condition=models.Q(("pending_plan__isnull", False)),
                fields=["pending_plan"],
                name="subscription_by_next_plan",
            ),
        ),
        migrations.RunSQL(
            "DROP FUNCTION IF EXISTS billing_write_set()", reverse_sql=migrations.RunSQL.noop
        ),
        migrations.RunSQL(
            (SQL / "renewals.sql").read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        ),
    ]
