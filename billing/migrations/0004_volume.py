"""Credits that are given back by the volume of a cycle are a source of their own."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0003_renewals"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="creditgrant",
            name="a_grant_by_hand_has_a_reason_and_a_name",
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="source",
            field=models.CharField(
                choices=[
                    ("cycle", "Plan credit"),
                    ("rollover", "Rolled over"),
                    ("bundle", "Bundle"),
                    ("manual", "Given by hand"),
                    ("returned", "Returned"),
                    ("volume", "Volume discount"),
                ],
                max_length=8,
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("source__in", ["manual", "returned", "volume"]), _negated=True),
                    models.Q(
                        models.Q(("reason", ""), _negated=True),
                        models.Q(("actor", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="a_grant_by_hand_has_a_reason_and_a_name",
            ),
        ),
    ]
