"""Who pays: customers, their connections (what is billed), subscriptions and cycles.

`Connection`'s money columns are written by `billing/sql/ledger.sql` alone. Subscriptions and
cycles are written by `billing.subscriptions` and `billing.renewals`, under the connection's lock.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from django.db import models
from django.utils import timezone

from billing.models.base import Tenant, TenantQuerySet, bounded, credit_field
from billing.models.plans import CreditBundle, Plan


class Customer(Tenant):
    """A verified phone within one merchant; nothing of it is shared between merchants."""

    ID_PREFIX = "cus"

    # E.164, e.g. +14155550142.
    phone = models.CharField(max_length=16)
    email = models.EmailField(blank=True)
    first_name = models.CharField(max_length=80, blank=True)
    last_name = models.CharField(max_length=80, blank=True)
    # The customer's id at the card network, once a card was asked for.
    card_customer_id = models.CharField(max_length=64, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "phone"], name="a_phone_is_one_customer_of_a_merchant"
            )
        ]

    def __str__(self) -> str:
        return self.name or self.masked_phone

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip()

    @property
    def masked_phone(self) -> str:
        """The number with its last four digits, as people are shown it."""
        return f"{self.phone[:2]} \u2022\u2022\u2022 {self.phone[-4:]}"


class ConnectionQuerySet(TenantQuerySet):
    def visible(self) -> Any:
        """Connections that exist for clients: activated by a completed checkout, not deleted."""
        return self.exclude(status__in=["pending", "deleted"])


class Connection(Tenant):
    """One customer of one merchant; what is billed.

    `balance`, `debt`, `collecting`, `cycle_overage` and `entry_count` are the head of its ledger:
    `balance` = sum of its entries = remainders of its grants - `debt`.
    """

    ID_PREFIX = "con"

    class Status(models.TextChoices):
        PENDING = "pending", "Checkout not finished"
        ACTIVE = "active", "Active"
        DISABLED = "disabled", "Disabled"
        DELETED = "deleted", "Deleted"

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="connections")
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=8, choices=Status, default=Status.PENDING)
    # The merchant's own id of this customer, for their search.
    reference = models.CharField(max_length=255, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    activated_at = models.DateTimeField(null=True, blank=True, editable=False)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    entry_count = models.BigIntegerField(default=0, editable=False)
    balance = credit_field(default=Decimal(0), editable=False)
    # Fees that no credit covered and nobody has paid yet.
    debt = credit_field(default=Decimal(0), editable=False)
    # Stands in the index in place of `debt`, so that most charges leave every index alone.
    owes = models.GeneratedField(
        expression=models.ExpressionWrapper(
            models.Q(debt__gt=0), output_field=models.BooleanField()
        ),
        output_field=models.BooleanField(),
        db_persist=True,
    )
    # The part of the debt that an open overage charge is collecting from the card right now.
    collecting = credit_field(default=Decimal(0), editable=False)
    # The sum of its open holds; written by `billing/sql/holds.sql` alone.
    held = credit_field(default=Decimal(0), editable=False)
    # Debt made since the cycle began, for the plan's overage cap.
    cycle_overage = credit_field(default=Decimal(0), editable=False)
    # After a declined overage charge: how many, and when the next try is due.
    overage_attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    overage_next_attempt_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[Any] = ConnectionQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["merchant"], name="connection_that_owes", condition=models.Q(owes=True)
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "customer"],
                name="a_customer_has_one_connection",
                condition=~models.Q(status="deleted"),
            ),
            models.CheckConstraint(condition=bounded("debt"), name="debt_is_not_negative"),
            models.CheckConstraint(condition=bounded("held"), name="held_is_not_negative"),
            models.CheckConstraint(
                condition=models.Q(collecting__gte=0, collecting__lte=models.F("debt")),
                name="only_debt_is_collected",
            ),
            models.CheckConstraint(
                condition=models.Q(balance__gt=-(10**12), balance__lt=10**12),
                name="a_balance_is_a_number",
            ),
        ]

    def __str__(self) -> str:
        return str(self.customer)

    @property
    def subscription(self) -> Subscription | None:
        """The subscription that counts now, active or past due; None without one."""
        found: Subscription | None = self.subscriptions.current().select_related("plan").first()
        return found

    @property
    def card(self) -> Any:
        """The saved card that off-session charges use; None without one."""
        return self.payment_methods.filter(is_default=True, detached_at=None).first()


class SubscriptionQuerySet(TenantQuerySet):
    def current(self) -> Any:
        return self.filter(status__in=Subscription.CURRENT)

    def due(self, merchant: Any, now: datetime) -> Any:
        """Subscriptions of the merchant whose cycle has ended and whose next try has come."""
        return self.of(merchant).filter(
            models.Q(next_attempt_at=None) | models.Q(next_attempt_at__lte=now),
            status__in=Subscription.CURRENT,
            cycle_end__lte=now,
        )


class Subscription(Tenant):
    """A connection's place on a plan, and the cycle it is in. At most one counts at a time."""

    ID_PREFIX = "sub"

    class Status(models.TextChoices):
        ACTIVE = "active", "Active"
        PAST_DUE = "past_due", "Past due"
        CANCELLED = "cancelled", "Cancelled"

    CURRENT = (Status.ACTIVE, Status.PAST_DUE)

    class PendingChange(models.TextChoices):
        CANCELLATION = "cancellation", "Cancels at the end of the cycle"
        DOWNGRADE = "downgrade", "Moves to a smaller plan at the end of the cycle"

    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, related_name="subscriptions"
    )
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="subscriptions")
    status = models.CharField(max_length=9, choices=Status, default=Status.ACTIVE)
    # Cycles are computed from the anchor, the plan's interval and the number, never chained.
    anchor = models.DateTimeField()
    # The merchant's zone when the anchor was set; a later change leaves it as it is.
    time_zone = models.CharField(max_length=64)
    cycle_index = models.PositiveIntegerField(default=0)
    cycle_start = models.DateTimeField()
    cycle_end = models.DateTimeField()
    started_at = models.DateTimeField()
    pending_change = models.CharField(max_length=12, choices=PendingChange, null=True, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    past_due_since = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    auto_top_up_bundle = models.ForeignKey(
        CreditBundle, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    objects: ClassVar[Any] = SubscriptionQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["merchant", "cycle_end"],
                name="subscription_by_cycle_end",
                condition=models.Q(status__in=["active", "past_due"]),
            ),
            models.Index(fields=["connection"], name="subscription_by_connection"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["connection"],
                name="a_connection_has_one_current_subscription",
                condition=models.Q(status__in=["active", "past_due"]),
            ),
            models.CheckConstraint(
                condition=models.Q(cycle_start__lt=models.F("cycle_end")),
                name="a_cycle_ends_after_it_starts",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.connection} on {self.plan}"


class Cycle(Tenant):
    """One cycle of a subscription, paid or skipped; one row a number, whatever runs twice."""

    ID_PREFIX = "cyc"

    class State(models.TextChoices):
        GRANTED = "granted", "Paid and granted"
        SKIPPED = "skipped", "Slept through, not charged"

    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="cycles")
    index = models.PositiveIntegerField()
    start = models.DateTimeField()
    end = models.DateTimeField()
    state = models.CharField(max_length=7, choices=State)
    # The payment that opened it; null where the price was 0 or the cycle was skipped.
    payment = models.ForeignKey(
        "billing.Payment", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["subscription", "index"], name="a_cycle_is_opened_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subscription}, cycle {self.index}"
