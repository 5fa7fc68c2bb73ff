"""Django's PostgreSQL backend over the embedded cluster, started at the first connection.

Never at settings import: linters and `makemigrations --check` need no server. Django looks for the
name `DatabaseWrapper` here.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base

from lava.postgres import cluster


class DatabaseWrapper(base.DatabaseWrapper):
    """PostgreSQL on the unix socket of the checkout's own cluster."""

    def get_connection_params(self) -> dict[str, Any]:
        running = cluster.ensure()
        self.settings_dict["HOST"] = str(running.socket_dir)
        self.settings_dict["PORT"] = str(cluster.PORT)
        params: dict[str, Any] = super().get_connection_params()
        return params
