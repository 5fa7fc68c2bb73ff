"""Whether this machine's clock is right: it tells the database's time.

Asked by each task before it runs (`lava.celery`), by each request (`lava.middleware`, `lava.asgi`)
and each charge's short way (`lava.api.door`): a worker whose clock is ahead would renew, charge and
end what is not due; credits bought under such a clock would begin in the future. A jump is noticed
by the process itself, for nothing; a slow drift within a minute.
"""

from __future__ import annotations

import time

import structlog
from django.db import connection

log = structlog.get_logger(__name__)

# Between two machines of one installation; a renewal that is so much early is still of its day.
FURTHEST_S = 60.0
# What a clock is set by without a look at the database, and how long a look holds.
STEP_S, HOLDS_S = 1.0, 60.0

# What whoever asks is told meanwhile.
WRONG = "This server's clock is wrong. Nothing was written; try again."
_ASK = "SELECT extract(epoch FROM clock_timestamp())"
_looked: tuple[float, float, bool] | None = None


def known() -> bool | None:
    """What the last look said, for nothing; None: the clock was set since, or it is long ago."""
    if _looked is None:
        return None
    then, shift, right = _looked
    steady = time.monotonic()
    holds = abs(time.time() - steady - shift) < STEP_S and steady - then < HOLDS_S
    return right if holds else None


def is_right() -> bool:
    """Whether it differs from the database's by less than a minute; also while nobody can say."""
    global _looked
    right = known()
    if right is not None:
        return right
    try:
        connection.ensure_connection()
        with connection.wrap_database_errors:
            # Past Django's cursor: no query of the request that comes along.
            row = connection.connection.execute(_ASK).fetchone()
    except Exception as error:
        # What needs the database will say so, in its own words.
        log.warning("clock_unknown", error=type(error).__name__)
        return True
    steady, ours = time.monotonic(), time.time()
    right = abs(ours - float(row[0])) < FURTHEST_S
    _looked = steady, ours - steady, right
    return right
