"""The lava app: management commands, checks, and the console in the admin's place."""

from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig


class LavaConfig(AppConfig):
    name = "lava"
    verbose_name = "Lava"

    def ready(self) -> None:
        from lava import celery, checks  # noqa: F401


class LavaAdminConfig(SimpleAdminConfig):
    """The console's pages are its own (`lava.console.site`). Of others' admin modules it has no
    use, and without them worker, beat and commands start in half the time."""

    default_site = "lava.console.site.Console"
