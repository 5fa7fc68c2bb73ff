"""`manage.py simulate [--seed N] [--months 24] [--connections 200]`: play months against a model.

Merchants, customers, declines, silent networks and changes of mind, made up from the seed, played
with the product's own verbs on the configured database and in a plain-Python model; they must agree
to the last digit. Nothing is left behind. A seed that fails says how to play it again, and exits 1.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from lava.demo.sim import play


class Command(BaseCommand):
    help = "Play months of billing against a model that must agree to the last digit."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=1, help="what happens (1)")
        parser.add_argument("--seeds", type=int, default=1, help="so many, from --seed on (1)")
        parser.add_argument("--months", type=int, default=24, help="how long (24)")
        parser.add_argument("--connections", type=int, default=200, help="customers (200)")

    def handle(self, *args: Any, **options: Any) -> None:
        months, connections = options["months"], options["connections"]
        for seed in range(options["seed"], options["seed"] + options["seeds"]):
            try:
                report = play.run(
                    seed, months=months, connections=connections, say=self.stderr.write
                )
            except play.Disagreement as wrong:
                self.stdout.write(f"Seed {seed} fails {wrong}")
                self.stdout.write(
                    f"Play it again: python3 manage.py simulate --seed {seed} --months {months} "
                    f"--connections {connections}"
                )
                sys.exit(1)
            self.stdout.write(str(report))
