"""`bench renewals`: subscriptions of price 0 renewed in sets (speed.md, goal 5).

The floor writes the rows of the last renewal once more and moves as many, in copies of the tables
with the same columns, indexes and checks: nothing is looked up, worked out or locked, and no
foreign key is asked. `one by one` is `billing.renewals.renew`, the way of every plan with a price.
Then charges are posted to the same customers, first alone, then while all of them are renewed.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import connection as connected
from django.utils import timezone

from billing import renewals
from billing.models import Cycle, Subscription
from lava.bench import books, requests, shop, sides
from lava.bench.options import Options, Say

# The sweep wakes a worker every 5 seconds while something is due, so that several share the sets.
WORKERS = 2
ONE_BY_ONE = 200
GOAL_PER_S, GOAL_P99 = 15_000, 2.0
# What a renewal adds, and what it moves: the head, the cycle, and the lots that roll over.
ADDED = {
    "billing_cycle": "created_at",
    "billing_creditgrant": "created_at",
    "billing_ledgerentry": "occurred_at",
    "billing_event": "created_at",
}
MOVED = {
    "billing_connection": "entry_count = entry_count + 4, balance = balance + 1, low_mark = NULL",
    "billing_subscription": "cycle_index = cycle_index + 1, cycle_start = cycle_end,"
    " cycle_end = cycle_end + interval '1 week'",
    "billing_creditgrant": "remaining = 0",
}
SAYS = {
    "floor": "the same rows written and moved, nothing else",
    "sets": f"in sets of {renewals.SET_SIZE:,}, {WORKERS} workers",
    "one": "one by one",
}
MEANWHILE = {"quiet": "alone", "busy": "while all are renewed"}


class Floor:
    """The least that the same rows cost."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        with connected.cursor() as cursor:
            for table in sorted({*ADDED, *MOVED}):
                cursor.execute(f"CREATE TABLE bench_{table} (LIKE {table} INCLUDING ALL)")
                cursor.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass"
                    " AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
                    [table],
                )
                self.names[table] = ", ".join(f'"{name}"' for (name,) in cursor.fetchall())

    def prepare(self, now: datetime) -> None:
        """Lay ready what the renewals of an instant wrote, and rows to move."""
        # The lots of before stand under keys of their own.
        digits = "'0123456789abcdef', '89abcdef01234567'"
        earlier = f"overlay(id::text PLACING translate(right(id::text, 1), {digits}) FROM 36)::uuid"
        with connected.cursor() as cursor:
            for table, names in self.names.items():
                cursor.execute(f"TRUNCATE bench_{table}")
                if table in ADDED:
                    cursor.execute(
                        f"CREATE UNLOGGED TABLE added_{table} AS"  # noqa: S608
                        f" SELECT {names} FROM {table} WHERE {ADDED[table]} = %s",
                        [now],
                    )
                if table in MOVED:
                    source = f"added_{table}" if table in ADDED else table
                    copied = names.replace('"id"', earlier) if table in ADDED else names
                    cursor.execute(
                        f"INSERT INTO bench_{table} ({names}) SELECT {copied} FROM {source}"  # noqa: S608
                    )
                cursor.execute(f"ANALYZE bench_{table}")

    def write(self) -> int:
        """Write and move it all; gives how many renewals that were."""
        count = 0
        with connected.cursor() as cursor:
            for table, change in MOVED.items():
                cursor.execute(f"UPDATE bench_{table} SET {change}")  # noqa: S608
            for table in ADDED:
                names = self.names[table]
                cursor.execute(
                    f"INSERT INTO bench_{table} ({names}) SELECT {names} FROM added_{table}"  # noqa: S608
                )
                count = cursor.rowcount if table == "billing_cycle" else count
        return count

    def clear(self) -> None:
        with connected.cursor() as cursor:
            for table in ADDED:
                cursor.execute(f"DROP TABLE added_{table}")


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """All rounds; gives the facts for the table and the JSON, each figure by renewal."""
    count = options.subscriptions
    # In each round all are renewed twice, once measured and once under charges; the last time for
    # the cycle that runs now.
    steps = 2 * options.rounds
    place = shop.crowd(count, since=timezone.now() - timedelta(weeks=steps, days=1))
    floor, product = Floor(), sides.product(place, database=database)
    samples: dict[str, list[sides.Sample]] = {name: [] for name in SAYS}
    charges: dict[str, list[sides.Sample]] = {name: [] for name in MEANWHILE}
    checks, taken, acknowledged = [], 0, 0
    try:
        for number in range(options.rounds):
            now = _due()
            alone = measured(partial(one_by_one, now, count), database=database)
            renewed = measured(partial(in_sets, now), database=database)
            taken += alone.acknowledged + renewed.acknowledged
            floor.prepare(now)
            least = measured(lambda: [(floor.write(), 0.0)], database=database)
            floor.clear()
            for name, sample in (("floor", least), ("sets", renewed), ("one", alone)):
                samples[name].append(sample)
                say(f"round {number + 1} {name:<6}{sample.per_s:9.0f}/s")
            for name in MEANWHILE:
                background = threading.Thread(target=in_sets, args=[_due()])
                if name == "busy":
                    background.start()
                posted = product.run(
                    f"{name}-{number}-", seconds=options.seconds, clients=options.clients
                )
                if name == "busy":
                    background.join()
                charges[name].append(posted)
                acknowledged += posted.acknowledged
                say(
                    f"round {number + 1} {name:<6}{posted.per_s:9.0f} req/s {posted.p99_ms:6.1f} ms"
                )
            found = books.read(audited=number == options.rounds - 1)
            checks.append(asdict(found) | {"hold": found.hold(acknowledged=acknowledged)})
    finally:
        product.stop()
    refused = sum(sample.refused for rows in charges.values() for sample in rows)
    once = _stand(steps) == count and Cycle.objects.count() == count * (steps + 1)
    return {
        "subscriptions": count,
        "sides": {
            name: {"says": SAYS[name]} | requests.summary(rows) for name, rows in samples.items()
        },
        "meanwhile": {
            name: {"says": MEANWHILE[name]} | requests.summary(rows)
            for name, rows in charges.items()
        },
        "ratios": {
            "sets_rate_of_floor": requests.ratio(samples["sets"], samples["floor"], "per_s"),
            "sets_cpu_of_floor": requests.ratio(samples["sets"], samples["floor"], "database_us"),
            "sets_rate_of_one": requests.ratio(samples["sets"], samples["one"], "per_s"),
            "busy_p99_of_quiet": requests.ratio(charges["busy"], charges["quiet"], "p99_ms"),
        },
        "renewed": taken,
        "once": once,
        "acknowledged": acknowledged,
        "refused": refused,
        "refusals": [words for rows in charges.values() for row in rows for words in row.refusals],
        "books": checks,
        "correct": once and refused == 0 and all(check["hold"] for check in checks),
    }


def measured(act: Callable[[], list[tuple[int, float]]], *, database: int) -> sides.Sample:
    """What an act spent; it gives, for each of its transactions, renewals and seconds."""
    window = sides.Window(database=database, client=os.getpid())
    done = act()
    window.close()
    count = sum(renewed for renewed, _ in done)
    spent = {name: (window.after[name] - window.before[name]) / count for name in window.roots}
    took = array("d", sorted(seconds * 1000 for _, seconds in done))
    return sides.Sample(
        per_s=count / (window.until - window.since),
        server_us=spent["client"],
        database_us=spent["database"],
        client_us=0.0,
        p50_ms=took[len(took) // 2],
        p99_ms=took[-1],
        acknowledged=count,
    )


def in_sets(now: datetime) -> list[tuple[int, float]]:
    """Renew all that is due, set by set, with as many workers as share them."""
    done: list[tuple[int, float]] = []

    def work() -> None:
        while True:
            since = time.monotonic()
            if not (count := renewals.renew_set(now)):
                break
            done.append((count, time.monotonic() - since))
        connected.close()

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return done


def one_by_one(now: datetime, count: int) -> list[tuple[int, float]]:
    """Renew a few as a plan with a price renews."""
    done = []
    rows = Subscription.objects.order_by("pk").values_list("pk", flat=True)
    for key in rows[: min(ONE_BY_ONE, count // 2)]:
        since = time.monotonic()
        renewals.renew(key, now=now)
        done.append((1, time.monotonic() - since))
    return done


def _due() -> datetime:
    """The instant at which the cycle of the last one ends."""
    last = Subscription.objects.order_by("-cycle_end").values_list("cycle_end", flat=True).first()
    assert isinstance(last, datetime)
    return last


def _stand(index: int) -> int:
    """How many are in a cycle."""
    return int(Subscription.objects.filter(cycle_index=index).count())


def table(facts: dict[str, Any]) -> list[str]:
    """The figures as Markdown; processor time by renewal, times by transaction."""
    lines = [
        "| renewals | a second | worker, us | database, us | a commit, ms | longest, ms | noise |",
        "|---|---|---|---|---|---|---|",
    ]
    for side in facts["sides"].values():
        of = side["median"]
        times = f"{of['p50_ms']:.0f} | {of['p99_ms']:.0f}" if of["p99_ms"] else " | "
        lines.append(
            f"| {side['says']} | {of['per_s']:,.0f} | {of['server_us']:,.0f} "
            f"| {of['database_us']:,.0f} | {times} | {side['noise']['per_s']:.0%} |"
        )
    lines += ["", "| charges meanwhile | req/s | p50, ms | p99, ms |", "|---|---|---|---|"]
    for side in facts["meanwhile"].values():
        of = side["median"]
        lines.append(
            f"| {side['says']} | {of['per_s']:,.0f} | {of['p50_ms']:.1f} | {of['p99_ms']:.1f} |"
        )
    ratio, last = facts["ratios"], facts["books"][-1]
    wrong = "" if facts["correct"] else f"WRONG {', '.join(last['broken'])}: "
    return [
        *lines,
        "",
        f"- {ratio['sets_rate_of_floor']:.0%} of the floor's rate at "
        f"{ratio['sets_cpu_of_floor']:.2f} x its database CPU; {ratio['sets_rate_of_one']:.0f} x "
        f"one by one (goal: {GOAL_PER_S:,}/s)",
        f"- p99 of charges {ratio['busy_p99_of_quiet']:.2f} x meanwhile (goal: {GOAL_P99:.0f} x)",
        f"- books: {wrong}{facts['subscriptions']:,} subscriptions, each renewed once a cycle: "
        f"{'yes' if facts['once'] else 'NO'}; {last['rows']:,} charges of "
        f"{facts['acknowledged']:,} acknowledged; the whole audit after the last round",
    ]
