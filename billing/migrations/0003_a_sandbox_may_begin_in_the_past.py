"""A fresh sandbox's clock may begin in the past, so that a story can be told in it."""

import datetime

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_ledger")]

    operations = [
        migrations.RemoveConstraint(
            model_name="merchant", name="the_sandbox_clock_never_runs_behind"
        ),
        migrations.AddConstraint(
            model_name="merchant",
            constraint=models.CheckConstraint(
                condition=models.Q(clock_offset__gt=datetime.timedelta(days=-366)),
                name="the_sandbox_clock_is_at_most_a_year_behind",
            ),
        ),
    ]
