"""`manage.py reseal`: seal every stored secret anew under the first SECRET_KEY.

Run it after a new SECRET_KEY is in use everywhere and the former one is in SECRET_KEY_FALLBACKS;
then the former one can go. Exits 1 where a secret opens under none of them.
"""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from lava.operations import sealed


class Command(BaseCommand):
    help = "Seal stored secrets anew under the first SECRET_KEY."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        done, closed = sealed.reseal()
        self.stdout.write(f"{done} secrets are sealed under the first SECRET_KEY.")
        for name in closed:
            self.stderr.write(f"Opens under no key: {name}")
        if closed:
            sys.exit(1)
