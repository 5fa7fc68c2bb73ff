"""Commands that only start another program of this repository, with all their words as they stand.

Django's own parser would refuse a word that begins with a dash before the program sees it.
"""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar

from django.conf import settings
from django.core.management.base import BaseCommand


class Passing(BaseCommand):
    """A command whose words are `program`'s; `program` is what follows `python`."""

    program: ClassVar[tuple[str, ...]]

    def run_from_argv(self, argv: list[str]) -> None:
        """Become the program."""
        self.handle(words=argv[2:])

    def handle(self, *args: Any, words: list[str], **options: Any) -> None:
        os.chdir(settings.BASE_DIR)
        os.execv(sys.executable, [sys.executable, *self.program, *words])
