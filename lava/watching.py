"""What `manage.py up` becomes when all of it runs: a small program that watches, and at the end
stops what was started. It has the same process id, the same children, the same place on the screen.

To start the product `up` loads all of it; a process that only watches need not keep that (60 MB).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from lava.postgres import cluster
from lava.supervisor import Supervisor

# How soon a death is seen; a look costs a few system calls.
WATCH_S = 0.1
STDOUT, STDERR = 1, 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Whether one of them came.
_asked = False


class Watch:
    """What runs: the supervisor's children, and the database where it is `up`'s own."""

    def __init__(self, supervisor: Supervisor, *, own_database: bool, facts: Path) -> None:
        self.supervisor = supervisor
        self.own_database = own_database
        # Says where everything is, while it runs.
        self.facts = facts

    def look(self) -> None:
        """Start again what has died, the database too: it last, since its start is waited for.

        Raises:
            KeyboardInterrupt: a signal had come, and who was interrupted made nothing of it.
        """
        _heed()
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
        """Stop all of it, the database last. A further signal changes nothing."""
        global _asked
        _asked = True
        self.supervisor.stop()
        if self.own_database:
            # Whoever started it, a killed run or a shell: the checkout's cluster ends with `up`.
            cluster.stop()
        self.facts.unlink(missing_ok=True)


def interrupt_on_signals() -> None:
    """SIGTERM is Ctrl-C, and so is a terminal that is closed. Only the first of them interrupts:
    what ends everything must come to its own end. Python drops an exception where it has no place
    for it, so that one is raised again by who looks next."""

    def interrupt(number: int, frame: Any) -> None:
        global _asked
        if not _asked:
            _asked = True
            raise KeyboardInterrupt

    for number in _SIGNALS:
        # Under nohup a terminal may close.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def _heed() -> None:
    if _asked:
        raise KeyboardInterrupt


def become(watch: Watch, *, keep: Iterable[IO[str] | socket.socket]) -> NoReturn:
    """Turn this process into the program below. `keep`: what stays open."""
    told = {
        "supervisor": watch.supervisor.handed_over(),
        "own_database": watch.own_database,
        "facts": str(watch.facts),
    }
    read, write = os.pipe()
    with os.fdopen(write, "w") as line:
        # A pipe holds 64 KiB; this is a few.
        json.dump(told, line)
    for number in (read, *(held.fileno() for held in keep)):
        os.set_inheritable(number, True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Nobody would hear a signal until the other program does.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _heed()
    os.execv(sys.executable, [sys.executable, "-m", "lava.watching", str(read)])


def main() -> None:
    """Watch until a signal comes."""
    with os.fdopen(int(sys.argv[1])) as line:
        told = json.load(line)
    supervisor = Supervisor.adopt(told["supervisor"], say=lambda words: say(words, STDERR))
    watch = Watch(supervisor, own_database=told["own_database"], facts=Path(told["facts"]))
    try:
        interrupt_on_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        while True:
            time.sleep(WATCH_S)
            watch.look()
    except KeyboardInterrupt:
        say("\nStopping ...", STDOUT)
    finally:
        watch.stop()
    say("Stopped.", STDOUT)


def say(words: str, to: int) -> None:
    """Tell whoever reads there. That nobody does any more ends nothing."""
    with suppress(OSError):
        os.write(to, f"{words}\n".encode())


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")
    main()
