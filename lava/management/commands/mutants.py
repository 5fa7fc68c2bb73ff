"""`manage.py mutants [pytest arguments]`: put each hand-written fault into the product, where a
named test must catch it.

The faults and the tests that catch them are in tests/mutants; this only runs them, one line each.
"""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER, ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Put each hand-written fault into the product; a named test must catch it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=REMAINDER, help="for pytest, e.g. -k rounding")

    def handle(self, *args: Any, **options: Any) -> None:
        os.chdir(settings.BASE_DIR)
        words = [sys.executable, "-m", "pytest", "-v", "tests/mutants", *options["arguments"]]
        os.execv(sys.executable, words)
