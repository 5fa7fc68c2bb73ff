"""What happened, what the card network told us, and what we owe people in mails and texts.

All three are written in the transaction that caused them and acted on after its commit.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils import timezone

from billing.models.base import Tenant
from billing.models.connections import Connection


class Event(Tenant):
    """A fact a merchant would want to hear of, e.g. `payment.succeeded` (api.md, Events)."""

    ID_PREFIX = "evt"

    name = models.CharField(max_length=64)
    connection = models.ForeignKey(
        Connection,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="events",
        # Composite, with the merchant: `billing/sql/walls.sql`.
        db_constraint=False,
    )
    data = models.JSONField(default=dict)
    # On the merchant's clock.
    created_at = models.DateTimeField()
    # Whether its deliveries were made (`billing.deliveries`), also where nobody wanted any.
    is_told = models.BooleanField(default=False, db_default=False, editable=False)

    class Meta:
        indexes = [
            models.Index(fields=["merchant", "-created_at"], name="event_by_time"),
            models.Index(
                fields=["merchant", "id"], name="event_to_tell", condition=models.Q(is_told=False)
            ),
        ]

    def __str__(self) -> str:
        return self.name


class StripeEvent(models.Model):
    """An event of the card network, stored once by its id before anything acts on it."""

    # The network's id; after `mer_.../` where it came to a merchant's own account.
    id = models.CharField(primary_key=True, max_length=80)
    # Whose account it came to; null: the installation's.
    merchant = models.ForeignKey(
        "billing.Merchant", null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    type = models.CharField(max_length=80)
    livemode = models.BooleanField()
    payload = models.JSONField()
    received_at = models.DateTimeField(default=timezone.now)
    # Null until its effect is committed; the sweep takes up what was left.
    handled_at = models.DateTimeField(null=True, blank=True)
    failure = models.CharField(max_length=255, blank=True)

    objects: ClassVar[Any] = models.Manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["received_at"],
                name="stripe_event_to_handle",
                condition=models.Q(handled_at=None),
            )
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class OutboxMessage(Tenant):
    """A text or mail owed to a person: a row with its cause, sent after the commit.

    Messages of the sandbox are never sent; the console and `GET /v1/test_helpers/outbox` show them.
    """

    ID_PREFIX = "msg"

    class Kind(models.TextChoices):
        TEXT = "text", "Text message"
        MAIL = "mail", "E-mail"

    kind = models.CharField(max_length=4, choices=Kind)
    to = models.CharField(max_length=254)
    subject = models.CharField(max_length=200, blank=True)
    body = models.TextField()
    html = models.TextField(blank=True)
    created_at = models.DateTimeField()
    # Null until handed to the sender; the sandbox's stay null and are kept.
    sent_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)

    class Meta:
        indexes = [
            models.Index(fields=["merchant", "-created_at"], name="message_by_time"),
            models.Index(
                fields=["created_at"], name="message_to_send", condition=models.Q(sent_at=None)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} to {self.to}"
