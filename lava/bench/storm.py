"""`bench storm`: new requests and repeats of them from many clients at once (speed.md, goal 10).

Half of what is sent repeats an id and body that went out a moment ago, often while the first is
still under way; a handful of connections take all of it. No answer may be an error, no id charged
twice, no transaction a deadlock.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db import connection

from lava.bench import books, shop, sides
from lava.bench.options import Options, Say

CONNECTIONS = 8
REPEATS = 0.5


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """As many storms as rounds."""
    place = shop.fill(CONNECTIONS)
    product = sides.product(place, database=database)
    checks = []
    refusals: list[str] = []
    sent = acknowledged = refused = 0
    before = _deadlocks()
    try:
        for number in range(options.rounds):
            outcome = product.post(
                product.plan(
                    f"storm-{number}-",
                    clients=options.clients,
                    requests=options.requests,
                    repeats=REPEATS,
                )
            )
            sent += sum(outcome.statuses.values())
            acknowledged += outcome.acknowledged
            refused += outcome.refused
            refusals += outcome.refusals
            say(f"round {number + 1} {outcome.statuses}")
            found = books.read(audited=number == options.rounds - 1)
            checks.append(asdict(found) | {"hold": found.hold(acknowledged=acknowledged)})
    finally:
        product.stop()
    deadlocks = _deadlocks() - before
    return {
        "clients": options.clients,
        "sent": sent,
        "acknowledged": acknowledged,
        "refused": refused,
        "refusals": refusals[:5],
        "deadlocks": deadlocks,
        "books": checks,
        "correct": refused == 0 and deadlocks == 0 and all(check["hold"] for check in checks),
    }


def _deadlocks() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT sum(deadlocks) FROM pg_stat_database")
        return int(cursor.fetchone()[0])
