"""`manage.py messages`: the catalogues of what customers read, brought up to date and compiled."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from lava import catalogues


class Command(BaseCommand):
    help = "Bring the catalogues of what customers read up to date, and compile them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--check", action="store_true", help="write nothing; fail on what is not translated"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        found = 0
        for app in catalogues.FOLDERS:
            for language in catalogues.languages():
                if not options["check"]:
                    catalogues.bring_up_to_date(app, language)
                for complaint in catalogues.complaints(app, language):
                    found += 1
                    self.stderr.write(f"{app}: {complaint}")
        if found:
            raise SystemExit(1)
