"""The console as an app of its own, so that Django finds its template tags."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "lava.console"
    label = "console"
    verbose_name = "Console"
