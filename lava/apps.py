"""The lava app: management commands, checks, and the console in the admin's place."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class LavaConfig(AppConfig):
    name = "lava"
    verbose_name = "Lava"

    def ready(self) -> None:
        from lava import checks  # noqa: F401


class LavaAdminConfig(AdminConfig):
    default_site = "lava.console.site.Console"
