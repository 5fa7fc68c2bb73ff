"""Cards and what they paid.

`Payment` is the intent row that is committed before the network is asked, and the record of the
answer after. Written by `billing.payments` alone, under the connection's lock.
"""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext
from djmoney.models.fields import MoneyField

from billing.models.base import Tenant, bounded, credit_field
from billing.models.connections import Connection, Subscription
from billing.models.plans import CreditBundle, Plan


class PaymentMethod(Tenant):
    """A saved card. The number never reaches us; the card network keeps it."""

    ID_PREFIX = "pm"

    connection = models.ForeignKey(
        Connection, on_delete=models.PROTECT, related_name="payment_methods"
    )
    card_id = models.CharField(max_length=64)
    brand = models.CharField(max_length=20)
    last4 = models.CharField(max_length=4)
    exp_month = models.PositiveSmallIntegerField()
    exp_year = models.PositiveSmallIntegerField()
    is_default = models.BooleanField(default=True)
    detached_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["connection", "card_id"], name="a_card_is_saved_once_a_connection"
            ),
            models.UniqueConstraint(
                fields=["connection"],
                name="a_connection_has_one_card_in_use",
                condition=models.Q(is_default=True, detached_at=None),
            ),
        ]

    def __str__(self) -> str:
        return gettext("{brand} ending {last4}").format(brand=self.brand_name, last4=self.last4)

    @property
    def brand_name(self) -> str:
        names = {"visa": "Visa", "mastercard": "Mastercard", "amex": "American Express"}
        return names.get(self.brand, self.brand.replace("_", " ").title() or gettext("Card"))


class Payment(Tenant):
    """One charge: intent before the network, result after; settled exactly once."""

    ID_PREFIX = "pay"

    class Purpose(models.TextChoices):
        SUBSCRIPTION = "subscription", "New subscription"
        RENEWAL = "renewal", "Renewal"
        OVERAGE = "overage", "Usage past credit"
        BUNDLE = "bundle", "Bundle"
        TOP_UP = "top_up", "Automatic top-up"
        UPGRADE = "upgrade", "Change of plan"

    class Status(models.TextChoices):
        PENDING = "pending", "Pending"
        # The network was asked and never answered: it is asked about, never charged anew.
        UNKNOWN = "unknown", "Being checked"
        REQUIRES_ACTION = "requires_action", "Waits for the customer"
        SUCCEEDED = "succeeded", "Paid"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    OPEN = (Status.PENDING, Status.UNKNOWN, Status.REQUIRES_ACTION)

    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="payments")
    purpose = models.CharField(max_length=12, choices=Purpose)
    status = models.CharField(max_length=15, choices=Status, default=Status.PENDING)
    amount = MoneyField(max_digits=14, decimal_places=3, default_currency="USD")
    # Our own key, e.g. `checkout:cs_...` or `renewal:sub_...:3:1`; the same key is the same row.
    key = models.CharField(max_length=120)
    # Charged without the customer present.
    off_session = models.BooleanField(default=False)
    plan = models.ForeignKey(
        Plan, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    bundle = models.ForeignKey(
        CreditBundle, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    quantity = models.PositiveIntegerField(default=1)
    # Credits this payment grants when it succeeds, fixed with the intent.
    credit_amount = credit_field(default=0)
    subscription = models.ForeignKey(
        Subscription, null=True, blank=True, on_delete=models.PROTECT, related_name="payments"
    )
    # The cycle that a renewal or a change of plan opens.
    cycle_index = models.PositiveIntegerField(null=True, blank=True)
    # Of a change of plan: the unused credits given in payment, and the value they take off the
    # price, fixed with the intent.
    unused_credit = credit_field(default=Decimal(0))
    unused_value = credit_field(default=Decimal(0))
    card = models.ForeignKey(
        PaymentMethod, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    # At the card network; empty until it has answered.
    intent_id = models.CharField(max_length=64, blank=True)
    charge_id = models.CharField(max_length=64, blank=True)
    failure_code = models.CharField(max_length=64, blank=True)
    failure_message = models.CharField(max_length=255, blank=True)
    receipt_number = models.CharField(max_length=32, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    # When the network was last asked, in real time; unknown payments are asked about after a pause.
    asked_at = models.DateTimeField(null=True, blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)
    # Something a person must look at, e.g. the network took another amount. Empty: nothing.
    flag = models.CharField(max_length=255, blank=True)
    # What `billing.reconcile` found and only a person can mend; what it gave stays. Empty: nothing.
    alarm = models.CharField(max_length=255, blank=True, editable=False)
    # What the bank says of a dispute, for people. Empty: nothing, or it was won.
    dispute_flag = models.CharField(max_length=255, blank=True, editable=False)
    # What has gone back or is on its way back; moved by `billing.refunds` alone, in its currency.
    refunded = models.DecimalField(max_digits=14, decimal_places=3, default=0, editable=False)
    # Where the bank wants the customer: until when the link of the mail can pay it.
    action_until = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        indexes = [
            models.Index(fields=["merchant", "-created_at"], name="payment_by_time"),
            models.Index(
                fields=["merchant", "created_at"],
                name="payment_that_is_open",
                condition=models.Q(status__in=["pending", "unknown", "requires_action"]),
            ),
            models.Index(fields=["intent_id"], name="payment_by_intent"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["merchant", "key"], name="a_payment_key_is_used_once"),
            models.UniqueConstraint(
                fields=["connection", "purpose"],
                name="one_open_off_session_charge_a_purpose",
                condition=models.Q(
                    status__in=["pending", "unknown", "requires_action"], off_session=True
                ),
            ),
            models.UniqueConstraint(
                fields=["subscription", "cycle_index"],
                name="a_cycle_is_paid_once",
                condition=models.Q(
                    status__in=["pending", "unknown", "requires_action", "succeeded"],
                    purpose="renewal",
                ),
            ),
            models.UniqueConstraint(
                fields=["merchant", "receipt_number"],
                name="a_receipt_number_is_given_once",
                condition=~models.Q(receipt_number=""),
            ),
            models.CheckConstraint(condition=bounded("amount"), name="a_payment_is_not_negative"),
            models.CheckConstraint(
                condition=models.Q(refunded__gte=0, refunded__lte=models.F("amount")),
                name="no_more_goes_back_than_was_paid",
            ),
            models.CheckConstraint(
                condition=models.Q(refunded=0) | models.Q(status="succeeded"),
                name="only_what_was_paid_goes_back",
            ),
            models.CheckConstraint(
                condition=bounded("unused_credit") & bounded("unused_value"),
                name="a_payment_takes_no_negative_value",
            ),
            models.CheckConstraint(
                condition=~models.Q(status="succeeded") | models.Q(settled_at__isnull=False),
                name="a_succeeded_payment_is_settled",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_purpose_display()}, {self.amount}"

    @property
    def is_open(self) -> bool:
        return self.status in self.OPEN
