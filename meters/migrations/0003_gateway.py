"""The gateway: its tables, its three steps in SQL, and the merchant wall of both."""

from decimal import Decimal
from pathlib import Path

import django.contrib.postgres.fields
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0003_holds"),
        ("meters", "0002_charge"),
    ]

    operations = [
        migrations.CreateModel(
            name="ForwardToken",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=80)),
                ("secret_hash", models.BinaryField(max_length=32, unique=True)),
                ("hint", models.CharField(editable=False, max_length=32)),
                (
                    "status",
                    models.CharField(
                        choices=[("active", "Active"), ("paused", "Paused")],
                        default="active",
                        max_length=6,
                    ),
                ),
                ("request_shape", models.CharField(default="openai", max_length=9)),
                (
                    "allowed_models",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=120),
                        blank=True,
                        null=True,
                        size=None,
                    ),
                ),
                (
                    "allowed_providers",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=40), blank=True, null=True, size=None
                    ),
                ),
                (
                    "spend_limit",
                    models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
                ),
                (
                    "spend_cycle",
                    models.CharField(
                        choices=[
                            ("daily", "a day"),
                            ("weekly", "a week"),
                            ("monthly", "a month"),
                            ("total", "in total"),
                        ],
                        default="total",
                        max_length=7,
                    ),
                ),
                ("request_limit", models.BigIntegerField(blank=True, null=True)),
                (
                    "request_cycle",
                    models.CharField(
                        choices=[
                            ("daily", "a day"),
                            ("weekly", "a week"),
                            ("monthly", "a month"),
                            ("total", "in total"),
                        ],
                        default="total",
                        max_length=7,
                    ),
                ),
                ("rpm", models.PositiveIntegerField(blank=True, null=True)),
                ("burst", models.PositiveIntegerField(blank=True, null=True)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("created_by", models.CharField(blank=True, max_length=255)),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("spend_cycle_start", models.DateTimeField(editable=False, null=True)),
                (
                    "spent",
                    models.DecimalField(
                        decimal_places=10, default=Decimal("0"), editable=False, max_digits=22
                    ),
                ),
                (
                    "held",
                    models.DecimalField(
                        decimal_places=10, default=Decimal("0"), editable=False, max_digits=22
                    ),
                ),
                ("request_cycle_start", models.DateTimeField(editable=False, null=True)),
                ("requests", models.BigIntegerField(default=0, editable=False)),
                (
                    "total_spent",
                    models.DecimalField(
                        decimal_places=10, default=Decimal("0"), editable=False, max_digits=22
                    ),
                ),
                ("total_requests", models.BigIntegerField(default=0, editable=False)),
                (
                    "bucket",
                    models.DecimalField(decimal_places=4, editable=False, max_digits=14, null=True),
                ),
                ("bucket_at", models.DateTimeField(editable=False, null=True)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                (
                    "connection",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.connection",
                    ),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
                (
                    "meter",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="meters.meter",
                    ),
                ),
            ],
            options={
                "verbose_name": "spend key",
                "indexes": [models.Index(fields=["merchant", "-id"], name="token_by_merchant")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("connection", None), ("meter__isnull", False), _connector="OR"
                        ),
                        name="a_token_of_a_connection_names_a_meter",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("spend_limit", None),
                            models.Q(("spend_limit__gte", 0), ("spend_limit__lt", 1000000000000)),
                            _connector="OR",
                        ),
                        name="a_spend_limit_is_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("held__gte", 0), ("held__lt", 1000000000000)),
                        name="a_token_holds_no_negative",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="GatewayCall",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("connection_id", models.UUIDField(null=True)),
                ("meter_id", models.UUIDField(null=True)),
                ("price_id", models.UUIDField(null=True)),
                ("subscription_id", models.UUIDField(null=True)),
                ("hold_id", models.UUIDField(null=True)),
                ("token_id", models.UUIDField(null=True)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Running"),
                            ("completed", "Completed"),
                            ("error", "Failed at the provider"),
                            ("abandoned", "Freed after its process died"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                ("billing_disabled", models.BooleanField(default=False)),
                ("provider", models.CharField(max_length=40)),
                ("own_key", models.BooleanField(default=False)),
                ("method", models.CharField(max_length=8)),
                ("endpoint", models.CharField(max_length=500)),
                ("model", models.CharField(blank=True, max_length=120)),
                ("stream", models.BooleanField(default=False)),
                (
                    "held",
                    models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=22),
                ),
                ("estimated_input", models.BigIntegerField(default=0)),
                ("estimated_output", models.BigIntegerField(default=0)),
                ("seen_output", models.BigIntegerField(default=0)),
                ("seen_bytes", models.BigIntegerField(default=0)),
                ("seen_at", models.DateTimeField()),
                ("usage", models.JSONField(default=dict)),
                (
                    "flags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=20), default=list, size=None
                    ),
                ),
                (
                    "charged",
                    models.DecimalField(decimal_places=10, default=Decimal("0"), max_digits=22),
                ),
                ("http_status", models.PositiveSmallIntegerField(default=0)),
                ("error", models.CharField(blank=True, max_length=80)),
                ("overhead_ms", models.PositiveIntegerField(default=0)),
                ("first_byte_ms", models.PositiveIntegerField(default=0)),
                ("total_ms", models.PositiveIntegerField(default=0)),
                ("metadata", models.JSONField(default=dict)),
                ("created_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
            ],
            options={
                "verbose_name": "gateway call",
                "indexes": [
                    models.Index(fields=["merchant", "-id"], name="call_by_merchant"),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["seen_at"],
                        name="call_that_runs",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("held__gte", 0), ("held__lt", 1000000000000)),
                        name="a_call_holds_no_negative",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ModelPrice",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("provider", models.CharField(default="*", max_length=40)),
                ("model", models.CharField(max_length=120)),
                (
                    "input_rate",
                    models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
                ),
                (
                    "output_rate",
                    models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
                ),
                (
                    "cache_read_rate",
                    models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
                ),
                (
                    "cache_write_rate",
                    models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
                ),
                (
                    "image_rate",
                    models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
                ),
                (
                    "second_rate",
                    models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
                ),
                (
                    "character_rate",
                    models.DecimalField(blank=True, decimal_places=10, max_digits=22, null=True),
                ),
                ("valid_from", models.DateTimeField(default=django.utils.timezone.now)),
                ("created_by", models.CharField(blank=True, max_length=255)),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("merchant", "provider", "model", "valid_from"),
                        name="a_model_price_begins_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("input_rate", None),
                            models.Q(("input_rate__gte", 0), ("input_rate__lt", 1000000000000)),
                            _connector="OR",
                        ),
                        name="a_models_input_rate_is_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("output_rate", None),
                            models.Q(("output_rate__gte", 0), ("output_rate__lt", 1000000000000)),
                            _connector="OR",
                        ),
                        name="a_models_output_rate_is_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("cache_read_rate", None),
                            models.Q(
                                ("cache_read_rate__gte", 0), ("cache_read_rate__lt", 1000000000000)
                            ),
                            _connector="OR",
                        ),
                        name="a_models_cache_read_rate_is_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("cache_write_rate", None),
                            models.Q(
                                ("cache_write_rate__gte", 0),
                                ("cache_write_rate__lt", 1000000000000),
                            ),
                            _connector="OR",
                        ),
                        name="a_models_cache_write_rate_is_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("image_rate", None),
                            models.Q(("image_rate__gte", 0), ("image_rate__lt", 1000000000000)),
                            _connector="OR",
                        ),
                        name="a_models_image_rate_is_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("second_rate", None),
                            models.Q(("second_rate__gte", 0), ("second_rate__lt", 1000000000000)),
                            _connector="OR",
                        ),
                        name="a_models_second_rate_is_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("character_rate", None),
                            models.Q(
                                ("character_rate__gte", 0), ("character_rate__lt", 1000000000000)
                            ),
                            _connector="OR",
                        ),
                        name="a_models_character_rate_is_not_negative",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Provider",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("slug", models.CharField(max_length=40)),
                ("name", models.CharField(max_length=80)),
                ("scheme", models.CharField(default="https", max_length=5)),
                ("host", models.CharField(max_length=253)),
                ("port", models.PositiveIntegerField(default=443)),
                ("path", models.CharField(default="/v1", max_length=200)),
                ("dialect", models.CharField(default="openai", max_length=12)),
                ("slot", models.CharField(default="authorization", max_length=20)),
                ("prices", models.CharField(blank=True, max_length=40)),
                ("asks_usage", models.BooleanField(default=True)),
                ("private", models.BooleanField(default=False)),
                ("long_running", models.BooleanField(default=False)),
                ("archived_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("archived_at", None)),
                        fields=("merchant", "slug"),
                        name="a_provider_slug_is_used_once_by_a_merchant",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("scheme", "https"),
                            models.Q(("private", True), ("scheme", "http")),
                            _connector="OR",
                        ),
                        name="plain_http_stays_in_ones_own_network",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ProviderKey",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("provider", models.CharField(max_length=40)),
                ("origin", models.CharField(max_length=300)),
                ("sealed", models.BinaryField()),
                ("last4", models.CharField(blank=True, editable=False, max_length=4)),
                ("created_by", models.CharField(blank=True, max_length=255)),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("revoked_at", None)),
                        fields=("merchant", "provider"),
                        name="a_provider_has_one_key_of_a_merchant",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="RequestCost",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("provider", models.CharField(blank=True, max_length=40)),
                ("model", models.CharField(max_length=120)),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("override", "Your price"),
                            ("provider", "The provider's word"),
                            ("library", "The price library"),
                        ],
                        max_length=8,
                    ),
                ),
                ("amount", models.DecimalField(decimal_places=10, max_digits=22)),
                ("rates", models.JSONField(default=dict)),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.merchant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount__gte", 0), ("amount__lt", 1000000000000)),
                        name="a_cost_is_not_negative",
                    )
                ],
            },
        ),
        migrations.RunSQL(
            (SQL / "gateway.sql").read_text(encoding="utf-8"), reverse_sql=migrations.RunSQL.noop
        ),
    ]
