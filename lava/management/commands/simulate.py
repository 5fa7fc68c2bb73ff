"""`manage.py simulate [--seed N] [--months 24] [--connections 200]`: play months against a model.

Two merchants, customers, declines, silent networks and changes of mind, made up from the seed,
played with the product's own verbs and in a plain-Python model; they must agree to the last digit.
Each merchant is played by a process of its own, in a database of its own beside the configured one,
dropped afterwards; with `--here` both in a transaction of the configured one that is rolled back. A
seed that fails says how to play it again, and exits 1.
"""

from __future__ import annotations

import multiprocessing
import sys
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Any

import django
from django.core.management.base import BaseCommand
from django.db import connection

from lava.demo.sim import play


class Command(BaseCommand):
    help = "Play months of billing against a model that must agree to the last digit."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=1, help="what happens (1)")
        parser.add_argument("--seeds", type=int, default=1, help="so many, from --seed on (1)")
        parser.add_argument("--months", type=int, default=24, help="how long (24)")
        parser.add_argument("--connections", type=int, default=200, help="customers (200)")
        parser.add_argument(
            "--look", type=float, default=6, metavar="HOURS",
            help="how long what falls due waits for a worker (6); 0: done to the second",
        )  # fmt: skip
        parser.add_argument(
            "--here", action="store_true", help="make no database, and roll back: for short ones"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        size = {name: options[name] for name in ("months", "connections")}
        size["look"] = timedelta(hours=options["look"])
        for seed in range(options["seed"], options["seed"] + options["seeds"]):
            try:
                if options["here"]:
                    report = play.run(seed, say=self.stderr.write, **size)
                else:
                    report = self._apart(seed, size)
            except play.Disagreement as wrong:
                self.stdout.write(f"Seed {seed} fails {wrong}")
                self.stdout.write(
                    f"Play it again: python3 manage.py simulate --seed {seed} "
                    f"--months {options['months']} --connections {options['connections']} "
                    f"--look {options['look']:g}"
                )
                sys.exit(1)
            self.stdout.write(str(report))

    def _apart(self, seed: int, size: dict[str, Any]) -> play.Report:
        """Both merchants at once."""
        connection.ensure_connection()
        with ProcessPoolExecutor(
            2, mp_context=multiprocessing.get_context("spawn"), initializer=django.setup
        ) as pool:
            parts = [pool.submit(play.run_apart, seed, place, **size) for place in (0, 1)]
            return parts[0].result() + parts[1].result()
