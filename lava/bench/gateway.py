"""`bench gateway`: a call through the gateway beside the same call without it (speed.md, goal 6).

Sides: `direct` (the load client at the stand-in provider), `floor` (pgbench: the hold and the
settlement of a call and nothing else), `ours` (as `up` serves it: forward token, hold, forward,
settle, each on PostgreSQL), and with `--litellm` the pass-through and the chat endpoint of
LiteLLM's proxy, as it comes, without a database. Each round measures every side three ways: as many
clients as asked with whole answers; one client with whole answers, for the time that is added; one
client with streams, for the time to the first byte (which the floor knows nothing of).
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.utils import timezone

from billing import ids, prepared
from billing.models import Connection
from lava.bench import books, load, ports, requests, shop, sides
from lava.bench.options import Options, Say
from lava.supervisor import Child, Supervisor
from meters import costs
from meters.gateway import keyring, spendkeys
from meters.gateway import tokens as spoken
from meters.gateway.callers import Caller
from meters.gateway.store import (
    HOLD,
    SETTLE,
    Admission,
    Settlement,
    Store,
    hold_params,
    settle_params,
)
from meters.models import ForwardToken, Meter

MODEL = "gpt-4o-mini"
CHAT = {"model": MODEL, "max_tokens": 64,
        "messages": [{"role": "user", "content": "What does the quick brown fox do?"}]}  # fmt: skip
TOKENS = 64
# What is measured of each side: how many clients, whether it streams.
WAYS = {"load": False, "one": False, "stream": True}
FIGURES = ("per_s", "server_us", "database_us", "client_us", "product_us", "p50_ms", "p99_ms")
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


class Called:
    """A side that the load client calls."""

    ways: Sequence[str] = tuple(WAYS)

    def sample(self, tag: str, *, clients: int, seconds: float, stream: bool) -> sides.Sample:
        """Call it for `seconds` and a start."""
        plan = self.plan(tag, clients=clients, seconds=seconds, stream=stream)
        return sides.measured(plan, seconds=seconds, log=self.log, **self.roots())

    def plan(self, tag: str, *, clients: int, seconds: float, stream: bool) -> load.Plan:
        """What to call."""
        raise NotImplementedError

    def roots(self) -> dict[str, int]:
        """Whose processor time is its own."""
        raise NotImplementedError

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


def _prepare(place: shop.Shop, *, provider: int) -> list[str]:
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


class Floor:
    """pgbench: both trips of a call, with the parameters that the product gives them."""

    name, says = "floor", "pgbench, the hold and the settlement of a call as prepared statements"
    ways: Sequence[str] = ("load", "one")

    def __init__(self, place: shop.Shop, *, database: int, tokens: list[str]) -> None:
        self.place = place
        self.caller = asyncio.run(_caller(tokens[0]))
        self.pgbench = sides.Floor(says=self.says, script=self.script, database=database)

    def sample(self, tag: str, *, clients: int, seconds: float, stream: bool) -> sides.Sample:
        return self.pgbench.run(tag, seconds=seconds, clients=clients)

    def script(self, tag: str) -> str:
        """What each pgbench client does again and again: a call is one of its transactions, and two
        of the database's."""
        now = timezone.now()
        call = ids.new(sandbox=False)
        rows = ForwardToken.objects.filter(merchant=self.place.merchant).order_by("pk")
        each = [(str(row.pk), str(row.connection_id), str(row.meter_id)) for row in rows]
        token, connection, meter = (
            f"('{{{','.join(column)}}}'::uuid[])[:n + 1]" for column in zip(*each, strict=True)
        )
        # Ids of their own, as ordered as the product's.
        number = f"'{call.hex[:20]}' || lpad(to_hex(:client_id::int), 3, '0')"
        number = f"({number} || lpad(to_hex(:i::int), 9, '0'))::uuid"
        hold = hold_params(
            call,
            self.caller,
            Admission(
                provider="bench", own_key=False, method="POST", endpoint="/v1/chat/completions",
                model=MODEL, stream=False, disabled=False, billed=True, input_tokens=18,
                output_tokens=64, characters=0, seconds=Decimal(0), cost=None, floor_cost=None,
                limited=True, metadata={},
            ),
            now,
        )  # fmt: skip
        settle = settle_params(
            call,
            Settlement(
                status="completed", billed=True, http_status=200, model=MODEL,
                usage={"input": 12, "output": 64}, input_tokens=12, output_tokens=64,
                cost=costs.Cost(Decimal("0.0000402"), "library", MODEL, {"input": "0.15"}),
                received=600, overhead_ms=1, first_byte_ms=2, total_ms=3,
            ),
            now,
        )  # fmt: skip
        lines = [
            f"\\set n random(0, {len(each) - 1})",
            "\\set i :i + 1",
            _with(HOLD.sql, hold, {1: number, 3: token, 4: connection, 5: meter, 6: "now()"}),
            _with(SETTLE.sql, settle, {1: number, 2: "now()", 3: f"'req_' || {number}"}),
        ]
        return "\n".join(lines) + "\n"

    def stop(self) -> None:
        """Nothing runs between its rounds."""


async def _caller(token: str) -> Caller:
    """Who calls with a token."""
    asked = Store()
    try:
        told, _ = spoken.find({b"authorization": f"Bearer {token}".encode()}, "")
        return await asked.caller(told)
    finally:
        await asked.close()


def _with(sql: str, values: Sequence[Any], instead: Mapping[int, str]) -> str:
    """A statement with its parameters in it as constants; some as other expressions."""

    def said(match: re.Match[str]) -> str:
        place = int(match[1])
        if place in instead:
            return instead[place]
        (words,) = prepared.params(values[place - 1])
        return "NULL" if words is None else "'" + words.decode().replace("'", "''") + "'"

    return re.sub(r"\$(\d+)", said, sql) + ";"


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


def _warm(port: int, path: str) -> None:
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


@contextmanager
def _present(place: shop.Shop, *, database: int, litellm: str) -> Iterator[list[Side]]:
    """The sides, started; stopped at the end, the provider last."""
    direct = Direct()
    present: list[Side] = [direct]
    try:
        tokens = _prepare(place, provider=direct.port)
        present.append(Floor(place, database=database, tokens=tokens))
        present.append(Ours(place, database=database, tokens=tokens))
        if litellm:
            server = LiteLLMServer(litellm, provider=direct.port)
            for path in ("/pass", "/v1/chat/completions"):
                _warm(server.port, path)
            present.append(LiteLLM(server, "pass", "LiteLLM, pass-through (2 workers)", "/pass"))
            present.append(
                LiteLLM(server, "chat", "LiteLLM, chat (2 workers)", "/v1/chat/completions")
            )
        yield present
    finally:
        for side in reversed(present):
            side.stop()


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """All rounds; gives the facts for the table and the JSON."""
    place = shop.fill(options.connections)
    checks = []
    acknowledged = 0
    with _present(place, database=database, litellm=options.litellm) as present:
        samples: dict[str, dict[str, list[sides.Sample]]] = {
            side.name: {way: [] for way in side.ways} for side in present
        }
        for number in range(options.rounds):
            turn = number % len(present)
            for side in [*present[turn:], *present[:turn]]:
                for way in side.ways:
                    sample = side.sample(
                        f"{side.name}-{way}-{number}",
                        clients=options.clients if way == "load" else 1,
                        seconds=options.seconds,
                        stream=WAYS[way],
                    )
                    samples[side.name][way].append(sample)
                    if side.name in ("floor", "ours"):
                        acknowledged += sample.acknowledged
                    say(
                        f"round {number + 1} {side.name:<7}{way:<7}{sample.per_s:8.0f} req/s"
                        f"{sample.p50_ms:8.2f} ms{sample.product_us:8.0f} us"
                    )
            found = books.read(audited=number == options.rounds - 1)
            left = held()
            checks.append(
                asdict(found) | left | {
                    "hold": found.hold(acknowledged=acknowledged) and not any(left.values())
                }
            )  # fmt: skip
    every = [row for ways in samples.values() for rows in ways.values() for row in rows]
    refused = sum(row.refused for row in every)
    return {
        "clients": options.clients,
        "sides": {
            side.name: {"says": side.says}
            | {way: _summary(rows) for way, rows in samples[side.name].items()}
            for side in present
        },
        "ratios": ratios(samples),
        "acknowledged": acknowledged,
        "refused": refused,
        "refusals": [words for row in every for words in row.refusals][:5],
        "books": checks,
        "correct": refused == 0 and all(check["hold"] for check in checks),
    }


def held() -> dict[str, int]:
    """What must be nothing when nothing is under way: open holds, running calls, unpriced ones."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM billing_hold WHERE state = 'open'),"
            " (SELECT count(*) FROM meters_gatewaycall WHERE status <> 'completed'),"
            " (SELECT count(*) FROM meters_gatewaycall WHERE cardinality(flags) > 0)"
        )
        holds, running, flagged = cursor.fetchone()
    return {"open_holds": holds, "not_completed": running, "flagged": flagged}


def _summary(rows: list[sides.Sample]) -> dict[str, Any]:
    return {
        "median": {
            name: round(statistics.median(getattr(row, name) for row in rows), 3)
            for name in FIGURES
        },
        "rounds": [{name: round(getattr(row, name), 3) for name in FIGURES} for row in rows],
    }


def added(one: list[sides.Sample], direct: list[sides.Sample], figure: str) -> float:
    """What a side adds to the direct call, in milliseconds: the median over the rounds."""
    pairs = zip(one, direct, strict=True)
    middle: float = statistics.median(getattr(a, figure) - getattr(b, figure) for a, b in pairs)
    return round(middle, 3)


def ratios(samples: dict[str, dict[str, list[sides.Sample]]]) -> dict[str, float]:
    """What the goal of speed.md is about."""
    direct, floor, ours = samples["direct"], samples["floor"], samples["ours"]
    found = {
        "ours_rate_of_floor": requests.ratio(ours["load"], floor["load"], "per_s"),
        "ours_cpu_of_floor": requests.ratio(ours["load"], floor["load"], "product_us"),
        "ours_rate_of_direct": requests.ratio(ours["load"], direct["load"], "per_s"),
        "ours_added_p50_ms": added(ours["one"], direct["one"], "p50_ms"),
        "ours_added_p99_ms": added(ours["one"], direct["one"], "p99_ms"),
        "ours_added_first_byte_ms": added(ours["stream"], direct["stream"], "p50_ms"),
    }
    for name in ("pass", "chat"):
        other = samples.get(name)
        if other is None:
            continue
        found |= {
            f"floor_rate_of_{name}": requests.ratio(floor["load"], other["load"], "per_s"),
            f"{name}_added_p50_ms": added(other["one"], direct["one"], "p50_ms"),
            f"{name}_added_p99_ms": added(other["one"], direct["one"], "p99_ms"),
            f"ours_rate_of_{name}": requests.ratio(ours["load"], other["load"], "per_s"),
            f"ours_cpu_of_{name}": requests.ratio(ours["load"], other["load"], "product_us"),
        }
        if found[f"{name}_added_p50_ms"] > 0:
            share = found["ours_added_p50_ms"] / found[f"{name}_added_p50_ms"]
            found[f"ours_added_of_{name}"] = round(share, 3)
    return found
