"""Days and instants as the console's lists need them: bounds in keys, local days, their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

Row = TypeVar("Row")
# The least step of time: the last instant of a day is this before its end.
INSTANT = timedelta(microseconds=1)


def bounds(day: date, zone: str) -> tuple[datetime, datetime]:
    """A local day as `[start, end)`."""
    local = ZoneInfo(zone)
    start = datetime.combine(day, time(), local)
    return start, datetime.combine(day + timedelta(days=1), time(), local)


def read_day(text: str) -> date | None:
    """A day as the browser's field writes it, 2026-11-23; None for anything else."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def between(query: Mapping[str, str], zone: str) -> tuple[datetime, datetime] | None:
    """The time a list is asked for: a `day`, or `from` a day `to` another, as `[start, end)`."""
    first = read_day(query.get("day", "")) or read_day(query.get("from", ""))
    last = read_day(query.get("day", "")) or read_day(query.get("to", ""))
    if first is None or last is None:
        return None
    return bounds(first, zone)[0], bounds(last, zone)[1]


def name(moment: datetime, zone: str, *, now: datetime) -> str:
    """The band of a local day: `Monday 23 November`, with the year where it is another."""
    local = moment.astimezone(ZoneInfo(zone))
    text = f"{local:%A} {local.day} {local:%B}"
    return text if local.year == now.astimezone(ZoneInfo(zone)).year else f"{text} {local.year}"


def bands(
    rows: Sequence[Row], at: Callable[[Row], datetime], zone: str, *, now: datetime
) -> list[tuple[str, list[Row]]]:
    """Rows, in their order, under the local day of each."""
    found: list[tuple[str, list[Row]]] = []
    for row in rows:
        day = name(at(row), zone, now=now)
        if not found or found[-1][0] != day:
            found.append((day, []))
        found[-1][1].append(row)
    return found


def short(moment: datetime, zone: str) -> str:
    """A day in a sentence: `Tue 1 Dec`."""
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local:%a} {local.day} {local:%b}"


def day_month(moment: datetime, zone: str) -> str:
    """A day beside a name: `1 Nov`."""
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%b}"


def full(moment: datetime, zone: str) -> str:
    """An instant in a sentence: `Tue 1 Dec 2026, 00:00`."""
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M}"


def span(length: timedelta) -> str:
    """How long something is, in its two largest units: `7 days 13 h`, `18 min`."""
    minutes = int(length.total_seconds() // 60)
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    parts = [
        f"{days:,} day{'' if days == 1 else 's'}" if days else "",
        f"{hours} h" if hours else "",
        f"{minutes} min" if minutes else "",
    ]
    return " ".join([part for part in parts if part][:2]) or "less than a minute"
