"""Fee models: flat amounts, a free allowance, packages, rates by kind of token."""

from decimal import Decimal

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("meters", "0003_voids"),
    ]

    operations = [
        migrations.AddField(
            model_name="meterposition",
            name="peak",
            field=models.DecimalField(decimal_places=6, default=Decimal("0"), max_digits=28),
        ),
        migrations.AddField(
            model_name="meterprice",
            name="free_allowance",
            field=models.DecimalField(decimal_places=6, default=Decimal("0"), max_digits=22),
        ),
        migrations.AddField(
            model_name="meterprice",
            name="package_rounding",
            field=models.CharField(
                choices=[
                    ("up", "A package begun is paid"),
                    ("down", "A package is paid when it is used up"),
                ],
                default="up",
                max_length=4,
            ),
        ),
        migrations.AddField(
            model_name="meterprice",
            name="package_size",
            field=models.DecimalField(decimal_places=6, default=Decimal("0"), max_digits=22),
        ),
        migrations.AddField(
            model_name="meterprice",
            name="tier_flats",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.DecimalField(decimal_places=10, max_digits=22),
                default=list,
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="meterprice",
            name="tier_kinds",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=11), default=list, size=None
            ),
        ),
        migrations.AddField(
            model_name="usagerequest",
            name="cache_read_tokens",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="usagerequest",
            name="cache_write_tokens",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="usagerequest",
            name="peak_before",
            field=models.DecimalField(decimal_places=6, max_digits=28, null=True),
        ),
    ]
