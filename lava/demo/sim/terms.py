"""What the model is told and keeps: plans, lots, requests, stays on a plan, and where cycles begin.

Shares no code with the product and imports none of it. Amounts are whole ten-billionths (`UNIT`).
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

UNIT = 10**10
CYCLE, BUNDLE = 1, 2
RETRIES = (1, 3, 5, 7)


@dataclass(frozen=True)
class Terms:
    """A plan and its one meter. Amounts in `UNIT`s, but `price` and `cost` in minor units."""

    price: int = 0
    included: int = 0
    interval: str = "month"
    zone: str = "UTC"
    keeps: bool = True
    keeps_bundles: bool = True
    cap: int | None = None
    overage: bool = True
    threshold: int = 10 * UNIT
    overage_cap: int | None = None
    minor: int = UNIT // 100
    minimum: int = UNIT // 2
    cost: int = 1000
    bundle: int = 10 * UNIT
    # (from, rate a million) a tier; and whether the count starts again each cycle.
    tiers: Sequence[tuple[int, int]] = ((0, 3 * UNIT), (10_000_000, 2 * UNIT))
    by_cycle: bool = False
    # One rate for all of a cycle, that of the tier it reaches; settled when it ends.
    by_volume: bool = False


@dataclass(eq=False)
class Lot:
    """A grant: so much of it is left, for what happens in [start, end)."""

    pool: int
    source: str
    amount: int
    left: int
    start: datetime
    end: datetime | None
    origin: datetime
    number: int
    # Ended, whether or not anything was left to end.
    over: bool = False


@dataclass(eq=False)
class Request:
    """A charged request: what it counted, what it cost, and what paid for it."""

    counted: int
    before: int
    fee: int
    draws: list[tuple[Lot | None, int]]
    subscription: Subscription
    index: int
    late: bool
    # Where it was counted: the meter's lifetime, or one cycle.
    window: object
    void: bool = False


@dataclass(eq=False)
class Subscription:
    """One stay on the plan."""

    anchor: datetime
    start: datetime
    end: datetime
    index: int = 0
    status: str = "active"
    cancels: bool = False
    attempts: int = 0
    next_try: datetime | None = None
    past_due_since: datetime | None = None


@dataclass(eq=False)
class Charge:
    """A charge whose answer has not come. `taken`: None, it never arrived; else what it did."""

    purpose: str
    amount: int
    index: int
    taken: bool | None


def half_up(exact: Fraction) -> int:
    """Whole ten-billionths; no amount here is below 0."""
    return int(exact + Fraction(1, 2))


def boundary(anchor: datetime, interval: str, zone: str, number: int) -> datetime:
    """Where cycle `number` begins: the anchor's wall time, so many intervals on."""
    if number == 0:
        return anchor
    local = anchor.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    if interval in ("day", "week"):
        local += timedelta(days=number * (7 if interval == "week" else 1))
    else:
        year, month = divmod(
            local.year * 12 + local.month - 1 + number * (12 if interval == "year" else 1), 12
        )
        last = calendar.monthrange(year, month + 1)[1]
        local = local.replace(year=year, month=month + 1, day=min(local.day, last))
    return local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
