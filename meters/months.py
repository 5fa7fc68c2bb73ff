"""The months by which requests are split: made ahead of time, and whether they are.

A request goes to the month in which it was made, in real time. Made by `meters.tasks` each hour, by
the database's own function (`meters/sql/partition_functions.sql`); looked at by
`lava.operations.doctor`. No charge waits for a month: without one, its requests go to the rest.
"""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from django.db import OperationalError, transaction
from django.db import connection as database

# Months from this one for which there is room.
AHEAD = 3

log = structlog.get_logger(__name__)


def make(ahead: int = AHEAD) -> int:
    """Make what is missing; gives how many months. Safe to run at any time and twice; 0 also where
    the tables were too busy, which the next run makes good."""
    try:
        with transaction.atomic(), database.cursor() as cursor:
            cursor.execute("SELECT meters_make_months(%s)", [ahead])
            return int(cursor.fetchone()[0])
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != "55P03":  # lock_not_available
            raise
        log.warning("months_are_late", why="the tables were too busy")
        return 0


def room_until() -> datetime:
    """The instant until which every request has a month to go to."""
    with database.cursor() as cursor:
        cursor.execute("SELECT meters_month_of(meters_room_until())")
        (day,) = cursor.fetchone()
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
