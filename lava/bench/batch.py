"""`bench batch`: batches of 1,000 beside raw COPY of the same rows (speed.md, goal 2).

The floor writes what a batch writes, requests, their keys and ledger lines, by COPY into tables
with the same columns, indexes, checks and foreign keys: nothing is looked up, priced or drawn, and
nothing is answered. The product is asked twice: for whole answers, and for brief ones (`Prefer:
return=minimal`). All sides have as many callers, and every batch is a transaction of its own.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

import psycopg
from django.db import connection

from lava.bench import books, requests, shop, sides
from lava.bench.options import Options, Say

LINES = 1000
CALLERS = 2
BRIEF = "return=minimal"
# Copies of the tables, filled by COPY alone.
TABLES = {
    "bench_usage": "meters_usagerequest",
    "bench_key": "meters_requestkey",
    "bench_ledger": "billing_ledgerentry",
}


class Copy:
    """The floor: COPY of rows like those that the product wrote."""

    says = "COPY of requests, their keys and ledger lines, nothing else"

    def __init__(self, place: shop.Shop, *, database: int) -> None:
        self.place = place
        self.database = database
        self.params = connection.get_connection_params()
        for name in ("cursor_factory", "context", "assume_role", "server_side_binding", "pool"):
            self.params.pop(name, None)
        self.models: dict[str, tuple[list[str], list[str]]] = {}
        with connection.cursor() as cursor:
            for copied, table in TABLES.items():
                cursor.execute(f"CREATE TABLE {copied} (LIKE {table} INCLUDING ALL)")
                cursor.execute(
                    "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
                    " WHERE conrelid = %s::regclass AND contype = 'f'",
                    [table],
                )
                for (words,) in cursor.fetchall():
                    cursor.execute(f"ALTER TABLE {copied} ADD {words}")
                cursor.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass"
                    " AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
                    [table],
                )
                names = [name for (name,) in cursor.fetchall()]
                listed = ", ".join(f'"{name}"' for name in names)
                last = f"SELECT {listed} FROM {table} ORDER BY 1 DESC LIMIT 1"  # noqa: S608
                with cursor.copy(f"COPY ({last}) TO STDOUT") as out:
                    text = b"".join(bytes(part) for part in out).decode()
                self.models[copied] = names, text.rstrip("\n").split("\t")
            cursor.execute(
                "SELECT DISTINCT ON (connection_id) connection_id::text, id::text"
                " FROM billing_creditgrant ORDER BY connection_id, id"
            )
            self.grants = dict(cursor.fetchall())
        self.number = 0

    def batch(self) -> list[tuple[str, bytes]]:
        """The COPY statements of one batch with their data."""
        first, self.number = self.number, self.number + LINES
        keys = [str(uuid4()) for _ in range(LINES)]
        found = []
        for table, (names, model) in self.models.items():
            ledger = table == "bench_ledger"
            lines = []
            for number, key in enumerate(keys, start=first):
                customer = str(self.place.connection(number % self.place.count))
                changed = {
                    "id": str(number + 1) if ledger else key,
                    "row": key,
                    "connection_id": customer,
                    "grant_id": self.grants[customer],
                    "request_id": key if ledger else f"copy-{number:09d}",
                    "seq": str(number + 1),
                }
                words = zip(names, model, strict=True)
                lines.append("\t".join(changed.get(name, value) for name, value in words))
            listed = ", ".join(f'"{name}"' for name in names)
            data = "\n".join([*lines, ""]).encode()
            found.append((f"COPY {table} ({listed}) FROM STDIN", data))
        return found

    def run(self, *, seconds: float) -> sides.Sample:
        """Copy for about `seconds` and a start; what is written was made before."""
        done, took = array("d"), array("d")
        ready = [self.batch() for _ in range(max(int(seconds * 40), 40))]
        stop = threading.Event()

        def call() -> None:
            with psycopg.connect(**self.params, autocommit=True) as link:
                while ready and not stop.is_set():
                    copies = ready.pop()
                    since = time.time()
                    with link.transaction(), link.cursor() as cursor:
                        for statement, data in copies:
                            with cursor.copy(statement) as copy:
                                copy.write(data)
                    done.append(time.time())
                    took.append(done[-1] - since)

        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        while not done:
            time.sleep(0.01)
        window = sides.Window(database=self.database, client=os.getpid())
        until = time.time() + seconds
        while time.time() < until and ready:
            time.sleep(0.02)
        window.close()
        stop.set()
        for caller in callers:
            caller.join()
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(TABLES)}")
        return window.sample(done, took, acknowledged=len(done))


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """All rounds; gives the facts for the table and the JSON, each figure by record."""
    place = shop.fill(options.connections)
    product = sides.product(place, database=database)
    product.says = f"POST /v1/requests/batch of {LINES:,}, granian (WSGI, 2 workers)"
    samples: dict[str, list[sides.Sample]] = {"copy": [], "product": [], "brief": []}
    checks = []
    try:
        # The rows that the floor copies, and the first plans of every statement.
        warm = product.post(product.plan("warm-", clients=CALLERS, requests=4, batch=LINES))
        acknowledged = warm.acknowledged * LINES
        floor = Copy(place, database=database)
        for number in range(options.rounds):
            # Another side begins each round.
            names = list(samples)
            for name in names[number % 3 :] + names[: number % 3]:
                if name == "copy":
                    sample = floor.run(seconds=options.seconds)
                else:
                    sample = product.run(
                        f"{name}-{number}-", seconds=options.seconds, clients=CALLERS, batch=LINES,
                        prefer=BRIEF if name == "brief" else "",
                    )  # fmt: skip
                    acknowledged += sample.acknowledged * LINES
                samples[name].append(by_record(sample))
                say(f"round {number + 1} {name:<8}{samples[name][-1].per_s:9.0f} records/s")
            found = books.read(audited=number == options.rounds - 1)
            checks.append(asdict(found) | {"hold": found.hold(acknowledged=acknowledged)})
    finally:
        product.stop()
    posted = [*samples["product"], *samples["brief"]]
    refused = sum(sample.refused for sample in posted)
    says = {
        "copy": floor.says,
        "product": product.says,
        "brief": f"the same, with `Prefer: {BRIEF}`",
    }
    of = {
        f"{side}_{name}": requests.ratio(samples[side], samples["copy"], figure)
        for side in ("product", "brief")
        for name, figure in (("rate", "per_s"), ("cpu", "product_us"))
    }
    return {
        "sides": {
            name: {"says": says[name]} | requests.summary(rows) for name, rows in samples.items()
        },
        "ratios": {f"{name}_of_copy": value for name, value in of.items()},
        "acknowledged": acknowledged,
        "refused": refused,
        "refusals": [words for sample in posted for words in sample.refusals][:5],
        "books": checks,
        "correct": refused == 0 and all(check["hold"] for check in checks),
    }


def by_record(sample: sides.Sample) -> sides.Sample:
    """The figures of batches as figures of records; times stay those of a batch."""
    return replace(
        sample,
        per_s=sample.per_s * LINES,
        server_us=sample.server_us / LINES,
        database_us=sample.database_us / LINES,
        client_us=sample.client_us / LINES,
    )
