"""The sums of usage also say what came with a provider's cost, for margins."""

from decimal import Decimal
from pathlib import Path

from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"
# What was summed before, as deltas of nothing but the new sum.
BEFORE = """
INSERT INTO meters_usagedelta (merchant_id, connection_id, meter_id, bucket, requests, tokens,
    characters, seconds, provider_cost, fee, charged, costed)
SELECT merchant_id, connection_id, meter_id, meters_bucket("timestamp"), 0, 0, 0, 0, 0, 0, 0,
       sum(charged)
  FROM meters_usagerequest WHERE status = 'completed' AND provider_cost IS NOT NULL
 GROUP BY 1, 2, 3, 4
"""


def _sum() -> models.DecimalField:  # type: ignore[type-arg]
    return models.DecimalField(decimal_places=10, default=Decimal(0), max_digits=30)


class Migration(migrations.Migration):
    dependencies = [("meters", "0002_charge")]

    operations = [
        migrations.AddField("merchantusage", "costed", _sum()),
        migrations.AddField("connectionusage", "costed", _sum()),
        migrations.AddField(
            "usagedelta",
            "costed",
            models.DecimalField(decimal_places=10, default=Decimal(0), max_digits=22),
        ),
        migrations.RunSQL(
            (SQL / "rollup_functions.sql").read_text(encoding="utf-8"),
            reverse_sql=migrations.RunSQL.noop,
        ),
        migrations.RunSQL(BEFORE, reverse_sql=migrations.RunSQL.noop),
    ]
