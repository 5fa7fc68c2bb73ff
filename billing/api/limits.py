"""How often a key may call: a fixed window in each web process, which costs no trip anywhere.

`settings.API_CALLS_A_MINUTE` is what all processes together let through; each takes its share.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from django.conf import settings

from billing import errors

WINDOW_S = 60.0
# Keys that are looked at when old windows are cleared away.
MOST_KEYS = 10_000


@dataclass(slots=True)
class Standing:
    """Where a key stands in its window, as the X-RateLimit headers say it."""

    limit: int
    remaining: int
    # Seconds until the window is over.
    reset_s: int

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_s),
        }


_lock = threading.Lock()
_windows: dict[str, tuple[float, int]] = {}


def take(key: str) -> Standing:
    """Count one call of a key; gives where it stands.

    Raises:
        billing.errors.Throttled: the window is used up.
    """
    limit = max(1, settings.API_CALLS_A_MINUTE // settings.WEB_PROCESSES)
    now = time.monotonic()
    with _lock:
        ends, used = _windows.get(key, (0.0, 0))
        if ends <= now:
            if len(_windows) >= MOST_KEYS:
                _clear(now)
            ends, used = now + WINDOW_S, 0
        if used < limit:
            _windows[key] = (ends, used + 1)
    standing = Standing(limit, max(0, limit - used - 1), math.ceil(ends - now))
    if used >= limit:
        raise errors.Throttled(
            f"This key has made {limit} calls within a minute.",
            code="rate_limited",
            retry_after_s=standing.reset_s,
            standing=standing,
        )
    return standing


def _clear(now: float) -> None:
    """Forget windows that are over; of too many that are not, all: a flood of made-up keys."""
    for key in [key for key, (ends, _) in _windows.items() if ends <= now]:
        del _windows[key]
    if len(_windows) >= MOST_KEYS:
        _windows.clear()
