"""A handle on a running network, for tests and whoever else starts one: start, kill, restart,
control.

Starts `python -m lava.demo.card_network` as a child process and waits until it answers.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

_ROOT = Path(__file__).resolve().parents[3]


class CardNetwork:
    """A network of its own on `state`; use it as a context manager. Options are those of the
    command line."""

    def __init__(self, state: Path, *, port: int = 0, options: Sequence[str] = ()) -> None:
        self._state = state
        self._options = list(options)
        self._port = port
        self._child: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait for the address; a restart takes the same port again."""
        self._child = subprocess.Popen(
            [sys.executable, "-m", "lava.demo.card_network", "--port", str(self._port),
             "--state", str(self._state), *self._options],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.startswith("card network on "):
            raise RuntimeError(f"the card network did not start: {line!r}")
        self.url = line.removeprefix("card network on ").strip()
        self._port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def control(self, path: str, order: dict[str, Any] | None = None, method: str = "") -> Any:
        """Call `/_control/<path>`: GET without an order, POST with one.

        Raises ValueError with the status and the words of a refusal.
        """
        body = None if order is None else json.dumps(order)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            verb = method or ("GET" if order is None else "POST")
            connection.request(verb, f"/_control/{path}", body=body)
            response = connection.getresponse()
            answer = json.load(response)
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"{response.status}: {answer['error']}")
        return answer

    def _end(self, signal_number: int) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            os.kill(child.pid, signal_number)
        child.wait(timeout=30)
        if child.stdout is not None:
            child.stdout.close()
