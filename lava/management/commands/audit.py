"""`manage.py audit [--json]`: check the books against every rule of money.md.

Silent, and exit status 0, when all of them hold; otherwise it lists what breaks them and exits 1.
Safe at any time: it reads one snapshot, writes nothing and waits for nobody.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection, transaction

from billing import audit as money
from meters import audit as usage

RULES = (*money.RULES, *usage.RULES)


@contextmanager
def snapshot() -> Iterator[None]:
    """One view of the books for all that is asked inside; nothing can be written."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            if not transaction.get_connection().savepoint_ids:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                # Sums over a million lines, in memory and not on the disk that charges wait for.
                cursor.execute("SET LOCAL work_mem = '64MB'")
        yield


def broken(limit: int = 100) -> dict[str, list[money.Row]]:
    """Rows by the name of the rule they break, out of one snapshot; empty when all holds."""
    with snapshot():
        return {rule.name: found for rule in RULES if (found := rule.rows(limit))}


class Command(BaseCommand):
    help = "Check the books against every rule; silent when all hold."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="the rows as JSON")
        parser.add_argument("--limit", type=int, default=100, help="rows a rule (100)")

    def handle(self, *args: Any, **options: Any) -> None:
        found = broken(options["limit"])
        if options["json"]:
            self.stdout.write(json.dumps(found, default=str, indent=2))
        else:
            for rule in RULES:
                if rule.name in found:
                    self._show(rule, found[rule.name])
        if found:
            sys.exit(1)

    def _show(self, rule: money.Rule, rows: list[money.Row]) -> None:
        self.stdout.write(f"BROKEN {rule.name}: {rule.sentence}")
        for row in rows:
            words = ", ".join(f"{name}={value}" for name, value in row.items() if value is not None)
            self.stdout.write(f"  {words}")
