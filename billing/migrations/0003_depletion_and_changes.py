"""Depletion told once, top-ups within limits, changes of plan, versions, renewals in sets."""

from decimal import Decimal
from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"

# What a cycle was sold on, for cycles made before it was kept with them.
CYCLES = """
    UPDATE billing_cycle y
       SET plan_id = s.plan_id, anchor = s.anchor, place = y.index, time_zone = s.time_zone
      FROM billing_subscription s WHERE s.id = y.subscription_id;
    UPDATE billing_connection SET depleted_at = now(), depleted_told = true
     WHERE balance <= 0 AND entry_count > 0;
    SET CONSTRAINTS ALL IMMEDIATE;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_ledger"),
    ]

    operations = [
        migrations.CreateModel(
            name="PlanMove",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                (
                    "when",
                    models.CharField(
                        choices=[
                            ("next_cycle", "At the end of each one's cycle"),
                            ("at_once", "At once, in the running cycle"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[("running", "Under way"), ("done", "Done")],
                        default="running",
                        max_length=7,
                    ),
                ),
                ("actor", models.CharField(max_length=255)),
                ("cursor", models.UUIDField(editable=False, null=True)),
                ("moved", models.PositiveIntegerField(default=0)),
                ("left", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.AddField(
            model_name="connection",
            name="depleted_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="connection",
            name="depleted_told",
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.AddField(
            model_name="connection",
            name="low_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="connection",
            name="low_mark",
            field=models.DecimalField(
                blank=True, decimal_places=10, editable=False, max_digits=22, null=True
            ),
        ),
        migrations.AddField(
            model_name="connection",
            name="low_told",
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.AddField(
            model_name="cycle",
            name="anchor",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="cycle",
            name="owed",
            field=models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=22),
        ),
        migrations.AddField(
            model_name="cycle",
            name="place",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="cycle",
            name="plan",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.plan",
            ),
        ),
        migrations.AddField(
            model_name="cycle",
            name="time_zone",
            field=models.CharField(max_length=64, null=True),
        ),
        migrations.AddField(
            model_name="cycle",
            name="unused_credit",
            field=models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=22),
        ),
        migrations.AddField(
            model_name="cycle",
            name="unused_value",
            field=models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=22),
        ),
        migrations.AddField(
            model_name="payment",
            name="unused_credit",
            field=models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=22),
        ),
        migrations.AddField(
            model_name="payment",
            name="unused_value",
            field=models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=22),
        ),
        migrations.AddField(
            model_name="plan",
            name="family",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="later_versions",
                to="billing.plan",
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="grace_days",
            field=models.PositiveSmallIntegerField(default=3),
        ),
        migrations.AddField(
            model_name="plan",
            name="low_credit_threshold",
            field=models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
        ),
        migrations.AddField(
            model_name="plan",
            name="version",
            field=models.PositiveIntegerField(default=1, editable=False),
        ),
        migrations.AddField(
            model_name="subscription",
            name="anchor_index",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="subscription",
            name="pending_plan",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.plan",
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="top_up_attempts",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="subscription",
            name="top_up_monthly_cap",
            field=models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="top_up_next_attempt_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="top_up_threshold",
            field=models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=22),
        ),
        migrations.AlterField(
            model_name="payment",
            name="purpose",
            field=models.CharField(
                choices=[
                    ("subscription", "New subscription"),
                    ("renewal", "Renewal"),
                    ("overage", "Usage past credit"),
                    ("bundle", "Bundle"),
                    ("top_up", "Automatic top-up"),
                    ("upgrade", "Change of plan"),
                ],
                max_length=12,
            ),
        ),
        migrations.AlterField(
            model_name="subscription",
            name="pending_change",
            field=models.CharField(
                blank=True,
                choices=[
                    ("cancellation", "Cancels at the end of the cycle"),
                    ("downgrade", "Moves to a smaller plan at the end of the cycle"),
                    ("move", "Moves to another version of its plan at the end of the cycle"),
                ],
                max_length=12,
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="connection",
            index=models.Index(
                condition=models.Q(
                    models.Q(("depleted_at__isnull", False), ("depleted_told", False)),
                    models.Q(("low_at__isnull", False), ("low_told", False)),
                    _connector="OR",
                ),
                fields=["merchant"],
                name="connection_to_be_told",
            ),
        ),
        migrations.AddIndex(
            model_name="subscription",
            index=models.Index(
                condition=models.Q(("auto_top_up_bundle__isnull", False)),
                fields=["merchant"],
                name="subscription_that_tops_up",
            ),
        ),
        migrations.AddConstraint(
            model_name="cycle",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("unused_credit__gte", 0),
                    ("unused_credit__lt", 1000000000000),
                    ("unused_value__gte", 0),
                    ("unused_value__lt", 1000000000000),
                    ("owed__gte", 0),
                    ("owed__lt", 1000000000000),
                ),
                name="an_upgrade_takes_no_negative_value",
            ),
        ),
        migrations.AddConstraint(
            model_name="payment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("unused_credit__gte", 0),
                    ("unused_credit__lt", 1000000000000),
                    ("unused_value__gte", 0),
                    ("unused_value__lt", 1000000000000),
                ),
                name="a_payment_takes_no_negative_value",
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("low_credit_threshold", None),
                    models.Q(
                        ("low_credit_threshold__gte", 0),
                        ("low_credit_threshold__lt", 1000000000000),
                    ),
                    _connector="OR",
                ),
                name="a_low_credit_threshold_is_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.UniqueConstraint(
                fields=("family", "version"), name="a_version_of_a_plan_is_made_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("family", None), ("version", 1)),
                    models.Q(("family__isnull", False), ("version__gt", 1)),
                    _connector="OR",
                ),
                name="only_the_first_version_heads_a_family",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("pending_change__in", ["downgrade", "move"]),
                        ("pending_plan__isnull", False),
                    ),
                    models.Q(
                        ("pending_plan", None),
                        models.Q(
                            ("pending_change", None),
                            ("pending_change", "cancellation"),
                            _connector="OR",
                        ),
                    ),
                    _connector="OR",
                ),
                name="a_change_to_another_plan_names_it",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(("anchor_index__lte", models.F("cycle_index"))),
                name="an_anchor_is_not_ahead_of_its_cycle",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("top_up_threshold__gte", 0),
                    ("top_up_threshold__lt", 1000000000000),
                    models.Q(
                        ("top_up_monthly_cap", None),
                        models.Q(
                            ("top_up_monthly_cap__gte", 0),
                            ("top_up_monthly_cap__lt", 1000000000000),
                        ),
                        _connector="OR",
                    ),
                ),
                name="a_top_up_has_limits_that_are_numbers",
            ),
        ),
        migrations.AddField(
            model_name="planmove",
            name="from_plan",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="moves_away",
                to="billing.plan",
            ),
        ),
        migrations.AddField(
            model_name="planmove",
            name="merchant",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.merchant",
            ),
        ),
        migrations.AddField(
            model_name="planmove",
            name="to_plan",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="moves_here",
                to="billing.plan",
            ),
        ),
        migrations.AddConstraint(
            model_name="planmove",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "running")),
                fields=("from_plan",),
                name="a_plan_has_one_move_under_way",
            ),
        ),
        migrations.AddConstraint(
            model_name="planmove",
            constraint=models.CheckConstraint(
                condition=models.Q(("from_plan", models.F("to_plan")), _negated=True),
                name="a_move_goes_somewhere",
            ),
        ),
        migrations.AddConstraint(
            model_name="planmove",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at", None), ("state", "running")),
                    models.Q(("finished_at__isnull", False), ("state", "done")),
                    _connector="OR",
                ),
                name="a_move_that_is_done_says_when",
            ),
        ),
        migrations.RunSQL(CYCLES, reverse_sql=migrations.RunSQL.noop),
        migrations.AlterField(model_name="cycle", name="anchor", field=models.DateTimeField()),
        migrations.AlterField(
            model_name="cycle", name="place", field=models.PositiveIntegerField()
        ),
        migrations.AlterField(
            model_name="cycle", name="time_zone", field=models.CharField(max_length=64)
        ),
        # Composite foreign keys hold these already (walls.sql, changes.sql): one check a row.
        migrations.AlterField(
            model_name="creditgrant",
            name="bundle",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.creditbundle",
            ),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="connection",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="grants",
                to="billing.connection",
            ),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="cycle",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.cycle",
            ),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="merchant",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.merchant",
            ),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="payment",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="grants",
                to="billing.payment",
            ),
        ),
        migrations.AlterField(
            model_name="cycle",
            name="merchant",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.merchant",
            ),
        ),
        migrations.AlterField(
            model_name="cycle",
            name="payment",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.payment",
            ),
        ),
        migrations.AlterField(
            model_name="cycle",
            name="plan",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.plan",
            ),
        ),
        migrations.AlterField(
            model_name="cycle",
            name="subscription",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="cycles",
                to="billing.subscription",
            ),
        ),
        migrations.AlterField(
            model_name="event",
            name="connection",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="events",
                to="billing.connection",
            ),
        ),
        *(
            migrations.RunSQL(
                (SQL / name).read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
            )
            for name in ("changes.sql", "renewals.sql")
        ),
    ]
