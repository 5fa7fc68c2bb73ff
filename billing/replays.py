"""Idempotency keys: one POST, however often it is sent, has one effect and one answer.

`begin` takes a key for a call or finds its answer; `finish` keeps the answer. A call that is one
transaction begins and finishes inside it: a process that dies leaves no trace of either, and a
second sender waits for the first. A call that talks to a network or has a key of its own is leased
instead: what a dead process left may be taken over when the lease ends.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from billing import errors, secrets
from billing.models import IdempotentCall, Merchant

LEASE = timedelta(seconds=60)
KEPT_FOR = timedelta(hours=48)
LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered."""

    status: int
    body: bytes


def check_key(key: str) -> str:
    """The key as it was sent.

    Raises:
        billing.errors.Invalid: empty, too long, or not printable ASCII.
    """
    if not (1 <= len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise errors.Invalid(
            f"An Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters.",
            code="invalid_idempotency_key",
        )
    return key


def fingerprint(method: str, address: str, body: bytes) -> bytes:
    """What makes two calls the same: their method, address with query, and bytes."""
    return hashlib.sha256(b"\n".join((method.encode(), address.encode(), body))).digest()


def begin(merchant: Merchant, *, key: str, meaning: bytes, now: datetime) -> Answer | None:
    """Take a key for a call; gives the answer where the same call had one.

    Raises:
        billing.errors.Conflict: `idempotency_key_reused` by another call, or
            `idempotency_key_in_use` by the same one at this moment.
    """
    # In a transaction this waits for another one that holds the key, and then sees its answer.
    row, made = IdempotentCall.objects.get_or_create(
        merchant=merchant,
        key=key,
        defaults={"fingerprint": meaning, "leased_until": now + LEASE, "created_at": now},
    )
    if made:
        return None
    with transaction.atomic():
        row = IdempotentCall.objects.select_for_update().get(pk=row.pk)
        if bytes(row.fingerprint) != meaning:
            raise errors.Conflict(
                "This Idempotency-Key was used for another call. Send a new key.",
                code="idempotency_key_reused",
            )
        if row.status is not None:
            assert row.answer is not None
            return Answer(row.status, secrets.open(row.answer).encode())
        if row.leased_until > now:
            raise errors.Conflict(
                "The same call is being answered. Send it again in a moment.",
                code="idempotency_key_in_use",
            )
        row.leased_until = now + LEASE
        row.save(update_fields=["leased_until"])
    return None


def finish(merchant: Merchant, *, key: str, meaning: bytes, answer: Answer, now: datetime) -> None:
    """Keep the answer of a call; of two, the first stays. Needs no `begin` that survived."""
    sealed = secrets.seal(answer.body)
    kept = IdempotentCall.objects.filter(
        merchant=merchant, key=key, fingerprint=meaning, status=None
    ).update(status=answer.status, answer=sealed)
    if not kept:
        IdempotentCall.objects.bulk_create(
            [
                IdempotentCall(
                    merchant=merchant,
                    key=key,
                    fingerprint=meaning,
                    status=answer.status,
                    answer=sealed,
                    leased_until=now,
                    created_at=now,
                )
            ],
            ignore_conflicts=True,
        )


def abandon(merchant: Merchant, *, key: str, meaning: bytes) -> None:
    """Give a key back that was taken and not answered: the call may be sent again at once."""
    IdempotentCall.objects.filter(
        merchant=merchant, key=key, fingerprint=meaning, status=None
    ).delete()


def forget(now: datetime) -> int:
    """Drop answers that are older than they are kept; gives how many."""
    return int(IdempotentCall.objects.filter(created_at__lt=now - KEPT_FOR).delete()[0])
