"""`manage.py chaos --minutes 30 [--seed N] [--json FILE] [--forgetful]`: kill everything again and
again under load, and count what was lost.

The storm is in tests/chaos/storm.py; this only starts it, on a product of its own that is gone
afterwards.
"""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER, ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Kill web workers, workers, broker and database under load; count lost, double, drift."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=REMAINDER, help="e.g. --minutes 30 --seed 2")

    def handle(self, *args: Any, **options: Any) -> None:
        os.chdir(settings.BASE_DIR)
        os.execv(sys.executable, [sys.executable, "-m", "tests.chaos.storm", *options["arguments"]])
