"""The machine a figure was seen on, and what processes spent on it. Linux: it reads /proc."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from django.db import connection

PROC = Path("/proc")
# Looks until two in a row find the same processes.
LOOKS = 20
_TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """Cores, processor, memory, kernel, Python and PostgreSQL, and how busy it was just now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), current_setting('fsync'),"
            " current_setting('synchronous_commit'), current_setting('shared_buffers')"
        )
        version, fsync, commit, buffers = cursor.fetchone()
    return {
        "cores": os.cpu_count(),
        "cpu": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": version,
        "fsync": fsync,
        "synchronous_commit": commit,
        "shared_buffers": buffers,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    for line in (PROC / "cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def spent_us(root: int) -> float:
    """Processor time of a process, its descendants, and those of them that have ended.

    What ended without being waited for by its parent is not in it; PostgreSQL and granian wait.
    """
    seen, spent = _look(root)
    for _ in range(LOOKS):
        # One that ends during a look is in neither place: not with the living, nor with its parent,
        # who was read before.
        before = seen
        seen, spent = _look(root)
        if seen == before:
            break
    return spent


def _look(root: int) -> tuple[set[int], float]:
    """A process and its descendants, and the processor time of them and their dead."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold spaces: count the fields from behind it.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid, parent = int(entry.name), int(fields[1])
        parents.setdefault(parent, []).append(pid)
        # utime, stime, cutime, cstime
        ticks[pid] = sum(int(field) for field in fields[11:15])
    seen, waiting = set(), [root]
    while waiting:
        pid = waiting.pop()
        seen.add(pid)
        waiting += parents.get(pid, [])
    return seen, sum(ticks.get(pid, 0) for pid in seen) * _TICK_US
