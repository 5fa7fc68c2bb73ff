"""`bench hot`: many clients on one connection, beside one client on it (speed.md, goal 3).

Every charge of a connection waits for the one before it; how much of the wait for the disk they
share is what this measures.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lava.bench import books, requests, shop, sides
from lava.bench.options import Options, Say


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """One client and many take turns on one connection."""
    place = shop.fill(1)
    product = sides.product(place, database=database)
    samples: dict[str, list[sides.Sample]] = {"one": [], "many": []}
    checks = []
    acknowledged = 0
    try:
        for number in range(options.rounds):
            for name, clients in (("one", 1), ("many", options.clients)):
                sample = product.run(f"{name}-{number}-", seconds=options.seconds, clients=clients)
                samples[name].append(sample)
                acknowledged += sample.acknowledged
                say(f"round {number + 1} {clients:>3} clients {sample.per_s:8.0f} req/s")
            found = books.read(audited=number == options.rounds - 1)
            checks.append(asdict(found) | {"hold": found.hold(acknowledged=acknowledged)})
    finally:
        product.stop()
    refused = sum(sample.refused for rows in samples.values() for sample in rows)
    return {
        "clients": options.clients,
        "sides": {name: requests.summary(rows) for name, rows in samples.items()},
        "ratios": {"many_of_one": requests.ratio(samples["many"], samples["one"], "per_s")},
        "acknowledged": acknowledged,
        "refused": refused,
        "refusals": [],
        "books": checks,
        "correct": refused == 0 and all(check["hold"] for check in checks),
    }
