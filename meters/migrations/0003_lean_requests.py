"""A request points at its merchant through its connection and its price, each with the merchant."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_ledger"),
        ("meters", "0002_charge"),
    ]

    operations = [
        migrations.AlterField(
            model_name="usagerequest",
            name="merchant",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.merchant",
            ),
        ),
    ]
