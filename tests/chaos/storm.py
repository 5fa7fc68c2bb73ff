"""The long form of chaos: clients that never stop, months that pass, and a killer beside them.

`manage.py chaos --minutes N` plays it and prints what came of it; tests/chaos plays half a minute.
Clients post until they are acknowledged, as backends do, and sometimes say a request again. A
request said again has the same answer (or was `changed`). At the end nothing acknowledged may be
missing (`lost`) or there twice (`double`), no balance may be off by a digit (`drift`), and the card
network's list equals ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx
import psutil

from tests.chaos.shop import CHARGED, Shop, acknowledged, asked, quarrels, rest
from tests.product import Product

CLIENTS, CUSTOMERS = 4, 6
MONTH_S = 32 * 86400
# Weights: how often each is killed.
TARGETS = {
    "web worker": 5,
    "database backend": 4,
    "database": 3,
    "worker": 5,
    "broker": 2,
}


@dataclass
class Report:
    """What came of it. `recovery_s`: from a kill of the database to the next acknowledgement."""

    seed: int
    seconds: float = 0
    acknowledged: int = 0
    again: int = 0
    changed: int = 0
    lost: int = 0
    double: int = 0
    drift: str = ""
    months: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.changed or self.lost or self.double or self.drift)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.seconds:.0f} s, seed {self.seed}, {self.months} months passed"
        yield f"acknowledged  {self.acknowledged:,} (and {self.again:,} said again)"
        yield f"answered anew {self.changed}"
        yield f"lost          {self.lost}"
        yield f"double        {self.double}"
        yield f"drift         {self.drift or 0}"
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        yield f"kills         {self.kills.total()} ({kills})"
        if self.recovery_s:
            yield (
                f"recovery      median {statistics.median(self.recovery_s):.1f} s, longest "
                f"{max(self.recovery_s):.1f} s after a kill of the database"
            )


class Storm:
    """One storm over a running, empty product."""

    def __init__(self, product: Product, *, seed: int) -> None:
        self.product = product
        self.random = random.Random(seed)
        self.report = Report(seed=seed)
        # A threshold that a few hundred requests reach, so that cards are charged all along.
        self.shop = Shop(product, threshold="5")
        self.customers = [self.shop.subscribe(f"+1415555{n:04d}") for n in range(CUSTOMERS)]
        self.fees: dict[str, Decimal] = {}
        self.numbers = itertools.count()
        self.over = threading.Event()
        self.last_acknowledged = time.monotonic()
        self.failures: list[BaseException] = []

    def play(self, seconds: float) -> Report:
        """Let it storm, wait until all is quiet, and count."""
        start = time.monotonic()
        jobs: list[Callable[[], None]] = [*[self.client] * CLIENTS, self.killer, self.months]
        threads = [threading.Thread(target=self._guarded, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        self.over.wait(seconds)
        self.over.set()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        self.report.seconds = time.monotonic() - start
        self._await_answers()
        rest(self.product)
        self.count()
        return self.report

    def client(self) -> None:
        """A backend: usage of a random customer, acknowledged, and sometimes said again."""
        mine = random.Random(next(self.numbers))
        while not self.over.is_set():
            name = f"storm-{next(self.numbers)}"
            body = {
                "request_id": name,
                "connection_id": mine.choice(self.customers),
                "meter_slug": "chat",
                "input_tokens": mine.randrange(1, 60_000),
            }
            told = acknowledged(self.product, self.shop.backend.key, "requests", body)
            self.fees[name] = Decimal(told["fee"]["amount"])
            self.last_acknowledged = time.monotonic()
            if mine.random() < 0.1:
                again = acknowledged(self.product, self.shop.backend.key, "requests", body)
                self.report.again += 1
                self.report.changed += again != told

    def months(self) -> None:
        """A month passes now and then; workers find what is due."""
        while not self.over.wait(20):
            body = {"seconds": MONTH_S, "run": False}
            acknowledged(self.product, self.shop.backend.key, "test_helpers/clock/advance", body)
            self.report.months += 1

    def killer(self) -> None:
        """Kill something, again and again; after the database, wait until it answers."""
        names, weights = list(TARGETS), list(TARGETS.values())
        while not self.over.wait(self.random.uniform(0.5, 1.5)):
            target = self.random.choices(names, weights)[0]
            if not self._kill(target):
                continue
            self.report.kills[target] += 1
            if target == "database":
                killed = time.monotonic()
                while self.last_acknowledged < killed and time.monotonic() < killed + 60:
                    time.sleep(0.02)
                self.report.recovery_s.append(self.last_acknowledged - killed)

    def _kill(self, target: str) -> bool:
        try:
            pid = self._pid(target)
            if pid is None:
                return False
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, psutil.Error, OSError, LookupError, ValueError):
            # It is dead already, or on its way up.
            return False
        return True

    def _pid(self, target: str) -> int | None:
        postmaster = self.product.state / "postgres/data/postmaster.pid"
        if target == "web worker":
            children = psutil.Process(self.product.child("web")).children(recursive=True)
            return self.random.choice(children).pid if children else None
        if target == "database":
            return int(postmaster.read_text().split()[0])
        if target == "database backend":
            main = psutil.Process(int(postmaster.read_text().split()[0]))
            busy = [child.pid for child in main.children() if "lava_app" in _title(child)]
            return self.random.choice(busy) if busy else None
        return self.product.child(target)

    def _await_answers(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.product.url}/readyz", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise AssertionError(self.product.output())

    def count(self) -> None:
        """Compare what was acknowledged with what is there, into the report."""
        rows = asked(self.product, CHARGED)
        stored = {name: Decimal(fee) for name, fee in rows}
        self.report.acknowledged = len(self.fees)
        self.report.lost = sum(stored.get(name) != fee for name, fee in self.fees.items())
        # More than one row of an id, or a row of an id that nobody was told of.
        self.report.double = len(rows) - len(set(stored) & set(self.fees))
        self.report.drift = quarrels(self.product)

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self.failures.append(error)
            self.over.set()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def empty_product() -> Iterator[Product]:
    """A product with nothing in it, which is gone afterwards."""
    product = Product("--no-demo")
    try:
        yield product
    finally:
        product.remove()


def main() -> int:
    parser = argparse.ArgumentParser(prog="manage.py chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the report there too")
    parser.add_argument(
        "--fault",
        choices=sorted(FAULTS),
        help="a control that must go red: done to the books by hand when the storm is over",
    )
    parser.add_argument(
        "--forgetful",
        action="store_true",
        help="a control that must go red: the database answers before it has written",
    )
    words = parser.parse_args()
    with empty_product() as product:
        if words.forgetful:
            forget(product)
        storm = Storm(product, seed=words.seed)
        report = storm.play(words.minutes * 60)
        if words.fault:
            spoil(product, words.fault)
            storm.count()
    sys.stdout.write("\n".join(report.lines()) + "\n")
    if words.json:
        words.json.write_text(json.dumps(vars(report), indent=2))
    return 0 if report.is_clean else 1


# What each detector must see, in the owner's SQL: a request that is not what was acknowledged, one
# that is there twice, a balance that is off in the last place.
FAULTS = {
    "lost": "UPDATE meters_usagerequest SET fee = fee + 1 WHERE id ="
    " (SELECT id FROM meters_usagerequest ORDER BY id DESC LIMIT 1)",
    "double": "ALTER TABLE meters_requestkey DROP CONSTRAINT meters_requestkey_pkey;"
    "INSERT INTO meters_usagerequest SELECT (jsonb_populate_record(NULL::meters_usagerequest,"
    " to_jsonb(r) || jsonb_build_object('id', gen_random_uuid()))).*"
    " FROM meters_usagerequest r ORDER BY id LIMIT 1",
    "drift": "UPDATE billing_creditgrant SET remaining = remaining - 0.0000000001 WHERE id ="
    " (SELECT id FROM billing_creditgrant WHERE remaining > 1 ORDER BY id LIMIT 1)",
}


def spoil(product: Product, fault: str) -> None:
    """Do to the books what must never happen, past the keys that keep it out."""
    asked(
        product,
        "from django.db import connection\n"
        "cursor = connection.cursor()\n"
        f"cursor.execute({FAULTS[fault]!r})\n"
        "print(cursor.rowcount)",
    )


def forget(product: Product) -> None:
    """Have the product's database answer before what it says is on disk."""
    asked(
        product,
        "from django.db import connection\n"
        "connection.cursor().execute('ALTER ROLE lava_app SET synchronous_commit = off')\n"
        "print(1)",
    )
    for process in psutil.Process(product.child("web")).children(recursive=True):
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
