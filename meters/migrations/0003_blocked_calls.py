"""A call that was refused before the provider saw it is kept too."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("meters", "0002_charge"),
    ]

    operations = [
        migrations.AlterField(
            model_name="gatewaycall",
            name="status",
            field=models.CharField(
                choices=[
                    ("pending", "Running"),
                    ("completed", "Completed"),
                    ("error", "Failed at the provider"),
                    ("abandoned", "Freed after its process died"),
                    ("blocked", "Refused before the provider"),
                ],
                default="pending",
                max_length=9,
            ),
        ),
    ]
