"""`bench up`: how soon `manage.py up` serves its first page, and what it takes of the machine's
memory (speed.md, goals 7 and 9): once on a new database with the demo's story to tell, then warm.

Time counts from the command to the first page that is answered, as a person waits for it. Memory is
the sum of proportional set sizes, shared pages counted once, of all that `up` runs but PostgreSQL.
"""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from lava.bench import ports
from lava.bench.options import Options, Say

MOST_S, MOST_BYTES = 5.0, 400_000_000
PATIENCE_S = 180


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """One cold start and `rounds` warm ones; memory after the last."""
    folder = Path(settings.STATE_DIR) / "up"
    folder.mkdir(mode=0o755)
    cold, _ = _start(folder)
    say(f"cold: first page {cold['page_s']:.1f} s, all of it {cold['ready_s']:.1f} s")
    warm: list[dict[str, float]] = []
    memory: dict[str, int] = {}
    for _ in range(options.rounds):
        found, memory = _start(folder)
        warm.append(found)
        say(f"warm: first page {found['page_s']:.1f} s, all of it {found['ready_s']:.1f} s")
    medians = {name: statistics.median(row[name] for row in warm) for name in cold}
    taken = sum(memory.values())
    return {
        "cold": cold,
        "warm": medians,
        "memory": memory,
        "memory_bytes": taken,
        "holds": medians["page_s"] <= MOST_S and taken <= MOST_BYTES,
        "correct": True,
    }


def _start(folder: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Start it, wait for the first page and for the end of its start; then stop it."""
    port = ports.free(3)
    env = os.environ | {"LAVA_STATE_DIR": str(folder)}
    door = str(Path(settings.BASE_DIR) / "manage.py")
    since = time.monotonic()
    with open(folder / "up.log", "ab") as log:
        running = subprocess.Popen(
            [sys.executable, door, "up", "--port", str(port)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _until(lambda: _answers(port), running, folder)
        page_s = time.monotonic() - since
        _until((folder / "up.json").exists, running, folder)
        ready_s = time.monotonic() - since
        # The worker is up a moment after it was started.
        time.sleep(5)
        return {"page_s": page_s, "ready_s": ready_s}, _memory(running.pid)
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(60)


def _until(done: Any, running: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if running.poll() is not None or time.monotonic() > deadline:
            raise CommandError(f"`up` did not start:\n{(folder / 'up.log').read_text()[-2000:]}")
        time.sleep(0.02)


def _answers(port: int) -> bool:
    """Whether the console's first page is there."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        line.request("GET", "/console/login/")
        return line.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        line.close()


def _memory(root: int) -> dict[str, int]:
    """Bytes by kind of process, of a process and all that came of it."""
    found: dict[str, int] = {}
    waiting = [root]
    while waiting:
        number = waiting.pop()
        home = Path(f"/proc/{number}")
        try:
            children = (home / "task" / str(number) / "children").read_text().split()
            words = (home / "cmdline").read_text().replace("\0", " ")
            rollup = (home / "smaps_rollup").read_text()
        except OSError:
            continue
        waiting += map(int, children)
        if "postgres" in words.partition(" ")[0]:
            continue
        taken = next(
            int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")
        )
        name = _name(words)
        found[name] = found.get(name, 0) + taken * 1024
    return found


def _name(words: str) -> str:
    kinds = {
        "lava.web": "web", " worker": "worker", "card_network": "card network",
        "ai_provider": "AI provider", "valkey": "broker", "lava.watching": "supervisor",
    }  # fmt: skip
    return next((kind for part, kind in kinds.items() if part in words), "other")


def table(facts: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    lines = ["| `manage.py up` | first page, s | all of it, s |", "|---|---|---|"]
    for name, words in (("cold", "a new database, the story told"), ("warm", "warm")):
        row = facts[name]
        lines.append(f"| {words} | {row['page_s']:.1f} | {row['ready_s']:.1f} |")
    parts = sorted(facts["memory"].items(), key=lambda part: -part[1])
    each = ", ".join(f"{name} {taken / 1e6:.0f}" for name, taken in parts)
    said = "within" if facts["holds"] else "NOT within"
    return [
        *lines,
        "",
        f"- memory without PostgreSQL: {facts['memory_bytes'] / 1e6:.0f} MB ({each})",
        f"- {said} the goals: {MOST_S:.0f} s warm, {MOST_BYTES / 1e6:.0f} MB",
    ]
