"""`manage.py up`: what it says, what it refuses, what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from lava import supervisor, watching
from lava.bench import ports
from lava.management.commands import up
from tests.product import OURS, ROOT, Product, eventually

pytestmark = pytest.mark.xdist_group("product")


def processes_of(product: Product) -> list[psutil.Process]:
    """Every process that works on this product's data, whoever started it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            ours = process.environ().get("LAVA_STATE_DIR") == str(product.state)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if ours or str(product.state) in words:
            found.append(process)
    return found


def test_it_says_where_everything_is(product: Product) -> None:
    assert set(product.facts) == {"url", "console", "merchants", "card_network", "ai_provider"}
    assert product.facts["console"]["url"] == f"{product.url}/console/"
    assert (product.state / "up.json").stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"{product.url}/readyz").json() == {"status": "ok"}
    assert httpx.get(f"{product.facts['ai_provider']['url']}/_control/health").is_success


def test_a_command_beside_it_speaks_to_its_card_network(product: Product) -> None:
    code = "from django.conf import settings; print(settings.STRIPE_API_BASE)"
    done = product.manage("shell", "-v", "0", "-c", code)
    assert done.stdout.strip() == product.facts["card_network"]["url"]


def test_a_second_one_in_the_same_checkout_is_refused(product: Product) -> None:
    again = product.manage("up", "--port", str(product.port + 50))
    assert again.returncode != 0
    assert "running in this checkout already" in again.stderr


def test_the_product_runs_as_a_role_that_cannot_change_the_ledger(product: Product) -> None:
    code = (
        "from django.db import connection\n"
        "c = connection.cursor()\n"
        "c.execute('SELECT current_user')\n"
        "print(c.fetchone()[0])\n"
        "c.execute('DELETE FROM billing_ledgerentry')\n"
    )
    product.env["LAVA_DB_ROLE"] = "app"
    try:
        done = product.manage("shell", "-v", "0", "-c", code)
    finally:
        del product.env["LAVA_DB_ROLE"]
    assert done.stdout.strip() == "lava_app"
    assert "permission denied for table billing_ledgerentry" in done.stderr


def test_a_child_that_dies_is_started_again(product: Product) -> None:
    before = product.child("worker")
    os.kill(before, signal.SIGKILL)
    eventually(lambda: product.child("worker") != before)


def test_what_a_killed_child_has_started_ends_with_it(product: Product) -> None:
    """The web server's processes would answer on, with nobody to end them."""
    before = product.child("web")
    left = psutil.Process(before).children()
    assert len(left) == 2
    os.kill(before, signal.SIGKILL)
    eventually(lambda: product.child("web") != before)
    eventually(lambda: not any(process.is_running() for process in left))
    eventually(lambda: _answers(product))


def test_it_ends_as_a_small_program_that_watches(product: Product) -> None:
    watching = psutil.Process(product.process.pid)
    assert "lava.watching" in watching.cmdline()
    assert watching.memory_info().rss < 60_000_000
    assert watching.num_threads() == 1


def test_a_child_is_adopted_as_it_is(tmp_path: Path) -> None:
    said: list[str] = []
    first = supervisor.Supervisor(logs=tmp_path, pids=tmp_path / "pids", say=said.append)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    gone = [sys.executable, "-c", "raise SystemExit(3)"]
    for name, command in (("sleeper", sleep), ("gone", gone)):
        first.start(supervisor.Child(name, command, {"A": "b"}))
    eventually(lambda: not first.alive("gone"))
    told = json.loads(json.dumps(first.handed_over()))
    second = supervisor.Supervisor.adopt(told, say=said.append)
    assert [child.name for child in second.children] == ["sleeper", "gone"]
    sleeper, ended = second.children
    assert (sleeper.command, sleeper.env) == (sleep, {"A": "b"})
    assert sleeper.process is not None and ended.process is not None
    assert (second.alive("sleeper"), second.alive("gone")) == (True, False)
    assert ended.process.poll() == 3
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.process.wait(0.05)
    before = sleeper.process.pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: not second.alive("sleeper"))
    assert sleeper.process.poll() == -signal.SIGKILL
    eventually(lambda: second.watch() or second.alive("sleeper"))
    assert sleeper.process.pid != before
    assert said[0].startswith("sleeper ended with -9; starting it again")
    second.stop()
    assert not second.alive("sleeper")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_once_and_is_not_lost(
    first: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = supervisor.Supervisor(logs=tmp_path, pids=tmp_path / "pids", say=print)
    watch = watching.Watch(nothing, own_database=False, facts=tmp_path / "up.json")
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(watching, "_asked", False)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        watching.interrupt_on_signals()
        watch.look()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(first)
        for number in numbers:
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            watch.look()
        watch.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_watches_does_not_end_since_nobody_reads() -> None:
    read, write = os.pipe()
    os.close(read)
    watching.say("web ended", write)
    os.close(write)


def _answers(product: Product) -> bool:
    try:
        return httpx.get(f"{product.url}/readyz", timeout=2).is_success
    except httpx.HTTPError:
        return False


def test_a_taken_port_is_said_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        env = os.environ | {"LAVA_STATE_DIR": str(ROOT / ".lava" / "taken")}
        done = subprocess.run(
            [sys.executable, "manage.py", "up", "--no-demo", "--port", port],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=env,
            timeout=60,
        )
    assert done.returncode != 0
    assert f"Port {port} is taken. Choose another with --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_belongs_to_the_first_of_two_that_start_at_once(folder: Path) -> None:
    """Neither listens yet: by what listens both would have it."""
    port = ports.free(3)
    command = [sys.executable, ROOT / "manage.py", "up", "--no-demo", "--port"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    two = [
        subprocess.Popen(
            [*command, str(port + shift)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=env | {"LAVA_STATE_DIR": str(folder / name)},
        )
        for name, shift in (("one", 0), ("two", 2))
    ]
    try:
        eventually(lambda: any(process.poll() is not None for process in two), within_s=60)
        (refused,) = [process for process in two if process.poll() is not None]
        assert refused.returncode != 0
        assert f"Port {port + 2} is taken" in refused.communicate()[1]
    finally:
        for process in two:
            process.terminate()
            process.communicate(timeout=60)


def test_a_port_is_taken_by_who_listens_and_not_by_a_line_that_was_closed() -> None:
    """The web server shares its port among its processes, and may be the first to close a line."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        server.settimeout(10)
        assert up._is_taken(port)
        # The question was a line of its own.
        server.accept()[0].close()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
    # The kernel remembers the line for a minute.
    with socket.socket() as strict, pytest.raises(OSError, match="in use"):
        strict.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        strict.bind(("127.0.0.1", port))
    assert not up._is_taken(port)


def test_a_port_of_one_who_listens_and_never_answers_is_taken() -> None:
    with socket.socket() as server, ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        assert up._is_taken(port)


def test_a_list_of_children_that_names_us_or_is_half_written_kills_nobody(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.write_text(f"{os.getpgrp()} web\n\n{os.getpid()}\nx y")
    supervisor.clean_up_after_a_crash(pids, root=ROOT)
    assert not pids.exists()


def test_what_a_kill_leaves_disturbs_no_next_start_which_stops_everything() -> None:
    running = Product("--no-demo")
    try:
        assert len(processes_of(running)) > 8
        running.process.kill()
        running.process.wait()
        (running.state / "up.json").unlink()
        running.start()
        assert httpx.get(f"{running.url}/readyz").is_success
        assert len(processes_of(running)) > 8
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            running.process.send_signal(number)
        running.stop()
        assert "Stopped." in running.output()
        assert "Traceback" not in (running.state / "up.log").read_text()
        assert not (running.state / "up.json").exists()
        time.sleep(0.5)
        assert processes_of(running) == []
    finally:
        running.remove()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where `nobody` may go, which the server runs as when we are root."""
    made = Path(tempfile.mkdtemp(prefix="lava-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def begun(folder: Path, *, state: str) -> subprocess.Popen[bytes]:
    """A first start from a folder, as far as to its database's server."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    starting = subprocess.Popen(
        [sys.executable, ROOT / "manage.py", "up", "--no-demo", "--port", str(ports.free(3))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env | {"LAVA_STATE_DIR": state},
        cwd=folder,
    )
    socket_of = folder / "state" / "postgres" / "socket" / ".s.PGSQL.5432"
    eventually(socket_of.exists, within_s=60, pause_s=0.01)
    return starting


def test_a_folder_for_its_files_is_meant_from_where_one_stands(folder: Path) -> None:
    starting = begun(folder, state="state")
    starting.terminate()
    starting.wait(60)
    assert (folder / "state" / "secret_key").exists()
    assert not (ROOT / "state").exists()


def test_a_start_that_was_killed_as_it_made_its_database_is_made_again(folder: Path) -> None:
    starting = begun(folder, state=str(folder / "state"))
    starting.kill()
    starting.wait()
    assert not (folder / "state" / "postgres" / "made").exists()
    again = begun(folder, state=str(folder / "state"))
    try:
        eventually((folder / "state" / "up.json").exists, within_s=120)
    finally:
        again.terminate()
        again.wait(60)
