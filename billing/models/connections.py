"""Who pays: customers, their connections (what is billed), subscriptions and cycles.

`Connection`'s money columns are written by `billing/sql/ledger.sql` alone. Subscriptions and
cycles are written by `billing.subscriptions` and `billing.renewals`, under the connection's lock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from django.db import models
from django.utils import timezone

from billing.models.base import Tenant, TenantQuerySet, Walled, bounded, credit_field
from billing.models.plans import CreditBundle, Plan


class Customer(Tenant):
    """A verified phone within one merchant; nothing of it is shared between merchants."""

    ID_PREFIX = "cus"

    # E.164, e.g. +14155550142. Empty: a backend made the customer without one, and the phone that
    # is confirmed at their first checkout becomes theirs.
    phone = models.CharField(max_length=16, blank=True)
    email = models.EmailField(blank=True)
    first_name = models.CharField(max_length=80, blank=True)
    last_name = models.CharField(max_length=80, blank=True)
    # The language they were last seen in at a hosted page, e.g. de; mails speak it. Empty: English.
    locale = models.CharField(max_length=8, blank=True)
    # The customer's id at the card network, once a card was asked for.
    card_customer_id = models.CharField(max_length=64, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "phone"],
                name="a_phone_is_one_customer_of_a_merchant",
                condition=~models.Q(phone=""),
            )
        ]

    def __str__(self) -> str:
        return self.name or self.masked_phone or self.email or "No name yet"

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip()

    @property
    def masked_phone(self) -> str:
        """The number with its last four digits, as people are shown it."""
        return f"{self.phone[:2]} \u2022\u2022\u2022 {self.phone[-4:]}" if self.phone else ""


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
    overage_attempts = models.SmallIntegerField(default=0, editable=False)
    overage_next_attempt_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Since when the balance is at 0 or below; null: it is above. Kept by the ledger with each
    # line, told once a fall by `billing.depletion`.
    depleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    depleted_told = models.BooleanField(default=False, editable=False)
    # Below this balance credits run low; null: nobody asked. Copied from the plan with each cycle.
    low_mark = credit_field(null=True, blank=True, editable=False)
    low_at = models.DateTimeField(null=True, blank=True, editable=False)
    low_told = models.BooleanField(default=False, editable=False)

    objects: ClassVar[Any] = ConnectionQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["merchant"], name="connection_that_owes", condition=models.Q(owes=True)
            ),
            models.Index(
                fields=["merchant"],
                name="connection_to_be_told",
                condition=models.Q(depleted_at__isnull=False, depleted_told=False)
                | models.Q(low_at__isnull=False, low_told=False),
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
        MOVE = "move", "Moves to another version of its plan at the end of the cycle"

    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, related_name="subscriptions"
    )
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="subscriptions")
    status = models.CharField(max_length=9, choices=Status, default=Status.ACTIVE)
    # Cycles are computed from the anchor, the plan's interval and the number, never chained. A
    # change of plan may set a new anchor: cycle `anchor_index` begins there (`billing.courses`).
    anchor = models.DateTimeField()
    anchor_index = models.PositiveIntegerField(default=0)
    # The merchant's zone when the anchor was set; a later change leaves it as it is.
    time_zone = models.CharField(max_length=64)
    cycle_index = models.PositiveIntegerField(default=0)
    cycle_start = models.DateTimeField()
    cycle_end = models.DateTimeField()
    started_at = models.DateTimeField()
    pending_change = models.CharField(max_length=12, choices=PendingChange, null=True, blank=True)
    # The plan of the next cycle, of a downgrade or a move.
    pending_plan = models.ForeignKey(
        Plan, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    cancelled_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    past_due_since = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    # Bought off-session by `billing.topups` when credits fall below the threshold; null: off.
    auto_top_up_bundle = models.ForeignKey(
        CreditBundle,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
    )
    top_up_threshold = credit_field(default=Decimal(0))
    # At most so much money in a calendar month of the merchant's zone; null: no cap.
    top_up_monthly_cap = credit_field(null=True, blank=True)
    # After a decline: how many, and when the next try is due. At the cap: when the next month is.
    top_up_attempts = models.PositiveSmallIntegerField(default=0)
    top_up_next_attempt_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Any] = SubscriptionQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["merchant", "cycle_end"],
                name="subscription_by_cycle_end",
                condition=models.Q(status__in=["active", "past_due"]),
            ),
            # Few have either; a renewal writes to every index that holds its row.
            models.Index(
                fields=["merchant"],
                name="subscription_that_tops_up",
                condition=models.Q(auto_top_up_bundle__isnull=False),
            ),
            models.Index(
                fields=["auto_top_up_bundle"],
                name="subscription_by_bundle",
                condition=models.Q(auto_top_up_bundle__isnull=False),
            ),
            models.Index(
                fields=["pending_plan"],
                name="subscription_by_next_plan",
                condition=models.Q(pending_plan__isnull=False),
            ),
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
            models.CheckConstraint(
                condition=models.Q(
                    pending_plan__isnull=False, pending_change__in=["downgrade", "move"]
                )
                | models.Q(pending_plan=None)
                & (models.Q(pending_change=None) | models.Q(pending_change="cancellation")),
                name="a_change_to_another_plan_names_it",
            ),
            models.CheckConstraint(
                condition=models.Q(anchor_index__lte=models.F("cycle_index")),
                name="an_anchor_is_not_ahead_of_its_cycle",
            ),
            models.CheckConstraint(
                condition=bounded("top_up_threshold")
                & (models.Q(top_up_monthly_cap=None) | bounded("top_up_monthly_cap")),
                name="a_top_up_has_limits_that_are_numbers",
            ),
        ]

    @property
    def is_ending(self) -> bool:
        """Whether it is cancelled for the end of its cycle; a move to another plan goes on."""
        return self.pending_change == self.PendingChange.CANCELLATION

    def __str__(self) -> str:
        return f"{self.connection} on {self.plan}"

    @property
    def grace_ends_at(self) -> datetime | None:
        """While past due: when the gateway begins to refuse. None: nothing is overdue."""
        if self.past_due_since is None:
            return None
        return self.past_due_since + timedelta(days=self.plan.grace_days)


class Cycle(Walled):
    """One cycle of a subscription, paid or skipped; one row a number, whatever runs twice."""

    ID_PREFIX = "cyc"

    class State(models.TextChoices):
        GRANTED = "granted", "Paid and granted"
        SKIPPED = "skipped", "Slept through, not charged"

    # Found by its unique key with the index.
    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.PROTECT,
        related_name="cycles",
        db_index=False,
        db_constraint=False,
    )
    index = models.PositiveIntegerField()
    # The plan it was sold on, and the rule its bounds come from: `place` intervals after `anchor`,
    # in that zone. A cycle cut short by an upgrade ends where the next begins, on a new anchor.
    plan = models.ForeignKey(
        Plan, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    anchor = models.DateTimeField()
    place = models.PositiveIntegerField()
    time_zone = models.CharField(max_length=64)
    start = models.DateTimeField()
    end = models.DateTimeField()
    state = models.CharField(max_length=7, choices=State)
    # The payment that opened it; null where the price was 0 or the cycle was skipped.
    payment = models.ForeignKey(
        "billing.Payment",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    # Of an upgrade: unused credits of the cycle before that were given in payment, and the value
    # they took off the price; and what was left to pay but is too little for a card, so it is owed.
    unused_credit = credit_field(default=Decimal(0))
    unused_value = credit_field(default=Decimal(0))
    owed = credit_field(default=Decimal(0))
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [
            models.Index(
                fields=["payment"],
                name="cycle_by_payment",
                condition=models.Q(payment__isnull=False),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["subscription", "index"], name="a_cycle_is_opened_once"
            ),
            models.CheckConstraint(
                condition=bounded("unused_credit") & bounded("unused_value") & bounded("owed"),
                name="an_upgrade_takes_no_negative_value",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subscription}, cycle {self.index}"

    @property
    def price_paid(self) -> Decimal:
        """What this cycle cost its customer: by card, in unused credits, and what is owed."""
        by_card = Decimal(self.payment.amount.amount) if self.payment is not None else Decimal(0)
        return by_card + Decimal(self.unused_value) + Decimal(self.owed)
