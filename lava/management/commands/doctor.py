"""`manage.py doctor [--json]`: is this installation sound? Exits 1 where something must be mended.

Asks the database, the broker, the card network and the public address; changes nothing.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from lava.operations import doctor


class Command(BaseCommand):
    help = "Check database, broker, workers, cards, address, secrets and disk; say what to mend."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="the findings as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        found = list(doctor.findings())
        if options["json"]:
            self.stdout.write(json.dumps([asdict(row) for row in found], indent=2))
        else:
            for row in found:
                mark = "ok  " if row.is_well else "warn" if row.warns else "MEND"
                self.stdout.write(f"{mark}  {row.what}: {row.seen}")
                if row.mend:
                    self.stdout.write(f"      {row.mend}")
        if any(row.mend and not row.warns for row in found):
            sys.exit(1)
