"""Customers that a backend makes may have no phone yet; a plan names the bundle it tops up with."""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_ledger")]

    operations = [
        migrations.RemoveConstraint(
            model_name="customer", name="a_phone_is_one_customer_of_a_merchant"
        ),
        migrations.AlterField(
            model_name="customer", name="phone", field=models.CharField(blank=True, max_length=16)
        ),
        migrations.AddConstraint(
            model_name="customer",
            constraint=models.UniqueConstraint(
                condition=models.Q(("phone", ""), _negated=True),
                fields=("merchant", "phone"),
                name="a_phone_is_one_customer_of_a_merchant",
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="default_auto_top_up_bundle",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.creditbundle",
            ),
        ),
        migrations.RunSQL(
            (SQL / "defaults.sql").read_text(encoding="utf-8"),
            reverse_sql="""
                ALTER TABLE billing_plan DROP CONSTRAINT a_default_bundle_is_of_the_plan;
                ALTER TABLE billing_creditbundle DROP CONSTRAINT bundle_of_plan;
            """,
        ),
    ]
