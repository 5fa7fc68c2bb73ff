"""Every column that holds a secret sealed by `billing.secrets`: looked at by `doctor`, moved to a
new SECRET_KEY by `manage.py reseal`. A model with a new one is added here; a test finds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import models

from billing import errors, secrets
from billing.models import CardAccount, IdempotentCall, SecondFactor, WebhookEndpoint
from meters.gateway.models import ProviderKey

COLUMNS: tuple[tuple[type[models.Model], tuple[str, ...]], ...] = (
    (CardAccount, ("secret_key", "webhook_secret")),
    (WebhookEndpoint, ("secret", "previous_secret")),
    (ProviderKey, ("sealed",)),
    (IdempotentCall, ("answer",)),
    (SecondFactor, ("secret",)),
)


def each() -> Iterator[tuple[models.Model, str, bytes]]:
    """Each sealed value: its row, its column, and what is stored."""
    for model, columns in COLUMNS:
        for row in model._default_manager.only("pk", *columns).iterator(chunk_size=500):
            for column in columns:
                value: Any = getattr(row, column)
                if value:
                    yield row, column, bytes(value)


def opens() -> tuple[int, int]:
    """How many sealed values there are, and how many of them open."""
    count = good = 0
    for _, _, value in each():
        count += 1
        try:
            secrets.open(value)
        except errors.Unavailable:
            continue
        good += 1
    return count, good


def reseal() -> tuple[int, list[str]]:
    """Move every sealed value under the first SECRET_KEY. Gives how many, and those that do not
    open, which stay as they are. Stopped in the middle it may simply run again."""
    done, closed = 0, []
    for row, column, value in each():
        try:
            fresh = secrets.reseal(value)
        except errors.Unavailable:
            closed.append(f"{row._meta.label} {row.pk} {column}")
            continue
        # Only what was read is replaced: a secret rotated meanwhile is sealed anew already.
        same = row.__class__._default_manager.filter(**{"pk": row.pk, column: value})
        done += same.update(**{column: fresh})
    return done, closed
