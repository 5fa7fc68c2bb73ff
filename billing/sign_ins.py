"""Where people are signed in: noted when they enter, listed, ended one by one.

The only writer of `SignIn`. Called by the console. A `session_key` is the one of the session's row,
a hash of the cookie.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.sessions.models import Session
from django.utils import timezone

from billing import errors
from billing.models import SignIn, User


def note(user: User, *, session_key: str, address: str, browser: str, now: datetime) -> SignIn:
    """Write down that a person signed in with a browser."""
    row, _ = SignIn.objects.update_or_create(
        session_key=session_key,
        defaults={
            "user": user,
            "address": address or None,
            "browser": browser[:255],
            "at": now,
        },
    )
    return row


def open_ones(user: User) -> list[SignIn]:
    """The sign-ins whose sessions still open the console, the latest first."""
    rows = SignIn.objects.filter(user=user)
    alive: Any = Session.objects.filter(expire_date__gt=timezone.now()).values("session_key")
    return list(rows.filter(session_key__in=alive).order_by("-at")[:50])


def end(user: User, key: int) -> None:
    """Sign a browser of the person out, at its next click.

    Raises:
        billing.errors.NotFound: it is none of theirs.
    """
    row = SignIn.objects.filter(user=user, pk=key).first()
    if row is None:
        raise errors.NotFound("No such sign-in.")
    Session.objects.filter(session_key=row.session_key).delete()
    row.delete()


def end_others(user: User, *, but: str) -> int:
    """Sign out every other browser of the person; gives how many."""
    rows = SignIn.objects.filter(user=user).exclude(session_key=but)
    keys = list(rows.values_list("session_key", flat=True))
    Session.objects.filter(session_key__in=keys).delete()
    rows.delete()
    return len(keys)
