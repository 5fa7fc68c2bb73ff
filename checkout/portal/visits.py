"""Visits to the portal: sign in by phone code, stay for half an hour of silence, sign out.

The only writer of `PortalVisit`. What the browser holds is a random secret, kept here as its hash;
it changes with the sign-in, so that whoever planted one before has nothing. Raises
`billing.errors`.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from django.db import transaction

from billing import connections, errors, ids, locales
from billing.models import Connection, Merchant
from checkout import phones
from checkout.models import PortalVisit

IDLE = timedelta(minutes=30)
# However busy: then the phone is asked for again.
LONGEST = timedelta(hours=12)
# `seen_at` is written at most so often.
HEARD_EVERY = timedelta(minutes=1)


def new_secret() -> str:
    """What a browser holds: 256 random bits."""
    return secrets.token_urlsafe(32)


def find(merchant: Merchant, secret: str, *, now: datetime) -> PortalVisit | None:
    """The visit of a browser's secret, if it goes on; None: there is none, or it is over."""
    visit: PortalVisit | None = (
        PortalVisit.objects.of(merchant)
        .filter(secret_hash=ids.secret_hash(secret), ended_at=None)
        .select_related("merchant__organization", "connection__customer", "connection__merchant")
        .first()
    )
    if visit is None or visit.seen_at + IDLE <= now or visit.created_at + LONGEST <= now:
        return None
    if visit.connection is not None and not _is_theirs(visit, visit.connection):
        return None
    if visit.seen_at + HEARD_EVERY <= now:
        PortalVisit.objects.filter(pk=visit.pk).update(seen_at=now)
    return visit


def is_used(secret: str) -> bool:
    """Whether a secret was some visit's: over, it opens nothing any more."""
    return PortalVisit.objects.filter(secret_hash=ids.secret_hash(secret)).exists()


def send_code(
    merchant: Merchant, secret: str, *, phone: str, address: str, now: datetime
) -> PortalVisit:
    """Text a code to a phone (E.164), known to the merchant or not; the visit begins here.

    Raises:
        billing.errors.Throttled: too soon or too many; nothing was sent.
        billing.errors.Conflict: the browser is signed in, or its visit is over.
    """
    with transaction.atomic():
        visit, _ = PortalVisit.objects.get_or_create(
            secret_hash=ids.secret_hash(secret),
            defaults={
                "merchant": merchant,
                "phone": phone,
                "created_at": now,
                "seen_at": now,
            },
        )
        visit = _locked(visit)
        _refuse_unless_open(visit, merchant)
        phones.send(visit, phone=phone, address=address, now=now)
        visit.phone, visit.seen_at = phone, now
        visit.save(update_fields=["phone", "seen_at"])
    return visit


def verify_code(visit: PortalVisit, *, code: str, now: datetime) -> str:
    """Sign in with the code that was sent; gives the secret the browser holds from here on.

    Raises:
        billing.errors.Refused: `wrong_code` (counted), or no code to try any more.
        billing.errors.Conflict: the browser is signed in, or its visit is over.
    """
    secret = new_secret()
    with transaction.atomic():
        locked = _locked(visit)
        _refuse_unless_open(locked, visit.merchant)
        right = phones.check(locked, code=code, now=now)
        if right:
            locked.connection = _connection_of(locked)
            locked.secret_hash = ids.secret_hash(secret)
            locked.verified_at = locked.seen_at = now
            locked.save()
            if locked.connection is not None:
                connections.hear(locked.connection.customer, language=locales.current())
    if not right:
        raise phones.wrong(locked)
    return secret


def end(visit: PortalVisit, *, now: datetime) -> None:
    """Sign out, or begin again with another number. Twice is once."""
    PortalVisit.objects.filter(pk=visit.pk, ended_at=None).update(ended_at=now)


def forget(*, now: datetime, older_than: timedelta = timedelta(days=30)) -> int:
    """Delete visits (with their codes) that were last heard of so long ago; how many."""
    count: int = PortalVisit.objects.filter(seen_at__lt=now - older_than).delete()[0]
    return count


def _locked(visit: PortalVisit) -> PortalVisit:
    found: PortalVisit = (
        PortalVisit.objects.select_for_update(of=("self",), no_key=True)
        .select_related("merchant__organization")
        .get(pk=visit.pk)
    )
    return found


def _refuse_unless_open(visit: PortalVisit, merchant: Merchant) -> None:
    over = visit.ended_at is not None or visit.verified_at is not None
    if over or visit.merchant_id != merchant.pk:
        raise errors.Conflict("That page was out of date.", code="stale_page")


def _connection_of(visit: PortalVisit) -> Connection | None:
    found: Connection | None = (
        Connection.objects.of(visit.merchant)
        .visible()
        .filter(customer__phone=visit.phone)
        .select_related("customer")
        .first()
    )
    return found


def _is_theirs(visit: PortalVisit, connection: Connection) -> bool:
    """Not once it is deleted, or the number has become somebody else's."""
    gone = connection.status == Connection.Status.DELETED
    return not gone and connection.customer.phone == visit.phone
