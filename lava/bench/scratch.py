"""A cluster and a state folder for one bench run, thrown away after it.

The bench never touches the checkout's own data: the command starts itself again (`run_apart`) with
a state folder of its own, so that settings, database and keys are those of the scratch folder. The
cluster is the one of `up` in everything but its place: fsync and synchronous_commit are on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.core.management import call_command

from lava.postgres import cluster

# Says that this process runs in a scratch folder; the naive side serves nowhere else.
MARK = "LAVA_BENCH_SCRATCH"
# What a developer's shell may have set and the bench must not obey.
_FOREIGN = ("LAVA_", "DJANGO_", "PYTEST_", "DATABASE_", "STRIPE_", "CELERY_")


def is_marked(state: Path) -> bool:
    """Whether a state folder is the scratch one of this process."""
    return os.environ.get(MARK) == str(state)


def run_apart(words: Sequence[str]) -> int:
    """Run `manage.py bench <words>` on a scratch cluster; gives its exit status."""
    home = Path(settings.STATE_DIR)
    home.mkdir(parents=True, exist_ok=True)
    state = Path(tempfile.mkdtemp(prefix="bench-", dir=home))
    state.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    if settings.LAVA_POSTGRES_BIN:
        env["LAVA_POSTGRES_BIN"] = settings.LAVA_POSTGRES_BIN
    env |= {"LAVA_STATE_DIR": str(state), MARK: str(state)}
    try:
        command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "bench", *words]
        return subprocess.run(command, env=env, check=False).returncode
    finally:
        shutil.rmtree(state, ignore_errors=True)


@contextmanager
def running() -> Iterator[int]:
    """The scratch cluster, migrated; gives the process id of its server."""
    made = cluster.ensure()
    try:
        call_command("migrate", interactive=False, verbosity=0)
        number = cluster.pid(made)
        assert number is not None
        yield number
    finally:
        cluster.stop(made)
        shutil.rmtree(made.home, ignore_errors=True)
