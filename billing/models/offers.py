"""Offers of a key: what a terminal that asks for access is given, to fetch its key with once.

Written by `billing.keys` alone.
"""

from __future__ import annotations

from django.db import models

from billing.models.base import Tenant
from billing.models.merchants import User


class KeyOffer(Tenant):
    """A code that buys one key, once, within minutes. Only the hash of the code is kept."""

    ID_PREFIX = "kof"

    code_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    offered_by = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", editable=False)
    created_at = models.DateTimeField(editable=False)
    expires_at = models.DateTimeField(editable=False)
    used_at = models.DateTimeField(null=True, editable=False)

    def __str__(self) -> str:
        return f"a key for {self.offered_by}"
