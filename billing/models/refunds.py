"""What went back of a payment, or was taken back by the bank, and every attempt to charge it.

`Refund` is the intent row that is committed before the network is asked; written by
`billing.refunds`. `Dispute` is what the bank says, written by `billing.disputes`. Both take back
the credits the payment granted through `billing.clawback`, under the connection's lock.
"""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django.utils import timezone
from djmoney.models.fields import MoneyField

from billing.models.base import Tenant, bounded, credit_field
from billing.models.connections import Connection
from billing.models.payments import Payment


class Refund(Tenant):
    """Money on its way back to the card, whole or in part. Its credits are taken before the
    network is asked, so that they cannot be spent meanwhile; one that fails gives them back."""

    ID_PREFIX = "ref"

    class Status(models.TextChoices):
        PENDING = "pending", "Pending"
        # The network was asked and never answered: it is asked about, never refunded anew.
        UNKNOWN = "unknown", "Being checked"
        # The network has it and the bank not yet.
        SENT = "sent", "On its way"
        SUCCEEDED = "succeeded", "Refunded"
        FAILED = "failed", "Failed"

    OPEN = (Status.PENDING, Status.UNKNOWN, Status.SENT)

    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="refunds")
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="refunds")
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    amount = MoneyField(max_digits=14, decimal_places=3, default_currency="USD")
    # Our own key; the same key is the same row, so a form sent twice refunds once.
    key = models.CharField(max_length=120)
    reason = models.CharField(max_length=255)
    # Who asked for it; the card network itself for one made in its dashboard.
    actor = models.CharField(max_length=255)
    forced = models.BooleanField(default=False)
    # The lines it made: [[grant id, or null for the debt, amount], ...]; given back if it fails.
    taken = models.JSONField(default=list)
    # The sums of those lines: out of grants, and as debt.
    credits_taken = credit_field(default=Decimal(0))
    debt_made = credit_field(default=Decimal(0))
    # At the card network; empty until it has answered.
    refund_id = models.CharField(max_length=64, blank=True)
    receipt_number = models.CharField(max_length=32, blank=True)
    failure_code = models.CharField(max_length=64, blank=True)
    failure_message = models.CharField(max_length=255, blank=True)
    flag = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField()
    # When the network was last asked, in real time.
    asked_at = models.DateTimeField(null=True, blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["payment"], name="refund_by_payment"),
            models.Index(
                fields=["created_at"],
                name="refund_that_is_open",
                condition=models.Q(status__in=["pending", "unknown", "sent"]),
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["merchant", "key"], name="a_refund_key_is_used_once"),
            models.UniqueConstraint(
                fields=["merchant", "refund_id"],
                name="a_refund_of_the_network_is_entered_once",
                condition=~models.Q(refund_id=""),
            ),
            models.UniqueConstraint(
                fields=["merchant", "receipt_number"],
                name="a_refunds_receipt_number_is_given_once",
                condition=~models.Q(receipt_number=""),
            ),
            models.CheckConstraint(
                condition=models.Q(amount__gt=0, amount__lt=10**12),
                name="a_refund_gives_something_back",
            ),
            models.CheckConstraint(
                condition=bounded("credits_taken") & bounded("debt_made"),
                name="a_refund_takes_no_less_than_nothing",
            ),
            models.CheckConstraint(
                condition=~models.Q(status="succeeded") | models.Q(settled_at__isnull=False),
                name="a_succeeded_refund_is_settled",
            ),
            models.CheckConstraint(
                condition=~models.Q(reason="") & ~models.Q(actor=""),
                name="a_refund_has_a_reason_and_a_name",
            ),
        ]

    def __str__(self) -> str:
        return f"Refund, {self.amount}"

    @property
    def is_open(self) -> bool:
        return self.status in self.OPEN


class Dispute(Tenant):
    """A cardholder's complaint at the bank. While it is open or lost its credits are taken back;
    won, they are given back."""

    ID_PREFIX = "dsp"

    class Status(models.TextChoices):
        # A question of the bank; no money was withdrawn.
        INQUIRY = "inquiry", "Inquiry"
        OPEN = "open", "Disputed"
        WON = "won", "Won"
        LOST = "lost", "Lost"

    # While the bank has the money: what it paid for is taken back, its card not charged.
    TAKEN_BACK = (Status.OPEN, Status.LOST)
    # Why a charge to such a card failed without anybody being asked; no code of the network's.
    FAILURE_CODE = "card_disputed"

    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="disputes")
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="disputes")
    # At the card network.
    dispute_id = models.CharField(max_length=64)
    status = models.CharField(max_length=7, choices=Status)
    amount = MoneyField(max_digits=14, decimal_places=3, default_currency="USD")
    reason = models.CharField(max_length=64, blank=True)
    # As `Refund.taken`; given back when it is won.
    taken = models.JSONField(default=list)
    credits_taken = credit_field(default=Decimal(0))
    debt_made = credit_field(default=Decimal(0))
    created_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["payment"], name="dispute_by_payment")]
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "dispute_id"], name="a_dispute_is_entered_once"
            ),
            models.CheckConstraint(
                condition=bounded("credits_taken") & bounded("debt_made"),
                name="a_dispute_takes_no_less_than_nothing",
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=["won", "lost"], closed_at__isnull=False)
                | models.Q(status__in=["inquiry", "open"], closed_at=None),
                name="a_closed_dispute_says_when",
            ),
        ]

    def __str__(self) -> str:
        return f"Dispute, {self.amount}"


class PaymentAttempt(Tenant):
    """One answer of the network to one try of a payment: the log behind "declined"."""

    ID_PREFIX = "att"

    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="tries")
    # On the merchant's clock.
    at = models.DateTimeField()
    succeeded = models.BooleanField()
    # The network's reason, e.g. `insufficient_funds`; empty when it succeeded.
    code = models.CharField(max_length=64, blank=True)
    message = models.CharField(max_length=255, blank=True)
    # The try at the network; empty where it was not asked (no card) or nothing was charged.
    charge_id = models.CharField(max_length=64, blank=True)
    # The card that was asked, in words; empty when nobody knows.
    card = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["payment", "charge_id", "code"], name="an_answer_is_noted_once"
            )
        ]

    def __str__(self) -> str:
        return self.code or "paid"
