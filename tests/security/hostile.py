"""Hostile inputs without end, made up from a seed: over every field, body, query, path, header and
verb of the API, the card network's webhook and the hosted pages.

`manage.py hostile --count 50000` sends them, in a database of its own, and prints what came of it;
tests/security sends a few hundred. None may be answered with 5xx, under /v1 none with HTML or
without the error envelope, and what is refused may write or change no row. The fields are those of
the API's description, so a field that is added is attacked from then on.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote

if __name__ == "__main__":
    import os

    import django

    os.environ["CELERY_BROKER_URL"] = "memory://"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")
    django.setup()

from django.db import connection, transaction
from django.test import Client

from tests import wire
from tests.security.inputs import (
    BROKEN,
    KEYS,
    NEVER_RIGHT,
    ODD,
    PAGES,
    QUERIES,
    SIGNATURES,
    TEXTS,
    TYPES,
    VERBS,
)  # fmt: skip

BATCH = 500


def fields_of(schema: dict[str, Any], shapes: dict[str, Any]) -> list[str]:
    if "$ref" in schema:
        schema = shapes[schema["$ref"].rpartition("/")[2]]
    return sorted(schema.get("properties", {}))


def writing() -> list[tuple[str, str, list[str]]]:
    shapes = wire.description()["components"]["schemas"]
    return [
        (
            method,
            path,
            fields_of(operation["requestBody"]["content"]["application/json"]["schema"], shapes),
        )
        for method, path, operation in wire.operations()
        # PUT, /customers and /plans are the same views.
        if "requestBody" in operation
        and method != "PUT"
        and not path.startswith(("/v1/customers", "/v1/plans"))
    ]


def example(method: str, path: str, world: wire.World) -> dict[str, Any]:
    content = wire.description()["paths"][path][method.lower()]["requestBody"]["content"]
    found: dict[str, Any] = json.loads(
        world.real(json.dumps(content["application/json"].get("example", {})))
    )
    return found


def real(path: str, world: wire.World) -> str:
    """A described path with the ids of things that are there; any other path as it is."""
    return path.format(**world.ids()) if path in wire.description()["paths"] else path


@dataclass
class Attack:
    """One input."""

    method: str
    path: str
    raw: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"

    def __str__(self) -> str:
        return f"{self.method} {self.path[:120]} {self.raw[:120]!r} {self.headers or ''}"


@dataclass
class Report:
    """What came of it. `taken`: odd inputs that are right all the same; what they did is undone."""

    seed: int
    sent: int = 0
    seconds: float = 0
    answers: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    server_errors: int = 0
    html: int = 0
    shapeless: int = 0
    rows: int = 0
    taken: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.server_errors or self.html or self.shapeless or self.rows)

    def lines(self) -> Iterator[str]:
        """For people."""
        kinds = ", ".join(f"{name} {count:,}" for name, count in self.kinds.most_common())
        answers = ", ".join(f"{status} {count:,}" for status, count in sorted(self.answers.items()))
        yield f"sent          {self.sent:,} in {self.seconds:.0f} s, seed {self.seed} ({kinds})"
        yield f"answers       {answers}"
        yield f"5xx           {self.server_errors}"
        yield f"HTML          {self.html} under /v1"
        yield f"no envelope   {self.shapeless} under /v1"
        yield f"rows          {self.rows} written or changed by what was refused"
        yield f"taken         {self.taken:,} that are odd and right; undone"
        yield from self.examples[:10]


class Attacker:
    """Makes up inputs against one merchant's world."""

    def __init__(self, world: wire.World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.writing = [
            (method, path, fields, example(method, path, world))
            for method, path, fields in writing()
        ]
        self.reading = [path for method, path, _ in wire.operations() if method == "GET"]
        self.named = [path for _, path, _ in wire.operations() if "{" in path]
        self.kinds: dict[str, tuple[int, Callable[[], Attack]]] = {
            "fields": (50, self.in_a_field),
            "bodies": (18, self.in_the_body),
            "queries": (10, self.in_the_query),
            "paths": (8, self.in_the_path),
            "headers": (6, self.in_the_headers),
            "verbs": (3, self.by_another_verb),
            "pages": (4, self.at_a_page),
            "card events": (1, self.at_the_webhook),
        }

    def make(self) -> tuple[str, Attack]:
        """One input, and of which kind it is."""
        weights = [weight for weight, _ in self.kinds.values()]
        kind = self.dice.choices(list(self.kinds), weights)[0]
        return kind, self.kinds[kind][1]()

    def text(self) -> str:
        return quote(self.dice.choice(TEXTS).encode(errors="surrogatepass"), safe="")

    def in_a_field(self) -> Attack:
        method, path, fields, told = self.dice.choice([row for row in self.writing if row[2]])
        names = self.dice.sample(fields, min(self.dice.choice([1, 1, 1, 2, 4]), len(fields)))
        members = {key: json.dumps(value) for key, value in told.items() if key not in names}
        members |= {name: self.dice.choice(NEVER_RIGHT + ODD) for name in names}
        listed = [f"{json.dumps(name)}: {value}" for name, value in members.items()]
        self.dice.shuffle(listed)
        raw = "{" + ", ".join(listed) + "}"
        return Attack(method, real(path, self.world), raw.encode(errors="surrogatepass"))

    def in_the_body(self) -> Attack:
        method, path, _, told = self.dice.choice(self.writing)
        if self.dice.random() < 0.3:
            return Attack(method, real(path, self.world), self.dice.choice(BROKEN))
        raw = bytearray(json.dumps(told).encode())
        for _ in range(self.dice.randrange(1, 5)):
            at = self.dice.randrange(len(raw) + 1)
            act = self.dice.randrange(4)
            if act == 0:
                raw[at:at] = bytes([self.dice.randrange(256)])
            elif act == 1:
                del raw[at : at + self.dice.randrange(1, 8)]
            elif act == 2:
                raw[at : at + 1] = bytes([self.dice.randrange(256)])
            else:
                raw[at:at] = raw[at : at + self.dice.randrange(1, 20)]
        return Attack(method, real(path, self.world), bytes(raw))

    def in_the_query(self) -> Attack:
        path = real(self.dice.choice(self.reading), self.world)
        if self.dice.random() < 0.5:
            return Attack("GET", f"{path}?{self.dice.choice(QUERIES)}")
        names = [query.partition("=")[0] for query in QUERIES]
        count = self.dice.randrange(1, 4)
        query = "&".join(f"{self.dice.choice(names)}={self.text()}" for _ in range(count))
        return Attack("GET", f"{path}?{query}")

    def in_the_path(self) -> Attack:
        path = self.dice.choice(self.named)
        method = self.dice.choice(["GET", "GET", "POST", "PUT", "DELETE"])
        ids = {name: self.text() for name in self.world.ids()}
        return Attack(method, path.format(**ids), b"{}" if method in ("POST", "PUT") else b"")

    def in_the_headers(self) -> Attack:
        method, path, _, told = self.dice.choice(self.writing)
        attack = Attack(method, real(path, self.world), json.dumps(told).encode())
        place = self.dice.randrange(3)
        if place == 0:
            attack.headers = {"Authorization": self.dice.choice(KEYS)}
        elif place == 1:
            # With a body that is refused: one that is taken is only an ordinary call.
            attack.raw = self.dice.choice(BROKEN)
            attack.headers = {
                "Idempotency-Key": self.dice.choice(["", " ", "\x00", "k" * 300, "é"])
            }
        else:
            attack.kind = self.dice.choice(TYPES)
        return attack

    def by_another_verb(self) -> Attack:
        path = real(self.dice.choice(sorted(wire.description()["paths"])), self.world)
        made_up = self.dice.random() < 0.3
        return Attack(self.dice.choice(VERBS), f"/v1/{self.text()}" if made_up else path, b"")

    def at_a_page(self) -> Attack:
        page, steps = self.dice.choice(list(PAGES.items()))
        right = self.dice.random() < 0.5
        secret = self.world.session.secret if right else self.text()
        merchant = self.world.merchant.public_id if right else self.text()
        step = self.dice.choice(steps)
        path = f"/{page.format(secret=secret, merchant=merchant)}" + (step and f"/{step}")
        names = ["phone", "code", "country", "bundle_id", "quantity", "token", "locale", "amount"]
        form = "&".join(f"{name}={self.text()}" for name in self.dice.sample(names, 3))
        if self.dice.random() < 0.5:
            return Attack("GET", f"{path}?{form}")
        return Attack("POST", path, form.encode(), kind="application/x-www-form-urlencoded")

    def at_the_webhook(self) -> Attack:
        raw = self.dice.choice([*BROKEN, b'{"id": "evt_1", "type": "payment_intent.succeeded"}'])
        signature = self.dice.choice(SIGNATURES)
        return Attack("POST", "/webhooks/stripe", raw, {"Stripe-Signature": signature})


def attack(count: int, *, seed: int) -> Report:
    """Send so many inputs, in transactions of some hundred each, and look at each answer."""
    report = Report(seed)
    start = time.monotonic()
    world = wire.World()
    attacker = Attacker(world, seed)
    client = Client(raise_request_exception=False)
    # What a first call of its own makes, such as the note that a key is in use, is no harm done.
    client.get("/v1/merchant", headers={"Authorization": f"Bearer {world.key}"})
    before = books()
    for first in range(0, count, BATCH):
        with transaction.atomic():
            for _ in range(first, min(first + BATCH, count)):
                kind, made = attacker.make()
                report.kinds[kind] += 1
                _send(client, made, world.key, report)
            after = books()
        for table, (rows, content) in after.items():
            if (rows, content) != before[table]:
                report.rows += abs(rows - before[table][0]) or 1
                report.examples.append(f"rows: {table}, {before[table][0]} and now {rows}")
        before = after
    report.seconds = time.monotonic() - start
    return report


def _send(client: Client, made: Attack, key: str, report: Report) -> None:
    place = transaction.savepoint()
    answer = client.generic(
        made.method, made.path, made.raw, content_type=made.kind,
        headers={"Authorization": f"Bearer {key}"} | made.headers,
    )  # fmt: skip
    report.sent += 1
    report.answers[answer.status_code] += 1
    if answer.status_code < 400:
        report.taken += 1
        transaction.savepoint_rollback(place)
    else:
        transaction.savepoint_commit(place)
    wrong = []
    if answer.status_code >= 500:
        report.server_errors += 1
        wrong.append("5xx")
    if made.path.startswith("/v1/"):
        body = b"" if answer.streaming else answer.content
        if "html" in answer.get("Content-Type", "") or b"<html" in body.lower():
            report.html += 1
            wrong.append("HTML")
        elif answer.status_code >= 400 and made.method != "HEAD" and not _enveloped(answer):
            report.shapeless += 1
            wrong.append("no envelope")
    if wrong:
        report.examples.append(f"{', '.join(wrong)}: {answer.status_code} to {made}")


def _enveloped(answer: Any) -> bool:
    try:
        error = answer.json()["error"]
        return bool(error["message"] and error["code"] and error["status"] == answer.status_code)
    except (ValueError, LookupError, TypeError):
        return False


@cache
def _tables() -> list[str]:
    return [
        name
        for name in connection.introspection.table_names()
        if name.startswith(("billing_", "meters_", "checkout_"))
        # Beside an Idempotency-Key the answer is kept, a refusal too, to be given again.
        and name != "billing_idempotentcall"
    ]


def books() -> dict[str, tuple[int, int]]:
    """What every table of the product holds: how many rows, and a digest of their content."""
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT '{name}', count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)"
                f" FROM {name} t"
                for name in _tables()
            )
        )
        return {name: (rows, int(content)) for name, rows, content in cursor.fetchall()}


def main() -> int:
    from lava.demo.sim.world import apart

    parser = argparse.ArgumentParser(prog="manage.py hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with apart():
        report = attack(words.count, seed=words.seed)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
