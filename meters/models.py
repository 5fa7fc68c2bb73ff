"""Meters, the versions of their prices, and the requests they charged.

`MeterPrice` rows are written once by `meters.prices.publish` and never change; `UsageRequest` and
`MeterPosition` are written by `meters/sql/charge.sql`, and by `meters.usage.void`, which writes
`Void`; `meters.volume` writes `VolumeSettlement`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from billing.models import Connection, Plan, Tenant
from billing.models.base import TenantQuerySet, Walled, bounded, credit_field
from meters import pricing
from meters.gateway.models import ForwardToken as ForwardToken
from meters.gateway.models import GatewayCall as GatewayCall
from meters.gateway.models import ModelPrice as ModelPrice
from meters.gateway.models import Provider as Provider
from meters.gateway.models import ProviderKey as ProviderKey
from meters.gateway.models import RequestCost as RequestCost
from meters.rollup_models import ConnectionUsage as ConnectionUsage
from meters.rollup_models import DayUsage as DayUsage
from meters.rollup_models import MerchantUsage as MerchantUsage
from meters.rollup_models import ModelUsage as ModelUsage
from meters.rollup_models import UsageDelta as UsageDelta


class Meter(Tenant):
    """Something that is counted and priced. Attached to the plans where it is active."""

    ID_PREFIX = "prd"

    slug = models.CharField(
        max_length=64,
        validators=[
            RegexValidator(
                r"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$",
                "Use small letters, digits, - and _; start and end with a letter or digit.",
            )
        ],
    )
    name = models.CharField(max_length=80)
    # The version in force; null only between the insert of a meter and of its first price.
    price = models.ForeignKey(
        "meters.MeterPrice", null=True, on_delete=models.PROTECT, related_name="+", editable=False
    )
    plans = models.ManyToManyField(Plan, through="meters.MeterPlan", related_name="meters")
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "meter"
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "slug"], name="a_meter_slug_is_used_once_by_a_merchant"
            )
        ]

    def __str__(self) -> str:
        return self.name


class MeterPlan(models.Model):
    """A meter is active on a plan."""

    merchant = models.ForeignKey("billing.Merchant", on_delete=models.PROTECT, related_name="+")
    meter = models.ForeignKey(Meter, on_delete=models.CASCADE, related_name="links")
    plan = models.ForeignKey(Plan, on_delete=models.CASCADE, related_name="meter_links")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["plan", "meter"], name="a_meter_is_attached_once_to_a_plan"
            )
        ]

    def __str__(self) -> str:
        return f"{self.meter} on {self.plan}"


class MeterPrice(Tenant):
    """One version of a meter's price, immutable. Each request keeps the version it was priced with.

    Tiers are two arrays of one length: `tier_starts` in the unit counted (tokens, characters,
    minutes, requests; the first is 0), `tier_rates` in money per unit of `unit`, or percent.
    """

    ID_PREFIX = "mpr"

    class RateType(models.TextChoices):
        FIXED = "fixed", "Rate per unit"
        PERCENTAGE = "percentage", "Cost plus %"

    class Unit(models.TextChoices):
        TOKENS = "tokens_1m", "Tokens"
        CHARACTERS = "characters_1m", "Characters"
        MINUTES = "minutes", "Minutes"
        REQUESTS = "requests", "Requests"

    class TokenBasis(models.TextChoices):
        BOTH = "input+output", "Input and output"
        OUTPUT = "output", "Output only"

    class TierWindow(models.TextChoices):
        LIFETIME = "lifetime", "Count for life"
        CYCLE = "cycle", "Start again each cycle"

    class PackageRounding(models.TextChoices):
        UP = "up", "A package begun is paid"
        DOWN = "down", "A package is paid when it is used up"

    class TierMode(models.TextChoices):
        GRADUATED = "graduated", "Each unit pays the rate of its tier"
        VOLUME = "volume", "All units of a cycle pay the rate of the tier they reach"

    class Payer(models.TextChoices):
        MERCHANT = "merchant", "You pay the provider"
        WALLET = "wallet", "The customer pays the provider's cost too"

    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="prices")
    version = models.PositiveIntegerField()
    rate_type = models.CharField(max_length=10, choices=RateType, default=RateType.FIXED)
    unit = models.CharField(max_length=13, choices=Unit, default=Unit.TOKENS)
    token_basis = models.CharField(max_length=12, choices=TokenBasis, default=TokenBasis.BOTH)
    tier_window = models.CharField(max_length=8, choices=TierWindow, default=TierWindow.LIFETIME)
    base_cost_payer = models.CharField(max_length=8, choices=Payer, default=Payer.MERCHANT)
    tier_starts = ArrayField(models.DecimalField(max_digits=22, decimal_places=6))
    tier_rates = ArrayField(models.DecimalField(max_digits=22, decimal_places=10))
    # Flat amounts and kinds of tokens by tier; empty: none (`meters.pricing.Tier`).
    tier_flats = ArrayField(models.DecimalField(max_digits=22, decimal_places=10), default=list)
    tier_kinds = ArrayField(models.CharField(max_length=11), default=list)
    # Of tiers by volume the first is above, since every request pays it when it comes; these are
    # the others, which count when the cycle is over (`meters.volume`). Empty: graduated.
    volume_starts = ArrayField(models.DecimalField(max_digits=22, decimal_places=6), default=list)
    volume_rates = ArrayField(models.DecimalField(max_digits=22, decimal_places=10), default=list)
    # In the unit counted, as `tier_starts`; 0: none.
    free_allowance = models.DecimalField(max_digits=22, decimal_places=6, default=Decimal(0))
    package_size = models.DecimalField(max_digits=22, decimal_places=6, default=Decimal(0))
    package_rounding = models.CharField(
        max_length=4, choices=PackageRounding, default=PackageRounding.UP
    )
    created_by = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["meter", "-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["meter", "version"], name="a_price_version_is_published_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter}, version {self.version}"

    @property
    def tier_mode(self) -> str:
        """Whether its tiers are graduated, or by volume."""
        return self.TierMode.VOLUME if self.volume_starts else self.TierMode.GRADUATED

    @property
    def tiers(self) -> list[pricing.Tier]:
        """All its tiers, as they were published."""
        starts = [*self.tier_starts, *self.volume_starts]
        count = len(starts)
        return [
            pricing.Tier(start=start, rate=rate, flat=flat, kind=kind)
            for start, rate, flat, kind in zip(
                starts,
                [*self.tier_rates, *self.volume_rates],
                self.tier_flats or [Decimal(0)] * count,
                self.tier_kinds or [""] * count,
                strict=True,
            )
        ]


class MeterPosition(models.Model):
    """How much of a meter a connection has used: the place in its tiers.

    `window` is -1 for a lifetime, else the number of the subscription's cycle; `quantity` in the
    unit of `pricing.quantity` (tokens, characters, seconds, requests).
    """

    pk = models.CompositePrimaryKey("connection_id", "meter_id", "scope", "window")
    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+", db_index=False)
    # The subscription for a cycle's window; the connection itself for a lifetime.
    scope = models.UUIDField()
    window = models.IntegerField()
    quantity = models.DecimalField(max_digits=28, decimal_places=6)
    # The furthest `quantity` ever was: a void steps it back, and asks no flat amount again.
    peak = models.DecimalField(max_digits=28, decimal_places=6, default=Decimal(0))
    # Used at a price by volume since it was last settled (`meters.volume`).
    unsettled = models.BooleanField(default=False, db_default=False)
    # The least key of the requests it counts: where reading them begins. Null: nobody noted it.
    first_request = models.UUIDField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["scope"], name="position_to_settle", condition=models.Q(unsettled=True)
            ),
        ]


class VolumeSettlement(Tenant):
    """What a cycle's usage at a price by volume cost in the end, and what was given back of it.

    One row for each version of the price and each time it was settled: usage that came after the
    cycle was settled (a renewal that waits for its card) is settled by another row. Written by
    `meters.volume` alone, never changed.
    """

    ID_PREFIX = "vol"

    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="+")
    subscription = models.ForeignKey(
        "billing.Subscription", on_delete=models.PROTECT, related_name="+"
    )
    cycle_index = models.IntegerField()
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+")
    price = models.ForeignKey(MeterPrice, on_delete=models.PROTECT, related_name="+")
    # What the meter counted in the cycle, and what of it this version billed.
    total = models.DecimalField(max_digits=28, decimal_places=6)
    billed = models.DecimalField(max_digits=28, decimal_places=6)
    # Fees as they were charged, what they come to in the end, and what was given back: their
    # difference, less what rows before gave.
    charged = credit_field()
    fee = credit_field()
    amount = credit_field()
    # Null where nothing was to be given back.
    grant = models.OneToOneField(
        "billing.CreditGrant", null=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=bounded("amount") & bounded("fee") & bounded("charged"),
                name="a_volume_settlement_gives_no_less_than_nothing",
            ),
            models.CheckConstraint(
                condition=models.Q(amount=0, grant=None)
                | models.Q(amount__gt=0, grant__isnull=False),
                name="what_a_volume_settlement_gives_is_a_grant",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter}, cycle {self.cycle_index + 1}"


class RequestQuerySet(TenantQuerySet):
    """Questions about requests."""

    def told_as(self, merchant: Any, text: str) -> Self:
        """The one request of a merchant that its backend called so, if any."""
        keys = RequestKey.objects.filter(merchant_id=merchant.pk, request_id=text)
        return self.of(merchant).filter(pk=keys.values("row")[:1])


class UsageRequest(Walled):
    """One charged request: what was used, the price it met, what paid for it.

    Never changed, but for its status: a request that was taken back has a `Void`, and keeps its
    figures as they were charged. Partitioned by the month in which it was made
    (`meters/sql/partition_functions.sql`).
    """

    ID_PREFIX = "req"

    objects: ClassVar[Any] = RequestQuerySet.as_manager()

    class Status(models.TextChoices):
        PENDING = "pending", "Running"
        COMPLETED = "completed", "Charged"
        ERROR = "error", "Failed"
        VOIDED = "voided", "Taken back"

    connection = models.ForeignKey(
        Connection,
        on_delete=models.PROTECT,
        related_name="requests",
        db_index=False,
        db_constraint=False,
    )
    meter = models.ForeignKey(
        Meter,
        on_delete=models.PROTECT,
        related_name="requests",
        db_index=False,
        db_constraint=False,
    )
    price = models.ForeignKey(
        MeterPrice, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    subscription_id = models.UUIDField()
    cycle_index = models.IntegerField()
    # The client's own id: the key of the request, for ever (api.md, Repeats); see `RequestKey`.
    request_id = models.CharField(max_length=255)
    # SHA-256 of the body's meaning: the same id with another one is refused.
    fingerprint = models.BinaryField(max_length=32)
    status = models.CharField(max_length=9, choices=Status, default=Status.COMPLETED)
    model = models.CharField(max_length=120, blank=True, default="")
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    input_characters = models.BigIntegerField(default=0)
    output_characters = models.BigIntegerField(default=0)
    input_seconds = models.DecimalField(max_digits=18, decimal_places=6, default=Decimal(0))
    output_seconds = models.DecimalField(max_digits=18, decimal_places=6, default=Decimal(0))
    # Parts of the input tokens; null: none.
    cache_read_tokens = models.BigIntegerField(null=True)
    cache_write_tokens = models.BigIntegerField(null=True)
    # What was rated, and the position in the tiers before it.
    quantity = models.DecimalField(max_digits=28, decimal_places=6)
    position_before = models.DecimalField(max_digits=28, decimal_places=6)
    # The furthest the position was before it, where a void had moved it back; else null.
    peak_before = models.DecimalField(max_digits=28, decimal_places=6, null=True)
    fee = credit_field()
    # [[tier number, quantity, amount], ...]; numbers as strings; adds up to the fee.
    slices = models.JSONField(default=list)
    # [[grant id, amount], ...] in the order drawn; grant null: what became debt.
    draws = models.JSONField(default=list)
    provider_cost = credit_field(null=True)
    # What the connection paid: the fee, and the provider's cost where the customer bears it.
    charged = credit_field()
    cycle_remaining = credit_field()
    bundle_remaining = credit_field()
    debt_after = credit_field()
    late = models.BooleanField(default=False)
    metadata = models.JSONField(default=dict)
    # When the work was done, as the client says (default: when it arrived).
    timestamp = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "request"
        indexes = [
            models.Index(fields=["merchant", "-id"], name="request_by_merchant"),
            models.Index(fields=["connection", "-id"], name="request_by_connection"),
        ]
        constraints = [
            models.CheckConstraint(condition=bounded("fee"), name="a_fee_is_not_negative"),
            models.CheckConstraint(condition=bounded("charged"), name="a_charge_is_not_negative"),
        ]

    def __str__(self) -> str:
        return self.request_id

    @property
    def total_remaining(self) -> Decimal:
        left: Decimal = self.cycle_remaining + self.bundle_remaining - self.debt_after
        return left


class RequestKey(models.Model):
    """A client's own id of a request, once a merchant and for ever: the requests themselves are
    split by month, over which no unique key can reach. Written by the database beside each request
    (`meters/sql/rollup_functions.sql`, `batch.sql`)."""

    pk = models.CompositePrimaryKey("merchant_id", "request_id")
    merchant_id = models.UUIDField()
    request_id = models.CharField(max_length=255)
    # The key of the request.
    row = models.UUIDField()

    def __str__(self) -> str:
        return self.request_id


class Void(Tenant):
    """A request taken back, once: why, by whom, and what the balance was after it.

    Its credits returned as `refund` lines of the ledger that name the request. Never changed.
    """

    ID_PREFIX = "void"

    request = models.OneToOneField(UsageRequest, on_delete=models.PROTECT, related_name="void")
    reason = models.CharField(max_length=255)
    actor = models.CharField(max_length=255)
    # Where the meter's count stood; it stepped back by the request's quantity.
    position_before = models.DecimalField(max_digits=28, decimal_places=6)
    cycle_remaining = credit_field()
    bundle_remaining = credit_field()
    debt_after = credit_field()
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(reason="") & ~models.Q(actor=""),
                name="a_void_has_a_reason_and_a_name",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.request}, taken back"
