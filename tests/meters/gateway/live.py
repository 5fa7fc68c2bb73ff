"""A live gateway for tests: the product's own server on the tests' database, the local AI provider,
and a provider that says what a test wrote for it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection as database
from django.utils import timezone

from billing import audit as billing_audit
from billing.models import Connection
from lava.bench import ports
from meters import audit as meters_audit
from meters.gateway import keyring
from meters.gateway.models import GatewayCall
from tests import factories
from tests.product import ROOT, eventually

PROVIDER_KEY = "sk-provider-canary-0123456789"


def spawn(*words: str, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, *words], env=env, stdout=out, stderr=out, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip


class Server:
    """`lava.asgi` under granian, as `up` runs it, and the local AI provider beside it."""

    def __init__(self, folder: Path, **extra: str) -> None:
        self.folder = folder
        port = ports.free(2)
        self.url, self.provider_url = (f"http://127.0.0.1:{port + i}" for i in (0, 1))
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LAVA_", "PYTEST_", "COV_"))
        } | {
            "LAVA_CLUSTER": "test",
            "LAVA_TEST_DATABASE": str(database.settings_dict["NAME"]),
            "DATABASE_URL": database_url(),
            "LAVA_DB_MAX_AGE": "600",
            "LAVA_BASE_URL": self.url,
            "PYTHONPATH": str(ROOT),
            **extra,
        }
        self.provider = spawn(
            "-m", "lava.demo.ai_provider", "--port", str(port + 1), env=self.env,
            log=folder / "ai.log",
        )  # fmt: skip
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        process = spawn(
            "-m", "granian", "--interface", "asgi", "lava.asgi:application", "--host", "127.0.0.1",
            "--port", self.url.rpartition(":")[2], "--workers", "1", "--no-ws", "--loop",
            "uvloop", "--log-level", "warning", "--workers-kill-timeout", "5",
            env=self.env, log=self.folder / "web.log",
        )  # fmt: skip
        eventually(lambda: self.answers(f"{self.url}/healthz"), within_s=60)
        eventually(lambda: self.answers(f"{self.provider_url}/_control/health"))
        return process

    @staticmethod
    def answers(url: str) -> bool:
        try:
            return httpx.get(url, timeout=1).is_success
        except httpx.HTTPError:
            return False

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def journal(self) -> list[dict[str, Any]]:
        """What arrived at the local provider."""
        found: list[dict[str, Any]] = httpx.get(f"{self.provider_url}/_control/journal").json()[
            "data"
        ]
        return found

    def forget(self) -> None:
        httpx.delete(f"{self.provider_url}/_control/journal")

    def kill(self) -> None:
        """As a crash does: the server and its workers, at once."""
        os.killpg(self.process.pid, 9)
        self.process.wait()

    def stop(self) -> None:
        for process in (self.process, self.provider):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    pass
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass
            process.wait()


def database_url() -> str:
    """The tests' database, as another process reaches it."""
    params = database.get_connection_params()
    login = f"{params.get('user', '')}:{params.get('password', '')}".rstrip(":")
    where = f"host={params.get('host', '')}&port={params.get('port') or 5432}"
    return f"postgres://{login}@/{params['dbname']}?{where}"


class Shop:
    """A merchant on a live gateway: a subscriber, a meter, a key, and the local provider as rows of
    its own, one a dialect."""

    def __init__(self, server: Server, *, credit: str = "25", **terms: Any) -> None:
        plan_terms = {
            name: terms.pop(name) for name in ("when_depleted", "overage_cap") if name in terms
        }
        self.server = server
        self.now = timezone.now()
        self.merchant = factories.make_merchant(sandbox=False)
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(
            self.merchant, price="0", credit=credit, **({"when_depleted": "block"} | plan_terms)
        )
        self.meter = factories.make_meter(self.merchant, self.plan, **terms)
        self.connection: Connection = factories.make_subscription(
            self.plan, now=self.now
        ).connection
        for slug, dialect, slot, base in (
            ("local", "openai", "authorization", "/v1"),
            ("claude", "anthropic", "x-api-key", "/v1"),
            ("gem", "google", "x-goog-api-key", "/v1beta"),
        ):
            self.provide(slug, f"{server.provider_url}{base}", dialect=dialect, slot=slot)
        server.forget()

    def provide(self, slug: str, base_url: str, **kwargs: Any) -> None:
        """A provider of the merchant's own, with a key."""
        keyring.add_provider(
            self.merchant, slug=slug, name=slug.title(), base_url=base_url, private=True,
            now=self.now, **kwargs,
        )  # fmt: skip
        keyring.set_key(self.merchant, provider=slug, key=PROVIDER_KEY, actor="test", now=self.now)

    def token(self, **told: Any) -> str:
        """As the official client makes it."""
        said = {
            "secret_key": self.key,
            "connection_id": self.connection.public_id,
            "meter_slug": self.meter.slug,
        } | told
        return base64.b64encode(json.dumps(said).encode()).decode()

    def ask(self, path: str = "/v1/forward/local/v1/chat/completions", **kwargs: Any) -> Any:
        """One call; a chat of one message unless said otherwise."""
        headers = {"authorization": f"Bearer {kwargs.pop('token', None) or self.token()}"}
        headers |= kwargs.pop("headers", {})
        method = kwargs.pop("method", "POST")
        if method == "POST" and "content" not in kwargs:
            kwargs.setdefault("json", chat())
        return httpx.request(
            method, f"{self.server.url}{path}", headers=headers, timeout=60, **kwargs
        )

    def calls(self) -> list[GatewayCall]:
        return list(GatewayCall.objects.of(self.merchant).order_by("pk"))

    def call(self) -> GatewayCall:
        """The only call, once it is settled."""
        return settled(self)[-1]

    def balance(self) -> Decimal:
        self.connection.refresh_from_db()
        found: Decimal = self.connection.balance
        return found


def settled(shop: Shop, *, within_s: float = 20) -> list[GatewayCall]:
    """The shop's calls, once none is running."""
    found: list[GatewayCall] = eventually(
        lambda: (calls := shop.calls()) and all(call.ended_at for call in calls) and calls,
        within_s=within_s,
    )
    return found


def chat(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]} | fields


def sound(shop: Shop) -> None:
    """The books hold, and nothing is held."""
    broken = [
        (rule.name, rows)
        for rule in (*billing_audit.RULES, *meters_audit.RULES)
        if (rows := rule.rows())
    ]
    assert not broken
    shop.connection.refresh_from_db()
    assert shop.connection.held == 0


@pytest.fixture(scope="session")
def gateway_server(
    django_db_setup: Any, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One a test worker, for every module that plays on a live gateway."""
    with django_db_blocker.unblock():
        running = Server(tmp_path_factory.mktemp("gateway"))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def shop(gateway_server: Server, transactional_db: Any) -> Iterator[Shop]:
    yield Shop(gateway_server)
    time.sleep(0)
