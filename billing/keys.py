"""Secret keys of backends: made, shown once, looked up by hash, revoked at once.

Called by the console and the API; `billing.authentication` finds the merchant of a key here.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from billing import errors, ids
from billing.models import KeyOffer, Merchant, SecretKey, User

# How long a terminal may take to fetch the key it was offered.
OFFER_LIFE = timedelta(minutes=5)


def make(merchant: Merchant, *, name: str, user: User | None = None) -> tuple[SecretKey, str]:
    """Make a key; gives its row and its text, which is never to be had again.

    Raises:
        billing.errors.Invalid: no name.
    """
    if not name.strip():
        raise errors.Invalid("Name the key, so that you know it again.", param="name")
    text = ids.new_secret_key(merchant.is_sandbox)
    key = SecretKey(
        merchant=merchant,
        name=name.strip()[:80],
        secret_hash=ids.secret_hash(text),
        hint=f"{text[:13]}\u2026{text[-4:]}",
        created_by=user,
    )
    key.save()
    return key, text


def offer(merchant: Merchant, *, user: User, now: datetime) -> str:
    """A code that `redeem` makes a key of, once, within five minutes; `now` in real time."""
    code = secrets.token_urlsafe(32)
    KeyOffer(
        merchant=merchant,
        code_hash=ids.secret_hash(code),
        offered_by=user,
        created_at=now,
        expires_at=now + OFFER_LIFE,
    ).save()
    return code


@transaction.atomic
def redeem(code: str, *, now: datetime) -> tuple[SecretKey, str]:
    """Make the key that was offered by a code; gives its row and its text. Never twice.

    Raises:
        billing.errors.Invalid: no such code, or it was used, or its time is over (`invalid_code`).
    """
    row: KeyOffer | None = (
        KeyOffer.objects.select_related("merchant__organization", "offered_by")
        .filter(code_hash=ids.secret_hash(code), expires_at__gt=now)
        .first()
    )
    # Of two that come at once, one changes the row.
    if row is None or not KeyOffer.objects.filter(pk=row.pk, used_at=None).update(used_at=now):
        raise errors.Invalid(
            "This code was used, or its time is over: log in again.",
            code="invalid_code",
            param="code",
        )
    name = f"Terminal of {row.offered_by}"[:80]
    return make(row.merchant, name=name, user=row.offered_by)


def revoke(key: SecretKey, *, now: datetime | None = None) -> SecretKey:
    """Stop a key from the next request on. Revoked twice, the first time counts."""
    SecretKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now or timezone.now())
    key.refresh_from_db()
    return key


@transaction.atomic
def rotate(
    key: SecretKey, *, at_once: bool, user: User | None = None, now: datetime | None = None
) -> tuple[SecretKey, str]:
    """Make a key in the place of another, under the same name; gives its row and its text.

    `at_once`: the old one stops with the next request; else it works until somebody revokes it.

    Raises:
        billing.errors.Conflict: the key is revoked already: rotated twice at once, it is once.
    """
    old = (
        SecretKey.objects.select_for_update(of=("self",)).select_related("merchant").get(pk=key.pk)
    )
    if not old.is_active:
        raise errors.Conflict("This key is revoked already. Make a new one.", code="key_revoked")
    made, text = make(old.merchant, name=old.name, user=user)
    if at_once:
        revoke(old, now=now)
    return made, text


def find(text: str) -> SecretKey:
    """The key of a text, with its merchant.

    A wrong prefix or checksum is refused without a query.

    Raises:
        billing.errors.Unauthenticated: not a key, unknown, or revoked; the same words for each.
    """
    if not ids.check_secret_key(text):
        raise errors.invalid_key()
    key: SecretKey | None = (
        SecretKey.objects.select_related("merchant__organization")
        .filter(secret_hash=ids.secret_hash(text), revoked_at=None)
        .first()
    )
    if key is None:
        raise errors.invalid_key()
    return key
