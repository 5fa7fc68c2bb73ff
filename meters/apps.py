"""The meters app: usage and what it costs. Imports billing, never checkout."""

from django.apps import AppConfig


class MetersConfig(AppConfig):
    name = "meters"
    verbose_name = "Meters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from billing import closing
        from meters import volume

        closing.register(volume)
