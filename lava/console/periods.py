"""The time a page looks at: 7, 30 or 90 local days, or from one day to another. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from lava.console import moments

RANGES = (7, 30, 90)
USUAL = 30
# The longest that is drawn by day.
MOST_DAYS = 366


@dataclass(frozen=True, slots=True)
class Period:
    """Local days, first and last included; today is not over yet."""

    first: date
    last: date
    zone: str
    # 7, 30 or 90; None for days that were chosen.
    range: int | None

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def start(self) -> datetime:
        return _midnight(self.first, self.zone)

    @property
    def end(self) -> datetime:
        """The beginning of the day after the last."""
        return _midnight(self.last + timedelta(days=1), self.zone)

    @property
    def before(self) -> Period:
        """As many days just before."""
        last = self.first - timedelta(days=1)
        return Period(last - timedelta(days=self.days - 1), last, self.zone, None)

    @property
    def query(self) -> str:
        """What an address carries to look at the same time."""
        if self.range is not None:
            return urlencode({"days": self.range})
        return urlencode({"from": self.first.isoformat(), "to": self.last.isoformat()})

    @property
    def bounds(self) -> str:
        """The same for lists, which know days alone."""
        return urlencode({"from": self.first.isoformat(), "to": self.last.isoformat()})

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=number) for number in range(self.days))


def read(query: Mapping[str, str], *, now: datetime, zone: str) -> Period:
    """What a query asks for; what cannot be read, or lies ahead, is the usual 30 days."""
    today = now.astimezone(ZoneInfo(zone)).date()
    first = moments.read_day(query.get("from", ""))
    last = moments.read_day(query.get("to", ""))
    if first is not None and last is not None:
        last = min(last, today)
        if first <= last and (last - first).days < MOST_DAYS:
            return Period(first, last, zone, None)
    text = query.get("days", "")
    days = int(text) if text in map(str, RANGES) else USUAL
    return Period(today - timedelta(days=days - 1), today, zone, days)


def _midnight(day: date, zone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(zone))
