"""`bench requests`: the charge beside its floor and beside the naive design (speed.md, goal 1)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from lava.bench import books, shop, sides
from lava.bench.options import Options, Say

# The naive side is slow and steady: a shorter window says as much.
NAIVE_SHARE = 0.5
FIGURES = (
    "per_s", "server_us", "database_us", "client_us", "product_us", "all_us", "p50_ms", "p99_ms",
)  # fmt: skip


class Side(Protocol):
    """What is run in every round."""

    name: str
    says: str

    def run(self, tag: str, *, seconds: float, clients: int) -> sides.Sample: ...

    def stop(self) -> None: ...


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """All rounds; gives the facts for the table and the JSON."""
    place = shop.fill(options.connections)
    present: list[Side] = []
    try:
        present.append(
            sides.Floor(
                says="pgbench, the charge as one prepared statement",
                script=sides.charge(place),
                database=database,
            )
        )
        present.append(sides.product(place, database=database))
        present.append(sides.naive(place, database=database))
        samples: dict[str, list[sides.Sample]] = {side.name: [] for side in present}
        checks = []
        acknowledged = 0
        for number in range(options.rounds):
            # Another side begins each round, so that none always follows the same one.
            for side in _turned(present, number):
                share = NAIVE_SHARE if side.name == "naive" else 1.0
                tag = f"{side.name}-{number}-"
                window = max(options.seconds * share, 1.0)
                sample = side.run(tag, seconds=window, clients=options.clients)
                samples[side.name].append(sample)
                acknowledged += sample.acknowledged
                say(
                    f"round {number + 1} {side.name:<8}{sample.per_s:8.0f} req/s"
                    f"{sample.product_us:8.0f} us"
                )
            found = books.read(audited=number == options.rounds - 1)
            checks.append(asdict(found) | {"hold": found.hold(acknowledged=acknowledged)})
    finally:
        for side in present:
            side.stop()
    facts = {side.name: {"says": side.says} | summary(samples[side.name]) for side in present}
    refused = sum(sample.refused for rows in samples.values() for sample in rows)
    return {
        "sides": facts,
        "ratios": ratios(samples),
        "acknowledged": acknowledged,
        "refused": refused,
        "refusals": [
            words for rows in samples.values() for sample in rows for words in sample.refusals
        ][:5],
        "books": checks,
        "correct": refused == 0 and all(check["hold"] for check in checks),
    }


def _turned(present: Sequence[Side], by: int) -> list[Side]:
    by %= len(present)
    return [*present[by:], *present[:by]]


def summary(rows: Sequence[sides.Sample]) -> dict[str, Any]:
    """Medians over the rounds, and the noise: (most - least) / median of req/s and of the CPU."""
    medians = {name: statistics.median(getattr(row, name) for row in rows) for name in FIGURES}
    return {
        "median": {name: round(value, 3) for name, value in medians.items()},
        "noise": {
            name: round(_spread([getattr(row, name) for row in rows]), 3)
            for name in ("per_s", "product_us")
        },
        "rounds": [
            {name: round(getattr(row, name), 3) for name in FIGURES}
            | {"acknowledged": row.acknowledged}
            for row in rows
        ],
    }


def _spread(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def ratio(one: Sequence[sides.Sample], other: Sequence[sides.Sample], figure: str) -> float:
    """The median of the ratios within each round, so that a slow minute counts on both sides."""
    middle: float = statistics.median(
        getattr(a, figure) / getattr(b, figure) for a, b in zip(one, other, strict=True)
    )
    return round(middle, 3)


def ratios(samples: dict[str, list[sides.Sample]]) -> dict[str, float]:
    """What the goals of speed.md are about."""
    floor, product, naive = (samples[name] for name in ("floor", "product", "naive"))
    return {
        "product_rate_of_floor": ratio(product, floor, "per_s"),
        "product_cpu_of_floor": ratio(product, floor, "product_us"),
        "product_cpu_of_floor_with_clients": ratio(product, floor, "all_us"),
        "product_rate_of_naive": ratio(product, naive, "per_s"),
        "naive_cpu_of_product": ratio(naive, product, "product_us"),
    }
