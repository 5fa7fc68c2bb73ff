"""What `manage.py up` becomes when all of it runs: a small program that watches, and at the end
stops what was started. It has the same process id, the same children, the same place on the screen.

To start the product `up` loads all of it; a process that only watches need not keep that (60 MB).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn, TextIO

from lava.postgres import cluster
from lava.supervisor import Supervisor

# How soon a death is seen; a look costs a few system calls.
WATCH_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Watch:
    """What runs: the supervisor's children, and the database where it is `up`'s own."""

    def __init__(self, supervisor: Supervisor, *, own_database: bool, facts: Path) -> None:
        self.supervisor = supervisor
        self.own_database = own_database
        # Says where everything is, while it runs.
        self.facts = facts

    def look(self) -> None:
        """Start again what has died, the database too: it last, since its start is waited for."""
        self.supervisor.watch()
        if self.own_database and cluster.pid() is None:
            self.supervisor.say("The database ended; starting it again")
            cluster.ensure.cache_clear()
            try:
                cluster.ensure()
            except cluster.ClusterError as error:
                # A killed server's last processes may still be leaving: the next round tries again.
                self.supervisor.say(str(error))

    def stop(self) -> None:
        """Stop all of it, the database last. A second signal changes nothing."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.supervisor.stop()
        if self.own_database:
            # Whoever started it, a killed run or a shell: the checkout's cluster ends with `up`.
            cluster.stop()
        self.facts.unlink(missing_ok=True)


def interrupt_on_signals() -> None:
    """SIGTERM is Ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)


def become(watch: Watch, *, keep: int) -> NoReturn:
    """Turn this process into the program below. `keep`: a file descriptor that stays open."""
    told = {
        "supervisor": watch.supervisor.handed_over(),
        "own_database": watch.own_database,
        "facts": str(watch.facts),
    }
    read, write = os.pipe()
    with os.fdopen(write, "w") as line:
        # A pipe holds 64 KiB; this is a few.
        json.dump(told, line)
    for number in (read, keep):
        os.set_inheritable(number, True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Nobody would hear a signal until the other program does.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.execv(sys.executable, [sys.executable, "-m", "lava.watching", str(read)])


def main() -> None:
    """Watch until a signal comes."""
    with os.fdopen(int(sys.argv[1])) as line:
        told = json.load(line)
    supervisor = Supervisor.adopt(told["supervisor"], say=lambda words: _say(words, sys.stderr))
    watch = Watch(supervisor, own_database=told["own_database"], facts=Path(told["facts"]))
    try:
        interrupt_on_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        while True:
            time.sleep(WATCH_S)
            watch.look()
    except KeyboardInterrupt:
        _say("\nStopping ...", sys.stdout)
    finally:
        watch.stop()
    _say("Stopped.", sys.stdout)


def _say(words: str, to: TextIO) -> None:
    to.write(f"{words}\n")
    to.flush()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")
    main()
