"""Whether this machine's clock is right: it tells the database's time.

Asked by each task before it runs (`lava.celery`), by each request (`lava.middleware`) and by each
charge's short way (`lava.api.door`): a worker whose clock is ahead would renew, charge and end what
is not due; credits bought under such a clock would begin in the future. A jump is noticed by the
process itself, for nothing; a slow drift within a minute.
"""

from __future__ import annotations

import time

from django.db import DatabaseError, connection

# Between two machines of one installation; a renewal that is so much early is still of its day.
FURTHEST_S = 60.0
# What a clock is set by without a look at the database, and how long a look holds.
STEP_S, HOLDS_S = 1.0, 60.0

_ASK = "SELECT extract(epoch FROM clock_timestamp())"
_looked: tuple[float, float, bool] | None = None


def is_right() -> bool:
    """Whether it differs from the database's by less than a minute; also while nobody can say."""
    global _looked
    steady = time.monotonic()
    shift = time.time() - steady
    if _looked is not None:
        then, shift_then, right = _looked
        if abs(shift - shift_then) < STEP_S and steady - then < HOLDS_S:
            return right
    try:
        connection.ensure_connection()
        with connection.wrap_database_errors:
            # Past Django's cursor: no query of the request that comes along.
            row = connection.connection.execute(_ASK).fetchone()
        theirs = float(row[0])
    except DatabaseError:
        # What needs the database will say so.
        return True
    right = abs(time.time() - theirs) < FURTHEST_S
    _looked = steady, shift, right
    return right
