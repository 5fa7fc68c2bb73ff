"""Credits: grants (lots of credits with a source, a remainder, a life) and the ledger.

Both tables have one writer: the functions of `billing/sql/ledger.sql`, called through
`billing.ledger` and `billing.credits` while the connection's row is locked.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import models
from django.utils import timezone

from billing.models.base import Walled, bounded, credit_field
from billing.models.connections import Connection

# By how much the clocks of two machines of an installation may differ (`billing_has_begun` in
# billing/sql/ledger.sql).
SLACK = timedelta(minutes=2)


class CreditGrant(Walled):
    """A lot of credits. It pays only what happens in `[effective_at, expires_at)`, give or take how
    far clocks may be apart where it begins (`SLACK`)."""

    ID_PREFIX = "grt"

    class Pool(models.IntegerChoices):
        """The order is the order of the draw: cycle credits are spent before bundle credits."""

        CYCLE = 1, "Plan credit"
        BUNDLE = 2, "Bundle credit"

    class Source(models.TextChoices):
        CYCLE = "cycle", "Plan credit"
        ROLLOVER = "rollover", "Rolled over"
        BUNDLE = "bundle", "Bundle"
        MANUAL = "manual", "Given by hand"
        # What was owed for a request that is voided, or for money that came back after all, and
        # somebody has paid already.
        RETURNED = "returned", "Returned"
        # What usage cost less in the end, by the volume of its cycle.
        VOLUME = "volume", "Volume discount"

    connection = models.ForeignKey(
        Connection,
        on_delete=models.PROTECT,
        related_name="grants",
        db_index=False,
        db_constraint=False,
    )
    pool = models.SmallIntegerField(choices=Pool)
    source = models.CharField(max_length=8, choices=Source)
    amount = credit_field()
    # 0 <= remaining <= amount, and equal to the sum of this grant's ledger entries.
    remaining = credit_field()
    # Stands in the index in place of `remaining`, so that a draw leaves every index alone.
    is_spent = models.GeneratedField(
        expression=models.ExpressionWrapper(
            models.Q(remaining=0), output_field=models.BooleanField()
        ),
        output_field=models.BooleanField(),
        db_persist=True,
    )
    priority = models.SmallIntegerField(default=0)
    effective_at = models.DateTimeField()
    # Null: without end.
    expires_at = models.DateTimeField(null=True, blank=True)
    # When the oldest credit in it was first granted; rolled credit keeps its age.
    origin_at = models.DateTimeField()
    cycle = models.ForeignKey(
        "billing.Cycle",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    payment = models.ForeignKey(
        "billing.Payment",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="grants",
        db_index=False,
        db_constraint=False,
    )
    bundle = models.ForeignKey(
        "billing.CreditBundle",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    # For grants by hand, returned ones and volume discounts: why, and by whom.
    reason = models.CharField(max_length=255, blank=True)
    actor = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [
            # Exactly the order of the draw (money.md, The draw).
            models.Index(
                "connection",
                "priority",
                models.F("expires_at").asc(nulls_last=True),
                "pool",
                "origin_at",
                "id",
                name="grant_in_draw_order",
                condition=models.Q(is_spent=False),
            ),
            models.Index(
                fields=["payment"],
                name="grant_by_payment",
                condition=models.Q(payment__isnull=False),
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=bounded("amount"), name="a_grant_is_not_negative"),
            models.CheckConstraint(
                condition=models.Q(remaining__gte=0, remaining__lte=models.F("amount")),
                name="a_grant_keeps_between_nothing_and_all_of_it",
            ),
            models.CheckConstraint(
                condition=models.Q(expires_at=None)
                | models.Q(expires_at__gte=models.F("effective_at")),
                name="a_grant_does_not_end_before_it_starts",
            ),
            models.CheckConstraint(
                condition=~models.Q(source__in=["manual", "returned", "volume"])
                | (~models.Q(reason="") & ~models.Q(actor="")),
                name="a_grant_by_hand_has_a_reason_and_a_name",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_source_display()}, {self.origin_at:%d %b %Y}"

    def is_live(self, now: datetime) -> bool:
        """Whether its life holds `now`; as `credits.live`."""
        begun = self.effective_at <= now + SLACK
        return begun and (self.expires_at is None or self.expires_at > now)


class LedgerEntry(models.Model):
    """One line of a connection's ledger: append-only, dense, explained.

    Each entry belongs to one account of the connection: a grant, or (grant null) its debt. The
    entries of a grant add up to its remainder, those without a grant to minus the debt, all of
    them to the balance. A trigger refuses UPDATE and DELETE, and the product's role has no right to
    either.
    """

    class Kind(models.TextChoices):
        GRANT = "grant", "Credits added"
        USAGE = "usage", "Usage"
        EXPIRE = "expire", "Credits ended"
        ROLL = "roll", "Rolled over"
        DEBT = "debt", "Debt paid from credits"
        OVERAGE_CHARGED = "overage_charged", "Overage charged to the card"
        REFUND = "refund", "Request taken back"
        ADJUST = "adjust", "Adjustment"
        CLAWBACK = "clawback", "Credits taken back"

    id = models.BigAutoField(primary_key=True)
    # The foreign keys of this table are composite, with the merchant: `billing/sql/walls.sql`.
    merchant = models.ForeignKey(
        "billing.Merchant",
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    connection = models.ForeignKey(
        Connection,
        on_delete=models.PROTECT,
        related_name="entries",
        db_index=False,
        db_constraint=False,
    )
    # 1, 2, 3, ... without a gap within the connection.
    seq = models.BigIntegerField()
    kind = models.CharField(max_length=16, choices=Kind)
    amount = credit_field()
    balance_after = credit_field()
    grant = models.ForeignKey(
        CreditGrant,
        null=True,
        on_delete=models.PROTECT,
        related_name="entries",
        db_index=False,
        db_constraint=False,
    )
    # The usage request that caused it (`meters.UsageRequest`, a floor above: no foreign key).
    request_id = models.UUIDField(null=True)
    payment = models.ForeignKey(
        "billing.Payment",
        null=True,
        on_delete=models.PROTECT,
        related_name="entries",
        db_index=False,
        db_constraint=False,
    )
    reason = models.CharField(max_length=255, blank=True)
    actor = models.CharField(max_length=255, blank=True)
    # On the merchant's clock.
    occurred_at = models.DateTimeField()

    objects: Any = models.Manager()

    class Meta:
        verbose_name_plural = "ledger entries"
        ordering = ["connection", "seq"]
        indexes = [
            # The books of a merchant beside usage, newest first; a charge leaves it alone.
            models.Index(
                fields=["merchant", "-id"],
                name="ledger_beside_usage",
                condition=~models.Q(kind="usage"),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["connection", "seq"], name="a_ledger_line_has_its_own_number"
            ),
            models.UniqueConstraint(
                fields=["request_id", "grant"],
                name="a_request_draws_once_from_a_grant",
                condition=models.Q(kind="usage"),
                nulls_distinct=False,
            ),
            models.UniqueConstraint(
                fields=["request_id", "grant"],
                name="a_draw_is_given_back_once",
                condition=models.Q(kind="refund"),
                nulls_distinct=False,
            ),
            models.UniqueConstraint(
                fields=["grant"],
                name="a_grant_is_entered_once",
                condition=models.Q(kind="grant"),
            ),
            models.UniqueConstraint(
                fields=["payment"],
                name="an_overage_charge_is_entered_once",
                condition=models.Q(kind="overage_charged"),
            ),
            models.CheckConstraint(
                condition=~models.Q(amount=0) & models.Q(amount__gt=-(10**12), amount__lt=10**12),
                name="a_ledger_line_moves_something",
            ),
            models.CheckConstraint(
                condition=models.Q(balance_after__gt=-(10**12), balance_after__lt=10**12),
                name="a_running_balance_is_a_number",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.amount}"
