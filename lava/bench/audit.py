"""`bench audit`: every rule of `manage.py audit` on many charges, and charges meanwhile.

The charges are posted in batches, as a backend posts them; each rule is then asked alone, and the
whole audit while more charges are posted. It may take a minute on a million of them, and must not
hold anybody up.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from django.db import connection as connected

from lava.bench import batch, books, requests, shop, sides
from lava.bench.options import Options, Say
from lava.management.commands import audit

MOST_S = 60.0
# Batches that a load client posts before it says what it saw.
AT_ONCE = 100


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """Post, ask, and post while it asks."""
    place = shop.crowd(options.connections)
    product = sides.product(place, database=database)
    try:
        acknowledged = fill(product, options.requests)
        with connected.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")
            cursor.execute("SELECT count(*) FROM billing_ledgerentry")
            lines = cursor.fetchone()[0]
        rules = dict(sorted(spent(say).items(), key=lambda rule: -rule[1]))
        charges: dict[str, list[sides.Sample]] = {"quiet": [], "busy": []}
        stop = threading.Event()
        whole: list[float] = []

        def ask() -> None:
            while not stop.is_set():
                since = time.monotonic()
                audit.broken(limit=5)
                whole.append(time.monotonic() - since)
            connected.close()

        for number in range(options.rounds):
            for name, rows in charges.items():
                auditor = threading.Thread(target=ask)
                stop.clear()
                if name == "busy":
                    auditor.start()
                rows.append(
                    product.run(
                        f"{name}-{number}-", seconds=options.seconds, clients=options.clients
                    )
                )
                stop.set()
                if name == "busy":
                    auditor.join()
                say(f"round {number + 1} {name:<6}{rows[-1].p99_ms:8.1f} ms p99")
                acknowledged += rows[-1].acknowledged
        found = books.read(audited=True)
    finally:
        product.stop()
    return {
        "lines": lines,
        "rules": rules,
        "seconds": sum(rules.values()),
        "under_load_s": max(whole),
        "meanwhile": {name: requests.summary(rows) for name, rows in charges.items()},
        "ratios": {
            "busy_p99_of_quiet": requests.ratio(charges["busy"], charges["quiet"], "p99_ms")
        },
        "books": [{"rows": found.rows, "broken": found.broken}],
        "correct": found.hold(acknowledged=acknowledged),
    }


def fill(product: sides.Web, charges: int) -> int:
    """Post so many charges, in batches; gives how many were acknowledged."""
    left, acknowledged = max(charges // batch.LINES, 1), 0
    while left:
        many = min(left, AT_ONCE)
        left -= many
        plan = product.plan(
            f"fill-{left}-", clients=batch.CALLERS, requests=many, batch=batch.LINES
        )
        acknowledged += product.post(plan).acknowledged * batch.LINES
    return acknowledged


def spent(say: Say) -> dict[str, float]:
    """Seconds by rule."""
    found = {}
    with audit.snapshot():
        for rule in audit.RULES:
            since = time.monotonic()
            rule.rows(5)
            found[rule.name] = time.monotonic() - since
            say(f"{found[rule.name]:8.2f} s {rule.name}")
    return found


def table(facts: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    lines = ["| rule | s |", "|---|---|"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in list(facts["rules"].items())[:10]]
    last = facts["books"][-1]
    quiet, busy = (facts["meanwhile"][name]["median"] for name in ("quiet", "busy"))
    return [
        *lines,
        "",
        f"- {facts['lines']:,} ledger lines: {facts['seconds']:.1f} s for all "
        f"{len(facts['rules'])} rules (goal: {MOST_S:.0f} s), {facts['under_load_s']:.1f} s under "
        "load",
        f"- charges meanwhile: {busy['per_s']:,.0f} of {quiet['per_s']:,.0f} req/s, p99 "
        f"{busy['p99_ms']:.1f} ms of {quiet['p99_ms']:.1f} ms",
        f"- books: {last['rows']:,} charges, broken rules: {', '.join(last['broken']) or 'none'}",
    ]
