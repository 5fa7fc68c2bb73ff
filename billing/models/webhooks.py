"""Where a merchant wants to hear of events, and what became of each telling.

`WebhookEndpoint` is written by `billing.webhooks`, the others by `billing.deliveries`.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models

from billing.models.base import Tenant
from billing.models.connections import Connection
from billing.models.events import Event


class WebhookEndpoint(Tenant):
    """An address of the merchant that is told of events. Its secret is kept sealed."""

    ID_PREFIX = "whk"

    name = models.CharField(max_length=80)
    url = models.CharField(max_length=2000)
    # Names of events; empty: all of them.
    events = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    # `whsec_...`, by `billing.secrets`; the one before it signs too until its time is over.
    secret = models.BinaryField(editable=False)
    previous_secret = models.BinaryField(null=True, editable=False)
    previous_until = models.DateTimeField(null=True, editable=False)
    # The number of the last delivery made for it.
    sequence = models.BigIntegerField(default=0, editable=False)
    # Since when every attempt has failed; null while it answers.
    failing_since = models.DateTimeField(null=True, editable=False)
    # Paused: nothing is sent and everything is kept, until it is resumed.
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(editable=False)

    class Meta:
        verbose_name = "webhook"
        indexes = [
            models.Index(
                fields=["merchant"], name="webhook_by_merchant", condition=models.Q(deleted_at=None)
            )
        ]

    def __str__(self) -> str:
        return self.name


class Delivery(Tenant):
    """One event for one endpoint: sent until it is taken, for three days. The id never changes."""

    ID_PREFIX = "dlv"

    class State(models.TextChoices):
        PENDING = "pending", "To be sent"
        DELIVERED = "delivered", "Delivered"
        FAILED = "failed", "Given up"

    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.PROTECT, related_name="deliveries", db_index=False
    )
    event = models.ForeignKey(Event, on_delete=models.PROTECT, related_name="deliveries")
    # 1, 2, 3, ... for each endpoint, without gaps; what arrives out of order is known by it.
    sequence = models.BigIntegerField()
    # The exact bytes that are signed and sent.
    body = models.TextField()
    state = models.CharField(max_length=9, choices=State, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    # When the next attempt is due, in real time; while one runs, when it counts as lost.
    next_attempt_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "delivery"
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                name="delivery_to_send",
                condition=models.Q(state="pending"),
            )
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint", "event"], name="an_event_is_one_delivery_to_an_endpoint"
            ),
            models.UniqueConstraint(
                fields=["endpoint", "sequence"], name="a_delivery_has_a_number_of_its_own"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.endpoint}"


class BalanceTold(models.Model):
    """How far into a connection's ledger the merchant was told of its balance."""

    connection = models.OneToOneField(
        Connection, primary_key=True, on_delete=models.CASCADE, related_name="+"
    )
    entry_count = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.connection_id} up to line {self.entry_count}"


class DeliveryAttempt(models.Model):
    """One try: what came back, or why nothing did. Append-only."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="log")
    number = models.PositiveSmallIntegerField()
    # Null: no answer came.
    status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=255, blank=True)
    # The beginning of the answer's body.
    answer = models.TextField(blank=True)
    duration_ms = models.PositiveIntegerField()
    at = models.DateTimeField()

    class Meta:
        ordering = ["at", "pk"]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.delivery_id}"
