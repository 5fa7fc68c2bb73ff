"""Ports that nobody listens on, for what a bench or a test starts."""

from __future__ import annotations

import socket


def free(count: int = 1) -> int:
    """The first of `count` neighbouring ports of loopback that are free right now.

    Raises:
        RuntimeError: a hundred tries found none.
    """
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        if first + count > 65535:
            continue
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")
