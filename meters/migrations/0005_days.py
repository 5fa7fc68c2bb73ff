"""Usage summed by model and by local day, filled from what was charged before."""

from pathlib import Path

from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"
# Nobody charges between the reading of what is there and the first note of the new form.
LOCK = "LOCK TABLE meters_usagerequest IN SHARE ROW EXCLUSIVE MODE"
UNDO = """
DROP TRIGGER usage_is_summed_by_the_days_of_the_zone ON billing_merchant;
DROP FUNCTION meters_other_days();
DROP FUNCTION meters_sum_days(uuid);
"""


def amount() -> models.DecimalField:
    return models.DecimalField(decimal_places=10, max_digits=30)


def run(name: str, *, undo: str = migrations.RunSQL.noop) -> migrations.RunSQL:
    return migrations.RunSQL((SQL / name).read_text(encoding="utf-8"), reverse_sql=undo)


class Migration(migrations.Migration):
    dependencies = [("meters", "0004_partitions")]

    operations = [
        migrations.RunSQL(LOCK, reverse_sql=LOCK),
        migrations.AddField(
            model_name="usagedelta",
            name="model",
            field=models.CharField(db_default="", default="", max_length=120),
        ),
        migrations.CreateModel(
            name="ModelUsage",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "merchant_id",
                        "bucket",
                        "model",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("merchant_id", models.UUIDField()),
                ("bucket", models.DateTimeField()),
                ("model", models.CharField(max_length=120)),
                ("requests", models.BigIntegerField()),
                ("provider_cost", amount()),
                ("charged", amount()),
                ("costed", amount()),
            ],
        ),
        migrations.CreateModel(
            name="DayUsage",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "merchant_id",
                        "span",
                        "day",
                        "connection_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("merchant_id", models.UUIDField()),
                ("span", models.SmallIntegerField()),
                ("day", models.DateField()),
                ("connection_id", models.UUIDField()),
                ("provider_cost", amount()),
                ("charged", amount()),
                ("costed", amount()),
            ],
        ),
        run("rollup_functions.sql"),
        run("batch.sql"),
        run("days.sql", undo=UNDO),
    ]
