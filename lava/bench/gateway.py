"""`bench gateway`: a call through the gateway beside the same call without it (speed.md, goal 6).

Sides: `direct` (the load client at the stand-in provider), `floor` (pgbench: the hold and the
settlement of a call and nothing else), `ours` (as `up` serves it: forward token, hold, forward,
settle, each on PostgreSQL), and with `--litellm` the pass-through and the chat endpoint of
LiteLLM's proxy, as it comes, without a database. Each round measures every side three ways: as many
clients as asked with whole answers; one client with whole answers, for the time that is added; one
client with streams, for the time to the first byte (which the floor knows nothing of).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from django.db import connection

from lava.bench import books, call_floor, called, requests, shop, sides
from lava.bench.options import Options, Say

FIGURES = ("per_s", "server_us", "database_us", "client_us", "product_us", "p50_ms", "p99_ms")


@contextmanager
def _present(place: shop.Shop, *, database: int, litellm: str) -> Iterator[list[called.Side]]:
    """The sides, started; stopped at the end, the provider last."""
    direct = called.Direct()
    present: list[called.Side] = [direct]
    try:
        tokens = called.prepare(place, provider=direct.port)
        present.append(call_floor.Floor(place, database=database, tokens=tokens))
        present.append(called.Ours(place, database=database, tokens=tokens))
        if litellm:
            server = called.LiteLLMServer(litellm, provider=direct.port)
            for path in ("/pass", "/v1/chat/completions"):
                called.warm(server.port, path)
            present.append(
                called.LiteLLM(server, "pass", "LiteLLM, pass-through (2 workers)", "/pass")
            )
            present.append(
                called.LiteLLM(server, "chat", "LiteLLM, chat (2 workers)", "/v1/chat/completions")
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
                        stream=called.WAYS[way],
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
