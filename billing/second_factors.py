"""The second factor of people who sign in: an authenticator app, and codes for when it is lost.

The only writer of `SecondFactor` and `RecoveryCode`. Every check counts wrong tries under the row's
lock, so that many guesses at once are as few as one after the other; a code works once. Called by
the console. All times are real ones.
"""

from __future__ import annotations

import hashlib
import secrets as random
from datetime import datetime, timedelta

import pyotp
from django.db import transaction

from billing import errors, secrets
from billing.models import RecoveryCode, SecondFactor, User

# So many wrong codes, then nothing is tried for a while.
MOST_FAILURES = 5
PAUSE = timedelta(minutes=15)
CODES = 10
_STEP_S = 30
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def has(user: User) -> bool:
    """Whether a person must show a code when they sign in."""
    return bool(SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).exists())


@transaction.atomic
def begin(user: User, *, now: datetime) -> str:
    """Make a secret for an app to scan, and give it; it counts once `confirm` has seen a code.

    Raises:
        billing.errors.Conflict: there is a confirmed one; it must be removed first.
    """
    if has(user):
        raise errors.Conflict("Two-step sign-in is on already.", code="second_factor_is_on")
    text: str = pyotp.random_base32()
    SecondFactor.objects.update_or_create(
        user=user,
        defaults={
            "secret": secrets.seal(text),
            "confirmed_at": None,
            "last_step": 0,
            "failures": 0,
            "failed_at": None,
            "created_at": now,
        },
    )
    return text


def pending(user: User) -> str:
    """The secret of a factor that waits to be confirmed; empty without one."""
    row = SecondFactor.objects.filter(user=user, confirmed_at=None).first()
    return secrets.open(row.secret) if row is not None else ""


def address(user: User, secret: str, *, issuer: str) -> str:
    """What the app scans: an `otpauth:` address."""
    found: str = pyotp.TOTP(secret).provisioning_uri(name=user.email, issuer_name=issuer)
    return found


@transaction.atomic
def confirm(user: User, code: str, *, now: datetime) -> list[str]:
    """Turn the factor on with a first code; gives the recovery codes, shown for the only time.

    Raises:
        billing.errors.Invalid: the code is wrong.
        billing.errors.NotFound: nothing was begun.
    """
    row = _locked(user, confirmed=False)
    if row is None:
        raise errors.NotFound("Begin anew: no app waits to be confirmed.")
    if not _take(row, code, now=now):
        raise errors.Invalid(
            "That code is not of this app now. Codes change every 30 seconds: is the clock of "
            "the phone right?",
            param="code",
        )
    row.confirmed_at = now
    row.save()
    return _new_codes(user)


def check(user: User, code: str, *, now: datetime) -> bool:
    """Whether a code of the app, or a recovery code, is right; either is spent by it.

    Raises:
        billing.errors.Refused: too many wrong codes; nothing is tried for 15 minutes.
    """
    with transaction.atomic():
        row = _locked(user, confirmed=True)
        if row is None:
            return False
        if row.failures >= MOST_FAILURES and row.failed_at and now - row.failed_at < PAUSE:
            raise errors.Refused(
                "Too many wrong codes. Wait 15 minutes, then try again.", code="too_many_codes"
            )
        right = _take(row, code, now=now) or _take_recovery(user, code, now=now)
        if right:
            row.failures, row.failed_at = 0, None
        else:
            over = row.failed_at is not None and now - row.failed_at >= PAUSE
            row.failures = 1 if over else row.failures + 1
            row.failed_at = now
        row.save()
    return right


@transaction.atomic
def renew_codes(user: User) -> list[str]:
    """Make new recovery codes; those of before open nothing more."""
    return _new_codes(user)


def codes_left(user: User) -> int:
    """How many recovery codes are unspent."""
    return int(RecoveryCode.objects.filter(user=user, used_at=None).count())


@transaction.atomic
def remove(user: User) -> None:
    """Sign in by the password alone from now on."""
    SecondFactor.objects.filter(user=user).delete()
    RecoveryCode.objects.filter(user=user).delete()


def _locked(user: User, *, confirmed: bool) -> SecondFactor | None:
    rows = SecondFactor.objects.select_for_update().filter(user=user)
    found: SecondFactor | None = rows.filter(confirmed_at__isnull=not confirmed).first()
    return found


def _take(row: SecondFactor, code: str, *, now: datetime) -> bool:
    """Whether it is the code of this half minute or of a neighbour, and was not used before."""
    digits = "".join(code.split())
    if len(digits) != 6 or not (digits.isascii() and digits.isdecimal()):
        return False
    totp = pyotp.TOTP(secrets.open(row.secret))
    here = int(now.timestamp()) // _STEP_S
    for step in (here, here - 1, here + 1):
        if step > row.last_step and random.compare_digest(totp.at(step * _STEP_S), digits):
            row.last_step = step
            return True
    return False


def _take_recovery(user: User, code: str, *, now: datetime) -> bool:
    rows = RecoveryCode.objects.filter(user=user, code_hash=_hash(user, code), used_at=None)
    return bool(rows.update(used_at=now))


def _new_codes(user: User) -> list[str]:
    RecoveryCode.objects.filter(user=user).delete()
    codes = [
        "-".join("".join(random.choice(_ALPHABET) for _ in range(5)) for _ in range(2))
        for _ in range(CODES)
    ]
    RecoveryCode.objects.bulk_create(
        [RecoveryCode(user=user, code_hash=_hash(user, code)) for code in codes]
    )
    return codes


def _hash(user: User, code: str) -> bytes:
    """A code as it is kept: 49 random bits, so that a plain hash is not guessed back at once; the
    person is part of it, so that two people's codes are not compared."""
    text = "".join(code.lower().split()).replace("-", "")
    return hashlib.sha256(f"recovery:{user.pk}:{text}".encode()).digest()
