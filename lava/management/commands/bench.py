"""`manage.py bench CASE`: measure a charge on a scratch cluster; see lava/bench.

`requests`: beside pgbench and beside the naive design. `batch`: batches of 1,000 beside raw COPY.
`hot`: many clients on one connection. `gateway`: a call to a provider beside the same call without
the gateway, and LiteLLM where it is installed. `storm`: repeats in the midst of new requests.
`stored`: charges and reads with many requests in the database, beside an empty one. `console`:
each page of the console with many requests behind it.
`enforce`: more draws than credits, all at once. `renewals`: subscriptions of price 0 in sets, and
charges meanwhile. `audit`: its rules on many charges, and charges meanwhile. `pages`: what a
customer's page weighs, and how soon it is there on slow 4G. `up`: how soon it serves its first
page, and its memory.
Exit status 1 when a cent is missing, whatever the speed. Linux; the figures are of this machine and
this minute, so compare ratios within a run.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from lava.bench import (
    audit,
    batch,
    enforce,
    gateway,
    hot,
    machine,
    pages,
    renewals,
    report,
    requests,
    scratch,
    screens,
    start,
    stored,
    storm,
)
from lava.bench.options import Options

CASES = {
    "requests": (requests.run, report.requests),
    "gateway": (gateway.run, report.gateway),
    "batch": (batch.run, report.batch),
    "hot": (hot.run, report.hot),
    "storm": (storm.run, report.storm),
    "stored": (stored.run, stored.table),
    "enforce": (enforce.run, report.enforce),
    "renewals": (renewals.run, renewals.table),
    "audit": (audit.run, audit.table),
    "pages": (pages.run, pages.table),
    "console": (screens.run, screens.table),
    "up": (start.run, start.table),
}


class Command(BaseCommand):
    help = "Measure a charge, a gateway call, pages or `up`, on a scratch cluster."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("case", choices=list(CASES))
        parser.add_argument("--rounds", type=int, default=5, help="rounds of all sides (5)")
        parser.add_argument("--seconds", type=float, default=5.0, help="a side's window (5)")
        parser.add_argument("--clients", type=int, default=16, help="connections under load (16)")
        parser.add_argument(
            "--connections", type=int, default=2000, help="customers in the shop (2000)"
        )
        parser.add_argument(
            "--requests",
            type=int,
            default=2000,
            help="of a storm, draws, an audit, stored before (2000)",
        )
        parser.add_argument(
            "--subscriptions", type=int, default=100_000, help="renewals: how many (100000)"
        )
        parser.add_argument(
            "--litellm", default="", metavar="FOLDER",
            help="gateway: the environment LiteLLM's proxy is installed in, to compare with",
        )  # fmt: skip
        parser.add_argument("--json", default="", metavar="FILE", help="write the facts here")

    def run_from_argv(self, argv: Sequence[str]) -> None:
        if not sys.platform.startswith("linux"):
            raise CommandError("The bench reads /proc: run it on Linux.")
        self.words = list(argv[2:])
        super().run_from_argv(list(argv))

    def handle(self, *args: Any, **options: Any) -> None:
        if not scratch.is_marked(Path(settings.STATE_DIR)):
            sys.exit(scratch.run_apart(self.words))
        with scratch.running() as database:
            facts: dict[str, Any] = {
                "case": options["case"],
                "command": " ".join(["manage.py bench", *self.words]),
                "machine": machine.describe(),
            }
            run, table = CASES[options["case"]]
            asked = {field.name: options[field.name] for field in fields(Options)}
            facts |= run(database=database, options=Options(**asked), say=self._say)
            lines = table(facts)
        self.stdout.write("\n".join(["", *lines, f"- machine: {report.machine(facts['machine'])}"]))
        if options["json"]:
            Path(options["json"]).write_text(json.dumps(facts, indent=2, default=str) + "\n")
        if not facts["correct"]:
            sys.exit(1)

    def _say(self, words: str) -> None:
        self.stderr.write(words)
