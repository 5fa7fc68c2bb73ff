"""Webhook endpoints: where a merchant's backend is told of events. Called by the API and console.

The secret is shown when it is made and when it is rotated, and kept sealed. `headers` signs: both
signatures of api.md, with the secret of before beside the new one for a day after a rotation.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets as random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import standardwebhooks
from django.conf import settings
from django.db import transaction

from billing import addresses, errors, events, secrets
from billing.models import Merchant, WebhookEndpoint

MOST_ENDPOINTS = 10
LONGEST_NAME = 80
# A rotated secret signs beside the new one for this long.
OVERLAP = timedelta(hours=24)
SECRET_PREFIX = "whsec_"


def local_allowed(merchant: Merchant) -> bool:
    """Whether a merchant's webhooks may go to this very machine: a sandbox's, not in production."""
    return merchant.is_sandbox and bool(settings.WEBHOOKS_TO_LOCALHOST)


@transaction.atomic
def create(
    merchant: Merchant, *, name: str, url: str, wanted: Sequence[str] = (), now: datetime
) -> tuple[WebhookEndpoint, str]:
    """Make an endpoint; gives it with its secret, which is not to be had again.

    Raises:
        billing.errors.Invalid: no name, a URL that is refused, an event that does not exist.
        billing.errors.Conflict: the merchant has ten endpoints already.
    """
    row = WebhookEndpoint(merchant=merchant, created_at=now)
    _write(row, name=name, url=url, wanted=wanted)
    # Two that are made at once take turns, so that ten stay ten.
    Merchant.objects.select_for_update(no_key=True).get(pk=merchant.pk)
    if live(merchant).count() >= MOST_ENDPOINTS:
        raise errors.Conflict(f"There are {MOST_ENDPOINTS} webhooks already: delete one first.")
    secret = _new_secret()
    row.secret = secrets.seal(secret)
    row.save()
    return row, secret


def update(
    row: WebhookEndpoint,
    *,
    name: str | None = None,
    url: str | None = None,
    wanted: Sequence[str] | None = None,
) -> WebhookEndpoint:
    """Change an endpoint; None leaves as it is. What is still to be sent goes to the new URL.

    Raises:
        billing.errors.Invalid: as `create`.
    """
    _write(
        row,
        name=row.name if name is None else name,
        url=row.url if url is None else url,
        wanted=row.events if wanted is None else wanted,
    )
    row.save(update_fields=["name", "url", "events"])
    return row


def rotate(row: WebhookEndpoint, *, now: datetime) -> str:
    """Make a new secret and give it; the old one signs too for 24 hours."""
    secret = _new_secret()
    row.previous_secret, row.previous_until = row.secret, now + OVERLAP
    row.secret = secrets.seal(secret)
    row.save(update_fields=["secret", "previous_secret", "previous_until"])
    return secret


def delete(row: WebhookEndpoint, *, now: datetime) -> None:
    """Tell an endpoint no more; its log stays. Deleted twice, it stays deleted."""
    WebhookEndpoint.objects.filter(pk=row.pk, deleted_at=None).update(deleted_at=now)


def set_paused(row: WebhookEndpoint, *, paused: bool, now: datetime) -> None:
    """Keep what is to be sent, or send again from now on; nothing is lost in between."""
    row.paused_at = now if paused else None
    row.failing_since = None
    row.save(update_fields=["paused_at", "failing_since"])


def live(merchant: Merchant) -> Any:
    """The merchant's endpoints, the deleted left out."""
    return WebhookEndpoint.objects.of(merchant).filter(deleted_at=None)


def headers(row: WebhookEndpoint, *, message_id: str, body: bytes, at: datetime) -> dict[str, str]:
    """The signatures of a message for its headers, at the instant it is sent."""
    at = at.astimezone(UTC)
    current = secrets.open(row.secret)
    texts = [current]
    if row.previous_secret is not None and row.previous_until and row.previous_until > at:
        texts.append(secrets.open(row.previous_secret))
    signed = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(
            standardwebhooks.Webhook(text).sign(message_id, at, body.decode()) for text in texts
        ),
        "X-Webhook-Signature": plain_signature(current, body),
    }
    if len(texts) > 1:
        signed["X-Webhook-Signature-Previous"] = plain_signature(texts[1], body)
    return signed


def plain_signature(secret: str, body: bytes) -> str:
    """Hex HMAC-SHA256 of the raw body; the key is the secret's text as it was shown."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _write(row: WebhookEndpoint, *, name: str, url: str, wanted: Sequence[str]) -> None:
    row.name = name.strip()
    if not 1 <= len(row.name) <= LONGEST_NAME:
        raise errors.Invalid(f"Write a name of 1 to {LONGEST_NAME} characters.", param="name")
    addresses.target(url, local=local_allowed(row.merchant))
    row.url = url
    for event in wanted:
        if event not in events.NAMES:
            raise errors.Invalid(
                f"There is no event {event[:64]!r}. Choose of: {', '.join(events.NAMES)}.",
                param="events",
            )
    row.events = sorted(set(wanted))


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(random.token_bytes(24)).decode()
