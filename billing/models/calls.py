"""What a POST with an `Idempotency-Key` was answered, so that the same call is answered again.

Written by `billing.replays` alone.
"""

from __future__ import annotations

from django.db import models

from billing.models.merchants import Merchant


class IdempotentCall(models.Model):
    """One key of one merchant. Without a status: it is being answered until `leased_until`."""

    merchant = models.ForeignKey(
        Merchant, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    key = models.CharField(max_length=255)
    # SHA-256 of method, address and body.
    fingerprint = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField(null=True)
    # The answer's JSON, sealed by `billing.secrets`: it may show a key once.
    answer = models.BinaryField(null=True)
    leased_until = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "key"], name="an_idempotency_key_is_used_once_by_a_merchant"
            )
        ]
        indexes = [models.Index(fields=["created_at"], name="call_by_time")]

    def __str__(self) -> str:
        return self.key
