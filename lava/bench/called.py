"""The sides of `bench gateway` that the load client calls: the provider, the product, LiteLLM."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from django.conf import settings
from django.core.management.base import CommandError
from django.db import transaction
from django.utils import timezone

from billing.models import Connection
from lava.bench import load, ports, shop, sides
from lava.supervisor import Child, Supervisor
from meters.gateway import keyring, spendkeys
from meters.models import Meter

MODEL = "gpt-4o-mini"
CHAT = {"model": MODEL, "max_tokens": 64,
        "messages": [{"role": "user", "content": "What does the quick brown fox do?"}]}  # fmt: skip
TOKENS = 64
# What is measured of each side: how many clients, whether it streams.
WAYS = {"load": False, "one": False, "stream": True}
LITELLM_KEY = "sk-bench"
# It loads for long.
LITELLM_READY_S = 600


class Side(Protocol):
    """What is run in every round."""

    name: str
    says: str
    ways: Sequence[str]

    def sample(self, tag: str, *, clients: int, seconds: float, stream: bool) -> sides.Sample: ...

    def stop(self) -> None: ...


class Called(ABC):
    """A side that the load client calls."""

    ways: Sequence[str] = tuple(WAYS)

    def sample(self, tag: str, *, clients: int, seconds: float, stream: bool) -> sides.Sample:
        """Call it for `seconds` and a start."""
        plan = self.plan(tag, clients=clients, seconds=seconds, stream=stream)
        return sides.measured(plan, seconds=seconds, log=self.log, **self.roots())

    @abstractmethod
    def plan(self, tag: str, *, clients: int, seconds: float, stream: bool) -> load.Plan:
        """What to call."""

    @abstractmethod
    def roots(self) -> dict[str, int]:
        """Whose processor time is its own."""

    def log(self) -> str:
        """The end of what it logged."""
        return ""


def _plan(
    tag: str, *, port: int, path: str, tokens: list[str], clients: int, seconds: float, stream: bool
) -> load.Plan:
    body = CHAT | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})
    return load.Plan(
        port=port, key="", prefix=tag, targets=tokens, clients=clients,
        seconds=seconds + sides.WARM_S + 0.2, fields=body, path=path, first_byte=stream,
    )  # fmt: skip


class Direct(Called):
    """The stand-in provider itself."""

    name, says = "direct", "the provider, called directly"

    def __init__(self) -> None:
        self.port = ports.free()
        state = Path(settings.STATE_DIR)
        self.supervisor = Supervisor(
            logs=state / "logs", pids=state / "pids-upstream", say=lambda words: None
        )
        self.child = Child(
            "upstream", [sys.executable, "-m", "lava.bench.upstream", str(self.port)]
        )
        self.supervisor.start(self.child)

    def plan(self, tag: str, *, clients: int, seconds: float, stream: bool) -> load.Plan:
        return _plan(
            tag, port=self.port, path="/v1/chat/completions", tokens=["sk-x"], clients=clients,
            seconds=seconds, stream=stream,
        )  # fmt: skip

    def roots(self) -> dict[str, int]:
        # What the provider itself costs is nobody's here.
        return {}

    def stop(self) -> None:
        self.supervisor.stop()


class Ours(Called):
    """The product's gateway as `up` serves it."""

    name, says = "ours", "through the gateway: token, hold, forward, settle (2 workers)"

    def __init__(self, place: shop.Shop, *, database: int, tokens: list[str]) -> None:
        self.tokens = tokens
        self.web = sides.Web(
            place, database=database, name="gateway", says=self.says,
            application=None,
        )  # fmt: skip

    def plan(self, tag: str, *, clients: int, seconds: float, stream: bool) -> load.Plan:
        return _plan(
            tag, port=self.web.port, path="/v1/forward/bench/v1/chat/completions",
            tokens=self.tokens, clients=clients, seconds=seconds, stream=stream,
        )  # fmt: skip

    def roots(self) -> dict[str, int]:
        assert self.web.child.process is not None
        return {"server": self.web.child.process.pid, "database": self.web.database}

    def log(self) -> str:
        log = self.web.supervisor.logs / "gateway.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def stop(self) -> None:
        self.web.stop()


def prepare(place: shop.Shop, *, provider: int) -> list[str]:
    """The stand-in as a provider of the merchant's own, and a forward token a customer."""
    now = timezone.now()
    merchant = place.merchant
    meter = Meter.objects.of(merchant).get(slug=shop.CHAT)
    with transaction.atomic():
        keyring.add_provider(
            merchant, slug="bench", name="Bench", base_url=f"http://127.0.0.1:{provider}/v1",
            private=True, prices="openai", now=now,
        )  # fmt: skip
        keyring.set_key(merchant, provider="bench", key="sk-bench-01234567", actor="bench", now=now)
        return [
            spendkeys.make(
                merchant,
                name=f"bench {number}",
                now=now,
                connection=Connection.objects.get(pk=place.connection(number)),
                meter=meter,
            )[1]
            for number in range(min(TOKENS, place.count))
        ]


class LiteLLM(Called):
    """LiteLLM's proxy of an environment of its own: one server, asked at one of two paths."""

    def __init__(self, server: LiteLLMServer, name: str, says: str, path: str) -> None:
        self.server, self.name, self.says, self.path = server, name, says, path

    def plan(self, tag: str, *, clients: int, seconds: float, stream: bool) -> load.Plan:
        return _plan(
            tag, port=self.server.port, path=self.path, tokens=[LITELLM_KEY], clients=clients,
            seconds=seconds, stream=stream,
        )  # fmt: skip

    def roots(self) -> dict[str, int]:
        assert self.server.child.process is not None
        return {"server": self.server.child.process.pid}

    def log(self) -> str:
        return self.server.log()

    def stop(self) -> None:
        self.server.stop()


class LiteLLMServer:
    """The proxy, with two workers as ours."""

    def __init__(self, environment: str, *, provider: int) -> None:
        program = Path(environment) / "bin" / "litellm"
        if not program.exists():
            raise CommandError(f"There is no LiteLLM in {environment}: pip install litellm[proxy]")
        self.port = ports.free()
        state = Path(settings.STATE_DIR)
        config = state / "litellm.yaml"
        base = f"http://127.0.0.1:{provider}/v1"
        config.write_text(
            "model_list:\n  - model_name: gpt-4o-mini\n    litellm_params:\n"
            f'      {{model: openai/gpt-4o-mini, api_base: "{base}", api_key: sk-x}}\n'
            f"general_settings:\n  master_key: {LITELLM_KEY}\n  pass_through_endpoints:\n"
            f'    - {{path: /pass, target: "{base}/chat/completions", auth: false}}\n'
        )
        self.supervisor = Supervisor(
            logs=state / "logs", pids=state / "pids-litellm", say=lambda words: None
        )
        self.child = Child(
            "litellm",
            [str(program), "--config", str(config), "--host", "127.0.0.1", "--port",
             str(self.port), "--num_workers", "2", "--run_gunicorn"],
            {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION",
             "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )  # fmt: skip
        self.supervisor.start(self.child)
        deadline = time.monotonic() + LITELLM_READY_S
        while not _answers(f"http://127.0.0.1:{self.port}/health/liveliness"):
            if time.monotonic() > deadline or not self.supervisor.alive("litellm"):
                self.stop()
                raise CommandError(f"LiteLLM did not start:\n{self.log()}")
            time.sleep(0.5)

    def log(self) -> str:
        log = self.supervisor.logs / "litellm.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def stop(self) -> None:
        self.supervisor.stop()


def warm(port: int, path: str) -> None:
    """A few calls before the first that counts: each worker loads at its first."""
    for _ in range(8):
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=json.dumps(CHAT).encode(),
            headers={
                "Authorization": f"Bearer {LITELLM_KEY}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
            answer.read()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
