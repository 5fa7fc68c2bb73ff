"""What is sold: plans (on the wire: subscription configs) and the credit bundles they offer.

Written through `billing.plans`; price and interval of a plan that has subscribers never change
(money.md, Changing plans; also a trigger).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import models
from django.utils import timezone
from djmoney.models.fields import MoneyField

from billing.models.base import Tenant, bounded, credit_field


class Plan(Tenant):
    """A recurring price, the credit it gives each cycle, and what happens when that runs out."""

    ID_PREFIX = "sc"

    class Interval(models.TextChoices):
        DAY = "day", "Every day"
        WEEK = "week", "Every week"
        MONTH = "month", "Every month"
        YEAR = "year", "Every year"

    class Rollover(models.TextChoices):
        FULL = "full", "Rolls over"
        NONE = "none", "Ends"

    class WhenDepleted(models.TextChoices):
        OVERAGE = "overage", "Keep working, and charge the card"
        BLOCK = "block", "Stop until they buy a bundle"

    name = models.CharField(max_length=80)
    # What the card pays each cycle, in whole minor units. 0 is a free plan.
    price = MoneyField(max_digits=14, decimal_places=3, default_currency="USD")
    # Credits granted at the start of each cycle, in the currency of the price.
    included_credit = credit_field(default=Decimal(0))
    billing_interval = models.CharField(max_length=5, choices=Interval, default=Interval.MONTH)
    rollover_type = models.CharField(max_length=4, choices=Rollover, default=Rollover.NONE)
    bundle_rollover_type = models.CharField(max_length=4, choices=Rollover, default=Rollover.FULL)
    # At most so much is carried into a cycle, oldest cut first; null: all of it.
    rollover_cap = credit_field(null=True, blank=True)
    when_depleted = models.CharField(
        max_length=7, choices=WhenDepleted, default=WhenDepleted.OVERAGE
    )
    # What is owed is charged when it reaches this much, or when the cycle ends.
    overage_threshold = credit_field(default=Decimal(10))
    # At most so much overage a cycle, then as `block`; null: no cap.
    overage_cap = credit_field(null=True, blank=True)
    # Below so much the customer is told that credits run low; null: never. Counts from a
    # subscriber's next cycle on (`Connection.low_mark`).
    low_credit_threshold = credit_field(null=True, blank=True)
    # After a declined renewal the gateway serves so many days more.
    grace_days = models.PositiveSmallIntegerField(default=3)
    # The first version of this plan; null: it is the first itself. Set by `plans.new_version`.
    family = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="later_versions",
        editable=False,
    )
    version = models.PositiveIntegerField(default=1, editable=False)
    # What a new subscription tops up with, unless its customer says otherwise; a bundle of this
    # plan (also a foreign key of both columns).
    default_auto_top_up_bundle = models.ForeignKey(
        "billing.CreditBundle",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        editable=False,
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "plan"
        constraints = [
            models.CheckConstraint(condition=bounded("price"), name="a_plan_price_is_not_negative"),
            models.CheckConstraint(
                condition=bounded("included_credit"), name="a_plan_includes_no_negative_credit"
            ),
            models.CheckConstraint(
                condition=bounded("overage_threshold"), name="an_overage_threshold_is_not_negative"
            ),
            models.CheckConstraint(
                condition=models.Q(overage_cap=None) | bounded("overage_cap"),
                name="an_overage_cap_is_not_negative",
            ),
            models.CheckConstraint(
                condition=models.Q(rollover_cap=None) | bounded("rollover_cap"),
                name="a_rollover_cap_is_not_negative",
            ),
            models.CheckConstraint(
                condition=models.Q(low_credit_threshold=None) | bounded("low_credit_threshold"),
                name="a_low_credit_threshold_is_not_negative",
            ),
            models.UniqueConstraint(
                fields=["family", "version"], name="a_version_of_a_plan_is_made_once"
            ),
            models.CheckConstraint(
                condition=models.Q(family=None, version=1)
                | models.Q(family__isnull=False, version__gt=1),
                name="only_the_first_version_heads_a_family",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def currency(self) -> str:
        return str(self.price.currency)

    @property
    def is_free(self) -> bool:
        return bool(self.price.amount == 0)

    @property
    def head_id(self) -> UUID:
        """The first version of this plan, which names its family."""
        found: UUID = self.family_id or self.pk
        return found

    @property
    def needs_card(self) -> bool:
        """Whether anything of this plan can ever be charged to a card."""
        return not self.is_free or self.when_depleted == self.WhenDepleted.OVERAGE

    @property
    def live_bundles(self) -> Any:
        return self.bundles.filter(deleted_at=None).order_by("position", "id")


class CreditBundle(Tenant):
    """Credits that a subscriber of the plan can buy on top: `cost` from the card for `credit`."""

    ID_PREFIX = "cb"

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="bundles")
    name = models.CharField(max_length=80)
    cost = MoneyField(max_digits=14, decimal_places=3, default_currency="USD")
    credit_amount = credit_field()
    position = models.PositiveSmallIntegerField(default=0)
    # Removed bundles stay for the books and are offered no more.
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "bundle"
        constraints = [
            models.CheckConstraint(condition=bounded("cost"), name="a_bundle_cost_is_not_negative"),
            models.CheckConstraint(
                condition=bounded("credit_amount"), name="a_bundle_gives_no_negative_credit"
            ),
        ]

    def __str__(self) -> str:
        return self.name
