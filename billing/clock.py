"""The sandbox's clock: move it forward and run what falls due on the way, in order.

Called by the API's test helpers and the console. Live books have no clock of their own.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from billing import errors, sweep
from billing.models import Merchant, Subscription

# A step this long at once is a slip of the hand, and would renew a daily plan for years.
LONGEST = timedelta(days=3660)


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
