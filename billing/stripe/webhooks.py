"""Events of the network: verified against the secret of the account they came to."""

from __future__ import annotations

import json
import time
from typing import Any

import stripe
from django.conf import settings

from billing import errors, secrets
from billing.models import CardAccount, Merchant
from billing.stripe.shapes import Event

# How far a webhook's signed time may be from ours, either way.
SIGNATURE_TOLERANCE_S = 300


def verify_event(payload: bytes, signature: str, *, merchant: Merchant | None = None) -> Event:
    """Check a webhook's signature and time: against the secret of a merchant's own account, or
    (without one) against the installation's, live and test.

    Raises:
        billing.errors.Invalid: not signed by the network, or not within five minutes of now
            (`construct_event` alone would take times years ahead).
    """
    refusal = errors.Invalid("The signature does not match.", code="bad_signature")
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise refusal from error
    if not any(_is_signed(text, signature, secret) for secret in _webhook_secrets(merchant)):
        raise refusal
    try:
        raw = json.loads(text)
        return Event(
            id=_word(raw["id"]),
            type=_word(raw["type"]),
            livemode=bool(raw["livemode"]),
            object_id=str(raw["data"]["object"].get("id", "")),
            payload=raw,
            account=str(raw.get("account") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise errors.Invalid("That is no event of the card network.") from error


def _is_signed(text: str, signature: str, secret: str) -> bool:
    """Whether a body carries the signature of a secret, made within five minutes of now."""
    if not secret:
        return False
    try:
        stripe.WebhookSignature.verify_header(text, signature, secret)
        stamp = next(part[2:] for part in signature.split(",") if part.startswith("t="))
        return abs(time.time() - int(stamp)) <= SIGNATURE_TOLERANCE_S
    except (stripe.SignatureVerificationError, ValueError, StopIteration):
        return False


def _word(value: Any) -> str:
    """A short text of an event.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not 0 < len(value) <= 80 or "\x00" in value:
        raise ValueError("no word")
    return value


def _webhook_secrets(merchant: Merchant | None) -> list[str]:
    if merchant is None:
        return list(settings.STRIPE_WEBHOOK_SECRETS)
    own = CardAccount.objects.of(merchant).exclude(webhook_secret=b"").first()
    return [secrets.open(own.webhook_secret)] if own is not None else []
