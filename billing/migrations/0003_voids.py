"""What a voided request drew is given back once; a paid debt returns as a grant of its own."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_ledger"),
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
                ],
                max_length=8,
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("source__in", ["manual", "returned"]), _negated=True),
                    models.Q(
                        models.Q(("reason", ""), _negated=True),
                        models.Q(("actor", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="a_grant_by_hand_has_a_reason_and_a_name",
            ),
        ),
        migrations.AddConstraint(
            model_name="ledgerentry",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "refund")),
                fields=("request_id", "grant"),
                name="a_draw_is_given_back_once",
                nulls_distinct=False,
            ),
        ),
    ]
