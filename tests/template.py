"""The migrated database that the tests' databases are copies of: made once, not by every worker
and at every run, and made anew when a migration, a file of SQL or a dependency has changed."""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "lava_migrated_"


def use() -> None:
    """Have this process's test database made as a copy; it then finds nothing left to migrate."""
    name = f"{PREFIX}{_digest()}"
    state = Path(settings.STATE_DIR)
    state.mkdir(parents=True, exist_ok=True)
    with open(state / "migrated.lock", "w") as gate:
        # Workers begin at once: the first makes it, the others wait for it.
        fcntl.flock(gate, fcntl.LOCK_EX)
        found = _databases()
        if name not in found:
            _make(name)
            _drop(*found)
    connection.settings_dict["TEST"]["TEMPLATE"] = name


def _digest() -> str:
    """What the migrated database hangs on, in short."""
    files = [ROOT / "requirements.lock"]
    for app in ("billing", "meters", "checkout"):
        files += sorted((ROOT / app / "migrations").glob("*.py"))
        files += sorted((ROOT / app / "sql").glob("*.sql"))
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.name.encode() + file.read_bytes())
    return whole.hexdigest()[:12]


def _databases() -> list[str]:
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [PREFIX])
        return [name for (name,) in cursor.fetchall()]


def _make(name: str) -> None:
    """Migrate a database under another name first: one that was cut off is never copied."""
    unfinished = f"{PREFIX}unfinished"
    _drop(unfinished)
    _run(f"CREATE DATABASE {unfinished}")
    usual = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = unfinished
    try:
        call_command("migrate", verbosity=0, interactive=False)
    finally:
        connection.close()
        connection.settings_dict["NAME"] = usual
    _run(f"ALTER DATABASE {unfinished} RENAME TO {name}")


def _drop(*names: str) -> None:
    for name in names:
        _run(f"DROP DATABASE IF EXISTS {name}")


def _run(statement: str) -> None:
    with connection._nodb_cursor() as cursor:
        cursor.execute(statement)
