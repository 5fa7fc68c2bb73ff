"""Where a merchant's cards are charged: its own Stripe keys, or its account under Stripe Connect.

Without a row the installation's keys of that mode are used. Written by `billing.accounts` alone.
"""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from billing.models.base import Tenant


class CardAccount(Tenant):
    """One merchant's account at the card network. Secrets are sealed (`billing.secrets`)."""

    ID_PREFIX = "cac"

    # Own keys; empty for an account under Connect, which the installation's keys charge.
    secret_key = models.BinaryField(blank=True, default=b"", editable=False)
    publishable_key = models.CharField(max_length=255, blank=True)
    webhook_secret = models.BinaryField(blank=True, default=b"", editable=False)
    # The account at the network, `acct_...`: as it named itself, or the one to act for.
    account_id = models.CharField(max_length=64)
    is_connected = models.BooleanField(default=False)
    # The end of the secret key, enough to know it again.
    hint = models.CharField(max_length=8, blank=True)
    changed_by = models.CharField(max_length=255)
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["merchant"], name="a_merchant_has_one_card_account"),
            models.CheckConstraint(
                condition=models.Q(is_connected=True, secret_key=b"", publishable_key="")
                | (
                    models.Q(is_connected=False)
                    & ~models.Q(secret_key=b"")
                    & ~models.Q(publishable_key="")
                    & ~models.Q(webhook_secret=b"")
                ),
                name="a_card_account_has_its_own_keys_or_is_connected",
            ),
        ]

    def __str__(self) -> str:
        return self.account_id
