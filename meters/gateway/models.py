"""The gateway's tables: a merchant's own providers and keys, prices of models, tokens, and calls.

Settings are written by the verbs of `meters.gateway.keyring` (providers, keys, prices) and
`meters.gateway.spendkeys`; `GatewayCall`, `RequestCost` and a token's counters by
`meters/sql/gateway_functions.sql` alone.
"""

from __future__ import annotations

from decimal import Decimal

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from billing.models.base import Tenant, bounded, credit_field
from meters.gateway import providers


class Provider(Tenant):
    """A provider of the merchant's own, e.g. their vLLM; the common ones are in `providers.TABLE`.

    Host and port never change: keys were entered for them. Another address is another row.
    """

    ID_PREFIX = "prv"

    slug = models.CharField(max_length=40)
    name = models.CharField(max_length=80)
    scheme = models.CharField(max_length=5, default="https")
    host = models.CharField(max_length=253)
    port = models.PositiveIntegerField(default=443)
    # The prefix of the paths that may be called, e.g. /v1.
    path = models.CharField(max_length=200, default="/v1")
    dialect = models.CharField(max_length=12, default="openai")
    slot = models.CharField(max_length=20, default=providers.BEARER)
    # The provider's name in the price library; empty: prices come from `ModelPrice` alone.
    prices = models.CharField(max_length=40, blank=True)
    asks_usage = models.BooleanField(default=True)
    # May lie in one's own network. Link-local addresses are never reached.
    private = models.BooleanField(default=False)
    # Batches, fine-tuning, background work: what runs on after the gateway stopped looking.
    long_running = models.BooleanField(default=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "slug"],
                name="a_provider_slug_is_used_once_by_a_merchant",
                condition=models.Q(archived_at=None),
            ),
            models.CheckConstraint(
                condition=models.Q(scheme="https") | models.Q(scheme="http", private=True),
                name="plain_http_stays_in_ones_own_network",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def row(self) -> providers.Provider:
        """The row as the target check reads it."""
        return providers.Provider(
            slug=self.slug,
            name=self.name,
            host=self.host,
            paths=(self.path,),
            dialect=self.dialect,
            slot=self.slot,
            prices=self.prices,
            asks_usage=self.asks_usage,
            scheme=self.scheme,
            port=self.port,
            own=True,
            private=self.private,
            long_running=self.long_running,
        )


class ProviderKey(Tenant):
    """The merchant's key at a provider: sealed at rest, sent to its own origin alone.

    One counts at a time for a provider; a new one revokes the one before it.
    """

    ID_PREFIX = "pvk"

    # The slug of a row of `providers.TABLE` or of the merchant's own.
    provider = models.CharField(max_length=40)
    # Scheme, host and port that it was entered for; a row that moved gets no key.
    origin = models.CharField(max_length=300)
    sealed = models.BinaryField(editable=False)
    last4 = models.CharField(max_length=4, blank=True, editable=False)
    created_by = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "provider"],
                name="a_provider_has_one_key_of_a_merchant",
                condition=models.Q(revoked_at=None),
            )
        ]

    def __str__(self) -> str:
        return f"{self.provider} \u2022\u2022\u2022\u2022{self.last4}"


def _rate() -> models.DecimalField:
    return models.DecimalField(max_digits=22, decimal_places=10, null=True, blank=True)


class ModelPrice(Tenant):
    """What a model costs the merchant, where their price differs from the library's.

    Rates are in the merchant's currency: per million tokens, per image, per second, per character.
    Never changed: a new price is a new row from its `valid_from` on.
    """

    ID_PREFIX = "mdp"

    # A provider's slug, or * for any.
    provider = models.CharField(max_length=40, default="*")
    # A model's name; * stands for any characters.
    model = models.CharField(max_length=120)
    input_rate = _rate()
    output_rate = _rate()
    cache_read_rate = _rate()
    cache_write_rate = _rate()
    image_rate = _rate()
    second_rate = _rate()
    character_rate = _rate()
    valid_from = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "provider", "model", "valid_from"],
                name="a_model_price_begins_once",
            ),
            *(
                models.CheckConstraint(
                    condition=models.Q(**{f"{name}_rate": None}) | bounded(f"{name}_rate"),
                    name=f"a_models_{name}_rate_is_not_negative",
                )
                for name in (
                    "input", "output", "cache_read", "cache_write", "image", "second", "character"
                )
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.model} at {self.provider}"


class ForwardToken(Tenant):
    """An opaque token (spend key): who may call what, for whom, how much. Only its hash is kept.

    With a connection and a meter the customer pays; with a meter alone it is counted; with neither
    it is the merchant's own call. The counters are written by `meters/sql/gateway.sql`, under this
    row's lock, after the connection's.
    """

    ID_PREFIX = "spk"

    class Status(models.TextChoices):
        ACTIVE = "active", "Active"
        PAUSED = "paused", "Paused"

    class Cycle(models.TextChoices):
        DAILY = "daily", "a day"
        WEEKLY = "weekly", "a week"
        MONTHLY = "monthly", "a month"
        TOTAL = "total", "in total"

    name = models.CharField(max_length=80)
    secret_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    hint = models.CharField(max_length=32, editable=False)
    status = models.CharField(max_length=6, choices=Status, default=Status.ACTIVE)
    # The foreign keys of this table are composite, with the merchant: `meters/sql/gateway.sql`.
    connection = models.ForeignKey(
        "billing.Connection",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_constraint=False,
    )
    meter = models.ForeignKey(
        "meters.Meter",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    request_shape = models.CharField(max_length=9, default="openai")
    # Null: any.
    allowed_models = ArrayField(models.CharField(max_length=120), null=True, blank=True)
    allowed_providers = ArrayField(models.CharField(max_length=40), null=True, blank=True)
    spend_limit = credit_field(null=True, blank=True)
    spend_cycle = models.CharField(max_length=7, choices=Cycle, default=Cycle.TOTAL)
    request_limit = models.BigIntegerField(null=True, blank=True)
    request_cycle = models.CharField(max_length=7, choices=Cycle, default=Cycle.TOTAL)
    # Calls a minute, and how many may come at once (empty: as many).
    rpm = models.PositiveIntegerField(null=True, blank=True)
    burst = models.PositiveIntegerField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    # Counters. What was spent and is held in the running cycle, and for life.
    spend_cycle_start = models.DateTimeField(null=True, editable=False)
    spent = credit_field(default=Decimal(0), editable=False)
    held = credit_field(default=Decimal(0), editable=False)
    request_cycle_start = models.DateTimeField(null=True, editable=False)
    requests = models.BigIntegerField(default=0, editable=False)
    total_spent = credit_field(default=Decimal(0), editable=False)
    total_requests = models.BigIntegerField(default=0, editable=False)
    # A bucket of calls, refilled at `rpm`; in real time.
    bucket = models.DecimalField(max_digits=14, decimal_places=4, null=True, editable=False)
    bucket_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "spend key"
        indexes = [models.Index(fields=["merchant", "-id"], name="token_by_merchant")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(connection=None) | models.Q(meter__isnull=False),
                name="a_token_of_a_connection_names_a_meter",
            ),
            models.CheckConstraint(
                condition=models.Q(spend_limit=None) | bounded("spend_limit"),
                name="a_spend_limit_is_not_negative",
            ),
            models.CheckConstraint(condition=bounded("held"), name="a_token_holds_no_negative"),
        ]

    def __str__(self) -> str:
        return self.name


class GatewayCall(Tenant):
    """One call through the gateway, from its hold to its settlement.

    Its id is the id of the request that it became (`UsageRequest` with the same key), where a
    customer paid for it. `pending` until it is settled, once; a call whose process died is settled
    or freed by the sweep. What was refused to a known caller is `blocked` and was never held.
    """

    ID_PREFIX = "req"

    class Status(models.TextChoices):
        PENDING = "pending", "Running"
        COMPLETED = "completed", "Completed"
        ERROR = "error", "Failed at the provider"
        ABANDONED = "abandoned", "Freed after its process died"
        BLOCKED = "blocked", "Refused before the provider"

    # The foreign keys of this table are composite, with the merchant: `meters/sql/gateway.sql`.
    connection_id = models.UUIDField(null=True)
    meter_id = models.UUIDField(null=True)
    price_id = models.UUIDField(null=True)
    subscription_id = models.UUIDField(null=True)
    hold_id = models.UUIDField(null=True)
    token_id = models.UUIDField(null=True)
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    # Counted, not charged, by the word of the caller.
    billing_disabled = models.BooleanField(default=False)
    provider = models.CharField(max_length=40)
    # The caller brought the provider's key.
    own_key = models.BooleanField(default=False)
    method = models.CharField(max_length=8)
    endpoint = models.CharField(max_length=500)
    model = models.CharField(max_length=120, blank=True)
    stream = models.BooleanField(default=False)
    # What was set aside, of the connection and of the token.
    held = credit_field(default=Decimal(0))
    # The estimate of the request, in tokens: what is charged where the answer never said.
    estimated_input = models.BigIntegerField(default=0)
    estimated_output = models.BigIntegerField(default=0)
    # What has come back so far; moved on while the call runs, so that a death is not for free.
    seen_output = models.BigIntegerField(default=0)
    seen_bytes = models.BigIntegerField(default=0)
    seen_at = models.DateTimeField()
    # What the answer said: counts by kind (`readers.Usage.counts`).
    usage = models.JSONField(default=dict)
    # Words on how the usage was found: estimated, partial, unpriced, suspect, ...
    flags = ArrayField(models.CharField(max_length=20), default=list)
    charged = credit_field(default=Decimal(0))
    http_status = models.SmallIntegerField(default=0)
    error = models.CharField(max_length=80, blank=True)
    # Milliseconds: the gateway's own time, to the first byte of the answer, to its end.
    overhead_ms = models.IntegerField(default=0)
    first_byte_ms = models.IntegerField(default=0)
    total_ms = models.IntegerField(default=0)
    metadata = models.JSONField(default=dict)
    # On the merchant's clock; `seen_at` is in real time.
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "gateway call"
        indexes = [
            models.Index(fields=["merchant", "-id"], name="call_by_merchant"),
            models.Index(
                fields=["seen_at"], name="call_that_runs", condition=models.Q(status="pending")
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=bounded("held"), name="a_call_holds_no_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.model or self.endpoint} at {self.provider}"


class GatewayEpoch(models.Model):
    """How often what the gateway tells of a merchant's callers has changed: their meters, tokens,
    providers, keys, prices. Moved on by triggers (`meters/sql/gateway_epochs.sql`)."""

    merchant_id = models.UUIDField(primary_key=True)
    epoch = models.BigIntegerField()

    def __str__(self) -> str:
        return str(self.epoch)


class RequestCost(Tenant):
    """How the provider's cost of a request or call was found: the source, the rates, the usage.

    Its id is the request's. Written beside the charge, never changed.
    """

    ID_PREFIX = "req"

    class Source(models.TextChoices):
        OVERRIDE = "override", "Your price"
        PROVIDER = "provider", "The provider's word"
        LIBRARY = "library", "The price library"

    provider = models.CharField(max_length=40, blank=True)
    model = models.CharField(max_length=120)
    source = models.CharField(max_length=8, choices=Source)
    amount = credit_field()
    # The rates it was computed with, as strings by unit; `price` where a `ModelPrice` was used.
    rates = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=bounded("amount"), name="a_cost_is_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.model}: {self.amount}"
