"""The supervisor: starts children, watches them, restarts what dies, stops all it started.

Used by `manage.py up`, by what that becomes (`lava.watching`), and by the benches. Children are
stopped one by one in the order given, so that nothing writes into a server that is gone. On Linux a
child also dies with a killed supervisor.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

# A child that dies again within this time waits longer before its next start; another is started
# again at once.
STEADY_S = 5.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
# How long a killed process may take to go.
KILLED_S = 5.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass
class Child:
    """A program that must run: its command line, its environment, how it is stopped."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    process: subprocess.Popen[bytes] | Adopted | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0


class Adopted:
    """A child of this process that was started before the process became the program it is now; as
    much of `subprocess.Popen` as the supervisor uses. `returncode`: it has ended already."""

    def __init__(self, pid: int, returncode: int | None) -> None:
        self.pid = pid
        self.returncode = returncode

    def poll(self) -> int | None:
        """How it ended; None: it runs."""
        if self.returncode is None:
            self._ask()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends.

        Raises:
            subprocess.TimeoutExpired: it did not.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ask(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # Somebody else buried it.
            self.returncode = -1
            return
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)


def _die_with_parent() -> None:
    """In the child, before its program: die when the supervisor dies, and ignore its Ctrl-C."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Supervisor:
    """Runs children until it is told to stop."""

    def __init__(self, *, logs: Path, pids: Path, say: Callable[[str], None]) -> None:
        self.logs = logs
        self.pids = pids
        self.say = say
        self.children: list[Child] = []
        self.stopping = False
        if sys.platform == "linux":
            # What its children leave behind becomes its own, and is buried by `watch`.
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    @classmethod
    def adopt(cls, told: Mapping[str, Any], *, say: Callable[[str], None]) -> Supervisor:
        """The supervisor that this process was, out of what its `handed_over` said."""
        found = cls(logs=Path(told["logs"]), pids=Path(told["pids"]), say=say)
        for words in told["children"]:
            pid, code = words.pop("pid"), words.pop("returncode")
            child = Child(**words | {"stop_signal": signal.Signals(words["stop_signal"])})
            child.process = None if pid is None else Adopted(pid, code)
            found.children.append(child)
        return found

    def handed_over(self) -> dict[str, Any]:
        """All there is to know, as JSON can hold it, for the program that this process becomes."""
        children = []
        for child in self.children:
            process = child.process
            children.append(
                asdict(replace(child, process=None))
                | {
                    "command": list(child.command),
                    "pid": process.pid if process else None,
                    "returncode": process.poll() if process else None,
                }
            )
            del children[-1]["process"]
        return {"logs": str(self.logs), "pids": str(self.pids), "children": children}

    def start(self, child: Child) -> None:
        """Start a child; its output goes to `<logs>/<name>.log`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with open(self.logs / f"{child.name}.log", "ab") as log:
            child.process = subprocess.Popen(
                list(child.command),
                env={**os.environ, **child.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
        child.started_at = time.monotonic()
        if child not in self.children:
            self.children.append(child)
        self._write_pids()

    def watch(self) -> None:
        """Restart what has died; call it again and again until `stopping`."""
        now = time.monotonic()
        self._bury()
        for child in self.children:
            if child.process is None or child.process.poll() is None:
                continue
            if child.restart_at == 0.0:
                # What it started itself ends with it, as at the end of all.
                _kill_group(child.process.pid)
                steady = now - child.started_at > STEADY_S
                child.failures = 1 if steady else child.failures + 1
                pause = min(SHORTEST_PAUSE_S * 2 ** (child.failures - 1), LONGEST_PAUSE_S)
                child.restart_at = now + pause
                self.say(
                    f"{child.name} ended with {child.process.returncode}; starting it again in "
                    f"{pause:.1f} s (see {child.name}.log)"
                )
            elif now >= child.restart_at:
                child.restart_at = 0.0
                self.start(child)

    def alive(self, name: str) -> bool:
        """Whether a child runs right now."""
        return any(
            child.name == name and child.process is not None and child.process.poll() is None
            for child in self.children
        )

    def stop(self) -> None:
        """Stop every child, one after the other, the last started first."""
        self.stopping = True
        for child in reversed(self.children):
            stop(child)
        self.pids.unlink(missing_ok=True)

    def _bury(self) -> None:
        """Take note of the end of orphans, such as a killed database, which seems to be alive until
        somebody does. The first process of a container often does so late or never."""
        try:
            found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        except OSError:
            return
        ours = {child.process.pid for child in self.children if child.process is not None}
        for pid in {int(number) for number in found} - ours:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass

    def _write_pids(self) -> None:
        lines = [
            f"{child.process.pid} {child.name}"
            for child in self.children
            if child.process is not None
        ]
        # Whole at any moment: whoever reads it, and whatever a kill interrupts.
        fresh = self.pids.with_name(f"{self.pids.name}.new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.rename(self.pids)


def stop(child: Child) -> None:
    """End one child with its signal; kill its whole group if it does not listen."""
    process = child.process
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(child.stop_signal)
        try:
            process.wait(child.stop_timeout_s)
        except subprocess.TimeoutExpired:
            pass
    # Whatever the child left behind in its own session goes with it.
    _kill_group(process.pid)
    process.wait()


def _kill_group(number: int) -> None:
    try:
        os.killpg(number, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def clean_up_after_a_crash(pids: Path, *, root: Path) -> None:
    """End what children that a killed supervisor of this checkout left running, and wait until it
    has: their ports are asked for next. A child may be gone before its own processes are."""
    if not pids.exists():
        return
    ended = []
    found = re.findall(r"^(\d+) \w", pids.read_text(), re.MULTILINE)
    for group in {int(number) for number in found} - {os.getpgrp()}:
        # A reused process id is somebody else's: only what runs from this checkout is ended.
        if any(_runs_from(root, pid) for pid in _living(group)):
            try:
                os.killpg(group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
            ended.append(group)
    deadline = time.monotonic() + KILLED_S
    while any(map(_living, ended)) and time.monotonic() < deadline:
        time.sleep(0.02)
    pids.unlink(missing_ok=True)


def _living(group: int) -> list[int]:
    """The processes of a group that have not ended. One that nobody buried yet has, once its last
    thread is gone: until then its ports are held."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of, *rest = (place / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        threads = int(rest[14])
        if int(of) == group and (state not in "ZX" or threads > 1):
            found.append(int(place.name))
    return found


def _runs_from(root: Path, pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        folder = Path(f"/proc/{pid}/cwd").resolve()
    except OSError:
        return False
    return str(root) in command or folder == root
