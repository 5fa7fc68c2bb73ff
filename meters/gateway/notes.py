"""Which refusals are written down: as many as a person can look at, not as many as a loop makes.

A refused call costs its caller nothing and the database a row for ever. Each token, and each
merchant's own keys together, have `BURST` rows at once and one a second after that, in each
process; of what is left out the number is kept and goes to the log with the next row. Used by the
proxy alone.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

# Rows at once, and a second.
BURST, A_SECOND = 300, 1.0
# Callers that are remembered; the one that was longest silent is forgotten.
CALLERS = 10_000

Who = tuple[UUID, UUID | None]


@dataclass(slots=True)
class _Bucket:
    rows: float
    at: float
    left_out: int = 0


class Notes:
    """The buckets of one process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[Who, _Bucket] = OrderedDict()

    def take(self, merchant: UUID, token: UUID | None) -> int | None:
        """Whether one more refusal is written down: how many were left out since the last one, or
        None where this one is left out."""
        now = self._clock()
        bucket = self._buckets.setdefault((merchant, token), _Bucket(BURST, now))
        self._buckets.move_to_end((merchant, token))
        if len(self._buckets) > CALLERS:
            self._buckets.popitem(last=False)
        bucket.rows = min(BURST, bucket.rows + (now - bucket.at) * A_SECOND)
        bucket.at = now
        if bucket.rows < 1:
            bucket.left_out += 1
            return None
        bucket.rows -= 1
        left_out, bucket.left_out = bucket.left_out, 0
        return left_out
