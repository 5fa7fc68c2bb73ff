"""`manage.py up`: the whole product on this machine, with one command.

Starts what is not given by the environment: PostgreSQL, the broker, the local card network and AI
provider; then web and a worker that beats. Migrates, seeds the demo on the first run, prints the
addresses and logins, stops everything it started on Ctrl-C.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from lava import broker, watching
from lava.management.commands import demo
from lava.postgres import cluster
from lava.supervisor import Child, Supervisor, clean_up_after_a_crash

READY_TIMEOUT_S = 60


class Command(BaseCommand):
    help = "Run the whole product: database, broker, web, worker, local card network."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="the one address of it all")
        parser.add_argument("--no-demo", action="store_true", help="start empty")
        parser.add_argument("--workers", type=int, default=2, help="web processes")

    def handle(self, *args: Any, **options: Any) -> None:
        state = Path(settings.STATE_DIR)
        state.mkdir(parents=True, exist_ok=True)
        # What is started finds the product where it is, not where one stands, and our files here.
        os.environ["LAVA_STATE_DIR"] = str(state)
        os.chdir(settings.BASE_DIR)
        gate = self._only_one(state)
        pids = state / "pids"
        clean_up_after_a_crash(pids, root=Path(settings.BASE_DIR))
        run = Run(
            Supervisor(logs=state / "logs", pids=pids, say=self._warn),
            facts=state / "up.json",
            port=options["port"],
            workers=options["workers"],
        )
        try:
            watching.interrupt_on_signals()
            run.check_ports()
            run.start_ground()
            # A page is what people wait for: web is the first, on all cores.
            run.start_web()
            run.start_stand_ins()
            # The story moves its sandboxes' clocks: the worker comes when it is told.
            story = {} if options["no_demo"] else run.seed()
            run.wait_until_ready()
            run.start_worker()
            self._announce(run, story)
            watching.become(run.watch, keep=[gate, *run.claims])
        except KeyboardInterrupt:
            watching.say("\nStopping ...", watching.STDOUT)
        finally:
            run.watch.stop()
            gate.close()
        watching.say("Stopped.", watching.STDOUT)

    def _only_one(self, state: Path) -> IO[str]:
        gate = open(state / "up.lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandError("Lava is running in this checkout already.") from error
        return gate

    def _warn(self, words: str) -> None:
        watching.say(words, watching.STDERR)

    def _announce(self, run: Run, story: dict[str, Any]) -> None:
        console = {"url": f"{run.url}/console/", "email": None, "password": None}
        facts = {
            "url": run.url,
            "console": console | story.get("console", {}),
            "merchants": story.get("merchants", []),
            "card_network": {"url": run.card_network_url},
            "ai_provider": {"url": run.ai_provider_url},
        }
        fresh = run.watch.facts.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(facts, indent=2) + "\n")
        fresh.rename(run.watch.facts)
        lines = [("Lava", run.url), ("Console", facts["console"]["url"])]
        if story:
            lines += [
                ("  e-mail", facts["console"]["email"]),
                ("  password", facts["console"]["password"]),
            ]
            for merchant in facts["merchants"]:
                lines += [(merchant["name"], merchant["secret_key"])]
                lines += [("  forward token", merchant["forward_token"])]
        else:
            lines += [("First run", f"{run.url}/console/first-run")]
        if run.card_network_url:
            lines += [("Card network", f"{run.card_network_url} (test card 4242 4242 4242 4242)")]
        lines += [("AI provider", run.ai_provider_url)]
        width = max(len(name) for name, _ in lines)
        self.stdout.write("")
        for name, value in lines:
            self.stdout.write(f"  {name:<{width}}  {value}")
        self.stdout.write("\n  Ctrl-C stops everything. The facts above are in .lava/up.json.\n")
        self.stdout.flush()


def _claim(port: int) -> socket.socket | None:
    """A port as ours alone, from now until we end; None: another `up` has it. One that starts at
    the same moment finds it free too, and both web servers would then share it."""
    claim = socket.socket(socket.AF_UNIX)
    if sys.platform == "linux":
        try:
            # A name without a file, which goes with the process.
            claim.bind(f"\0lava-port-{port}")
        except OSError:
            claim.close()
            return None
    return claim


def _is_taken(port: int) -> bool:
    """Whether a server of ours could not have a port. What is left for a minute of a line that an
    earlier one closed does not hinder it: like the web server, the probe shares the port, so
    whether somebody listens there is asked apart."""
    with socket.socket() as call:
        # Somebody who listens and does not answer is somebody too.
        call.settimeout(1)
        if call.connect_ex(("127.0.0.1", port)) != errno.ECONNREFUSED:
            return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


class Run:
    """One run of the product: its addresses, its children, its order of starting and stopping."""

    def __init__(self, supervisor: Supervisor, *, facts: Path, port: int, workers: int) -> None:
        self.supervisor = supervisor
        self.port = port
        self.workers = workers
        self.url = os.environ.get("LAVA_BASE_URL", f"http://127.0.0.1:{port}").rstrip("/")
        self.own_database = not os.environ.get("DATABASE_URL")
        self.watch = watching.Watch(supervisor, own_database=self.own_database, facts=facts)
        self.claims: list[socket.socket] = []
        self.own_broker = not settings.CELERY_BROKER_URL
        self.own_cards = settings.STRIPE_KEYS["test"][0] == "sk_test_local"
        self.card_network_url = f"http://127.0.0.1:{port + 1}" if self.own_cards else ""
        self.ai_provider_url = f"http://127.0.0.1:{port + 2}"
        self.env = {
            "LAVA_BASE_URL": self.url,
            "LAVA_DB_ROLE": "app",
            "PYTHONUNBUFFERED": "1",
        }
        if self.own_cards:
            self.env["LAVA_CARD_NETWORK_URL"] = self.card_network_url

    def check_ports(self) -> None:
        """Fail early, in one sentence, when a port is taken."""
        wanted = [self.port, self.port + 2] + ([self.port + 1] if self.own_cards else [])
        for port in wanted:
            claim = _claim(port)
            if claim is not None:
                self.claims.append(claim)
            if claim is None or _is_taken(port):
                raise CommandError(
                    f"Port {port} is taken. Choose another with --port N (N, N+1 and N+2 are used)."
                )

    def start_ground(self) -> None:
        """Database and broker; then the tables."""
        if self.own_database:
            cluster.ensure()
        if self.own_broker:
            self.supervisor.start(Child("broker", broker.command()))
        if _has_migrations_to_run():
            self._manage("migrate", "--no-input", "-v", "0", role="owner")

    def start_stand_ins(self) -> None:
        """The local card network, where no Stripe key is set, and the local AI provider."""
        if self.own_cards:
            self.supervisor.start(
                Child(
                    "cards",
                    self._python("-m", "lava.demo.card_network", "--port", str(self.port + 1),
                                 "--state", str(Path(settings.STATE_DIR) / "card_network.db"),
                                 "--webhook-url", f"http://127.0.0.1:{self.port}/webhooks/stripe",
                                 "--webhook-secret-live", "whsec_live_local",
                                 "--webhook-secret-test", "whsec_test_local"),
                )
            )  # fmt: skip
        self.supervisor.start(
            Child("ai", self._python("-m", "lava.demo.ai_provider", "--port", str(self.port + 2)))
        )

    def start_web(self) -> None:
        """Web, as the worker with the role that may not touch the ledger's lines."""
        web = self._python(
            "-m", "lava.web", "--port", str(self.port), "--workers", str(self.workers)
        )
        self.supervisor.start(Child("web", web, self.env | {"LAVA_DB_MAX_AGE": "600"}))

    def start_worker(self) -> None:
        """A worker, which beats as well."""
        worker = self._python(
            "-m", "celery", "-A", "lava.celery", "worker", "-P", "threads", "-c", "4", "--beats",
            "--without-gossip", "--without-mingle", "--loglevel", "WARNING",
        )  # fmt: skip
        self.supervisor.start(Child("worker", worker, self.env, stop_timeout_s=15))

    def seed(self) -> dict[str, Any]:
        """The demo's story, told once; later runs only say its logins again."""
        if not demo.is_told():
            if self.own_cards:
                self._wait(f"{self.card_network_url}/v1/customers", any_answer=True)
            told = self._manage("demo", "--ai-provider", self.ai_provider_url, role="owner")
            story: dict[str, Any] = json.loads(told.strip().splitlines()[-1])
            return story
        try:
            # A process less to start.
            return demo.logins(say=self.supervisor.say, ai_provider=self.ai_provider_url)
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        """Until the product answers."""
        self._wait(f"http://127.0.0.1:{self.port}/readyz")

    def _python(self, *words: str) -> list[str]:
        return [sys.executable, *words]

    def _manage(self, *words: str, role: str) -> str:
        done = subprocess.run(
            self._python(str(Path(settings.BASE_DIR) / "manage.py"), *words),
            env={**os.environ, **self.env, "LAVA_DB_ROLE": role},
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            raise CommandError(f"manage.py {words[0]} did not work; see above.")
        return done.stdout

    def _wait(self, url: str, *, any_answer: bool = False) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                    return
            except urllib.error.HTTPError as error:
                if any_answer or error.code < 500:
                    return
            except OSError:
                pass
            self.watch.look()
            time.sleep(0.1)
        raise CommandError(f"{url} did not answer within {READY_TIMEOUT_S} s; see .lava/logs.")


def _has_migrations_to_run() -> bool:
    """Asked here, since a process that finds nothing to do takes seconds to say so."""
    try:
        executor = MigrationExecutor(connection)
        return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    finally:
        connection.close()
