"""What one person asked for and a second one decides. Written by `billing.approvals` alone."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from billing import money
from billing.models.base import Tenant, bounded, credit_field
from billing.models.connections import Connection
from billing.models.merchants import User
from billing.models.payments import Payment
from billing.models.refunds import Refund


class Approval(Tenant):
    """An act above the limit that waits for another person. Decided once, for good: a trigger
    refuses to change it after that (`billing/sql/approvals.sql`). All its times are real time,
    whatever a sandbox's clock says: people answer in real time."""

    ID_PREFIX = "apr"

    class Act(models.TextChoices):
        GIVE = "give", "Give credits"
        TAKE = "take", "Take credits"
        REFUND = "refund", "Refund"

    class State(models.TextChoices):
        # Past `expires_at` it waits no more; no job needs to say so.
        WAITING = "waiting", "Waiting"
        APPROVED = "approved", "Approved"
        REFUSED = "refused", "Refused"
        # By the person who asked.
        WITHDRAWN = "withdrawn", "Taken back"

    act = models.CharField(max_length=6, choices=Act)
    state = models.CharField(max_length=9, choices=State, default=State.WAITING)
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="approvals")
    # Of a refund alone.
    payment = models.ForeignKey(
        Payment, null=True, on_delete=models.PROTECT, related_name="approvals"
    )
    # In the connection's currency.
    amount = credit_field()
    # A refund of more than is unspent.
    forced = models.BooleanField(default=False)
    reason = models.CharField(max_length=255)
    # Of the page that asked; the same key is the same request, so a form sent twice asks once.
    key = models.CharField(max_length=120)
    # People are never deleted under it: who asked decides who may answer. The names are as then.
    asked_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    asked_name = models.CharField(max_length=120)
    asked_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    decided_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    decided_name = models.CharField(max_length=120, blank=True)
    decided_at = models.DateTimeField(null=True)
    # Why it was refused.
    answer = models.CharField(max_length=255, blank=True)
    # What became of an approved refund.
    refund = models.OneToOneField(
        Refund, null=True, on_delete=models.PROTECT, related_name="approval"
    )

    class Meta:
        indexes = [
            models.Index(fields=["merchant", "-id"], name="approval_by_merchant"),
            models.Index(
                fields=["merchant", "expires_at"],
                name="approval_that_waits",
                condition=Q(state="waiting"),
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["merchant", "key"], name="an_approval_is_asked_once"),
            models.CheckConstraint(
                condition=bounded("amount") & Q(amount__gt=0), name="an_approval_moves_something"
            ),
            models.CheckConstraint(
                condition=Q(act="refund", payment__isnull=False)
                | Q(act__in=["give", "take"], payment=None, forced=False),
                name="a_refund_alone_is_of_a_payment",
            ),
            models.CheckConstraint(
                condition=Q(state="waiting", decided_by=None, decided_at=None)
                | (
                    Q(state__in=["approved", "refused", "withdrawn"])
                    & Q(decided_by__isnull=False, decided_at__isnull=False)
                ),
                name="a_decided_approval_says_who_and_when",
            ),
            models.CheckConstraint(
                condition=Q(state="waiting")
                | Q(state="withdrawn", decided_by=F("asked_by"))
                | (Q(state__in=["approved", "refused"]) & ~Q(decided_by=F("asked_by"))),
                name="nobody_decides_their_own_approval",
            ),
            models.CheckConstraint(
                condition=Q(act="refund", state="approved", refund__isnull=False)
                | (~Q(act="refund", state="approved") & Q(refund=None)),
                name="an_approved_refund_is_made",
            ),
            models.CheckConstraint(
                condition=~Q(state="approved") | Q(decided_at__lt=F("expires_at")),
                name="an_approval_in_time_alone_counts",
            ),
            models.CheckConstraint(
                condition=~Q(reason="") & ~Q(asked_name="") & (~Q(state="refused") | ~Q(answer="")),
                name="an_approval_and_a_refusal_have_a_reason",
            ),
        ]

    def __str__(self) -> str:
        amount = money.display(self.amount, self.connection.currency)
        if self.act == self.Act.REFUND:
            return f"Refund {amount} to {self.connection}"
        if self.act == self.Act.GIVE:
            return f"Give {amount} to {self.connection}"
        return f"Take {amount} from {self.connection}"

    def is_open(self, at: datetime) -> bool:
        """Whether it may still be decided, at an instant of real time."""
        return self.state == self.State.WAITING and at < self.expires_at
