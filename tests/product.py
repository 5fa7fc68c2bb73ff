"""The whole product, as `manage.py up` runs it, on its own data and ports: for the stories that are
played from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from lava.bench import ports
from tests.shared import Shared

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 180
# What the product of a story must not inherit from the tests around it.
OURS = ("LAVA_", "DJANGO_", "PYTEST_", "DATABASE_", "STRIPE_", "CELERY_")


class Product:
    """A running product. `facts` is what `.lava/up.json` says."""

    def __init__(self, *flags: str, env: dict[str, str] | None = None) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="lava-"))
        self.state.chmod(0o755)
        self.port = ports.free(3)
        self.flags = flags
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(OURS)
        } | {"LAVA_STATE_DIR": str(self.state), **(env or {})}
        try:
            self.start()
        except BaseException:
            self.remove()
            raise

    def start(self) -> None:
        self.log = open(self.state / "up.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(self.port), *self.flags],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self.env,
            cwd=ROOT,
        )
        facts = self.state / "up.json"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not facts.exists():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)
        self.facts: dict[str, Any] = json.loads(facts.read_text())
        self.url: str = self.facts["url"]

    def output(self) -> str:
        logs = [self.state / "up.log", *sorted((self.state / "logs").glob("*.log"))]
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)

    def manage(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a management command against this product's data."""
        env = self.env | {"LAVA_BASE_URL": self.url}
        return subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *words],
            capture_output=True,
            text=True,
            env=env,
            cwd=ROOT,
            timeout=120,
        )

    def child(self, name: str) -> int:
        """The process id of one of the supervisor's children."""
        for line in (self.state / "pids").read_text().splitlines():
            pid, _, child = line.partition(" ")
            if child == name:
                return int(pid)
        raise LookupError(name)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.log.close()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.state, ignore_errors=True)


class Backend:
    """A merchant's backend: its key, and the API."""

    def __init__(self, product: Product, key: str) -> None:
        self.key = key
        self.http = httpx.Client(
            base_url=f"{product.url}/v1/", headers={"Authorization": f"Bearer {key}"}, timeout=60
        )

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(path, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, **body: Any) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()


def eventually(ask: Any, *, within_s: float = 30, pause_s: float = 0.2) -> Any:
    """Ask until the answer is true; gives it. For what workers do in their own time."""
    deadline = time.monotonic() + within_s
    while True:
        found = ask()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause_s)


PRODUCT = Shared("product")


def _start(end: ExitStack) -> Product:
    running = Product("--no-demo")
    end.callback(running.remove)
    return running


@pytest.fixture(scope="module")
def product() -> Product:
    """A product without a demo, shared by the group "product": others were at work in it."""
    running: Product = PRODUCT.start(_start)
    return running


@pytest.fixture
def empty_product(product: Product) -> Product:
    """The same, as after `manage.py up --no-demo`: nobody was there yet."""

    def emptied() -> bool:
        # Refused while the worker or beat is in a table.
        return product.manage("flush", "--no-input").returncode == 0

    eventually(emptied)
    answer = httpx.post(f"{product.facts['card_network']['url']}/_control/reset", json={})
    assert answer.is_success, answer.text
    return product
