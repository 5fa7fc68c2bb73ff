"""Cycles: month arithmetic from the anchor, in the merchant's local time. Pure.

A cycle is `[start, end)`, computed from the anchor and its number, never chained, so that an anchor
of Jan 31 gives Feb 28 or 29, then Mar 31 (money.md, Cycles). The local wall time of the anchor is
kept across changes of summer time.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

# Mean lengths: only where the search for a cycle begins, never its bounds.
_MEAN_DAYS = {"day": 1, "week": 7, "month": 30.436875, "year": 365.2425}


@dataclass(frozen=True, slots=True)
class Cycle:
    """Cycle number `index` (from 0): the instants `[start, end)`, in UTC."""

    index: int
    start: datetime
    end: datetime


def cycle(anchor: datetime, interval: str, index: int, zone: str) -> Cycle:
    """The cycle of a number; `interval` is day, week, month or year.

    A local day that a zone left out (Apia, 30 December 2011) is an empty cycle: it starts and
    ends at the same instant, so it holds no `now` and is never renewed.

    Raises:
        ValueError: no such interval, or an anchor without a zone.
    """
    return Cycle(
        index=index,
        start=_boundary(anchor, interval, index, zone),
        end=_boundary(anchor, interval, index + 1, zone),
    )


def index_at(anchor: datetime, interval: str, zone: str, now: datetime) -> int:
    """The number of the cycle that holds `now`; 0 for anything before the anchor.

    Raises:
        ValueError: no such interval, or an anchor without a zone.
    """
    _check(anchor, interval)
    if now <= anchor:
        return 0
    index = max(int((now - anchor) / timedelta(days=_MEAN_DAYS[interval])) - 1, 0)
    while _boundary(anchor, interval, index + 1, zone) <= now:
        index += 1
    while index > 0 and _boundary(anchor, interval, index, zone) > now:
        index -= 1
    return index


def _check(anchor: datetime, interval: str) -> None:
    if interval not in _MEAN_DAYS:
        raise ValueError(f"no such interval: {interval}")
    if anchor.tzinfo is None:
        raise ValueError("an anchor is an instant: it needs a zone")


def _boundary(anchor: datetime, interval: str, number: int, zone: str) -> datetime:
    _check(anchor, interval)
    if number == 0:
        return anchor.astimezone(UTC)
    local = anchor.astimezone(ZoneInfo(zone))
    naive = local.replace(tzinfo=None, fold=0)
    if interval == "day":
        moved = naive + timedelta(days=number)
    elif interval == "week":
        moved = naive + timedelta(weeks=number)
    else:
        months = naive.month - 1 + number * (12 if interval == "year" else 1)
        year, month = naive.year + months // 12, months % 12 + 1
        day = min(naive.day, calendar.monthrange(year, month)[1])
        moved = naive.replace(year=year, month=month, day=day)
    # fold=0: a wall time that comes twice takes its first, one that is skipped moves forward.
    return moved.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)
