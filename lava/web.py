"""`python -m lava.web`: the web server as `up` runs it, with the product loaded once for all of its
processes.

Granian's own command loads it in each, so that a reload (SIGHUP) brings in new code: that is for
production. Here nobody reloads, and two processes share what one has loaded: half their memory.
"""

from __future__ import annotations

import argparse
import gc

from granian.constants import Interfaces, Loops
from granian.log import LogLevels
from granian.server import Server


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    told = parser.parse_args()
    load()
    Server(
        "lava.asgi:application",
        address="127.0.0.1",
        port=told.port,
        interface=Interfaces.ASGI,
        workers=told.workers,
        backlog=1024,
        websockets=False,
        loop=Loops.uvloop,
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=5,
    ).serve()


def load() -> None:
    """Load what every process needs, and put it where none of them looks for garbage: what is
    looked at is copied."""
    import lava.asgi  # noqa: F401
    from meters import costs

    costs.warm()
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()
