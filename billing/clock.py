"""The sandbox's clock: move it forward and run what falls due on the way, in order.

Called by the API's test helpers, the console and the demo's story. Live books have no clock of
their own. A sandbox whose books are empty may begin in the past (`begin`); from then on its clock
only moves forward too.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from billing import errors, sweep
from billing.models import Connection, Merchant, Subscription

# A step this long at once is a slip of the hand, and would renew a daily plan for years.
LONGEST = timedelta(days=3660)
# How far in the past a sandbox may begin; also a CHECK.
EARLIEST = timedelta(days=366)


@transaction.atomic
def begin(merchant: Merchant, *, at: datetime) -> datetime:
    """Set a fresh sandbox into the past, at most a year back, so that a story can be told in it.

    Raises:
        billing.errors.Forbidden: live books.
        billing.errors.Conflict: somebody is in the books already: what happened stays behind.
        billing.errors.Refused: `at` is not in the past year.
    """
    if not merchant.is_sandbox:
        raise errors.Forbidden("Only the sandbox has a clock of its own.", code="sandbox_only")
    row = Merchant.objects.select_for_update().get(pk=merchant.pk)
    offset = at - timezone.now()
    if not -EARLIEST < offset <= timedelta(0):
        raise errors.Refused("A sandbox begins in the past year.", code="clock_too_far", param="at")
    if Connection.objects.of(merchant).exists():
        raise errors.Conflict("This sandbox has customers: its clock only moves forward.")
    row.clock_offset = offset
    row.save(update_fields=["clock_offset"])
    merchant.clock_offset = offset
    return at


def catch_up(merchant: Merchant) -> datetime:
    """Bring a sandbox that is in the past to real time; what falls due on the way runs.

    One that is there already, or ahead, stays as it is.

    Raises:
        billing.errors.Forbidden: live books.
    """
    real = timezone.now()
    if merchant.now() < real:
        advance(merchant, to=real)
    with transaction.atomic():
        row = Merchant.objects.select_for_update(no_key=True).get(pk=merchant.pk)
        row.clock_offset = max(row.clock_offset, timedelta(0))
        row.save(update_fields=["clock_offset"])
    merchant.clock_offset = row.clock_offset
    return merchant.now()


def advance(merchant: Merchant, *, to: datetime, run: bool = True) -> datetime:
    """Move the sandbox to `to`; what falls due on the way runs at its own instant, in order.

    With `run` false only the clock moves: the workers find what is due.

    Raises:
        billing.errors.Forbidden: live books.
        billing.errors.Refused: `to` is not ahead of now, or more than ten years.
    """
    if not merchant.is_sandbox:
        raise errors.Forbidden("Only the sandbox has a clock of its own.", code="sandbox_only")
    now = merchant.now()
    if to <= now:
        raise errors.Refused("The clock only moves forward.", code="clock_behind", param="to")
    if to - now > LONGEST:
        raise errors.Refused("Move at most ten years at once.", code="clock_too_far", param="to")
    if run:
        sweep.run(merchant, now=now)
        while (instant := sweep.next_instant(merchant, after=now, until=to)) is not None:
            now = _set(merchant, instant)
            sweep.run(merchant, now=instant)
    return _set(merchant, to)


def next_renewal(merchant: Merchant) -> datetime:
    """The instant at which the next subscription of the merchant is due.

    Raises:
        billing.errors.Refused: nobody is subscribed.
    """
    now = merchant.now()
    ends = (
        Subscription.objects.of(merchant)
        .current()
        .filter(cycle_end__gt=now)
        .order_by("cycle_end")
        .values_list("cycle_end", flat=True)
        .first()
    )
    if ends is None:
        raise errors.Refused(
            "Nobody is subscribed: there is no renewal to wait for.", code="no_renewal"
        )
    return ends  # type: ignore[no-any-return]


def _set(merchant: Merchant, instant: datetime) -> datetime:
    """Set the clock to an instant, never back: another hand may have moved it further."""
    with transaction.atomic():
        row = Merchant.objects.select_for_update(no_key=True).get(pk=merchant.pk)
        row.clock_offset = max(row.clock_offset, instant - timezone.now())
        row.save(update_fields=["clock_offset"])
    merchant.clock_offset = row.clock_offset
    return instant
