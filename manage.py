#!/usr/bin/env python3
"""The one door: `python3 manage.py up` runs the product, `python3 manage.py test` passes its tests.

On a machine with nothing but Python 3.11 and pip it first builds `.venv` from `requirements.lock`
and becomes that Python. Inside an environment that has Django already (a container, say) it builds
nothing. Standard library only, until then.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / ".lava-lock"


def main() -> None:
    """Make sure of the environment, then run the command."""
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"Lava needs Python 3.11; this is {sys.version.split()[0]}.")
    inside = Path(sys.prefix).resolve() == VENV.resolve()
    if inside or importlib.util.find_spec("django") is None:
        build()
        if not inside:
            python = VENV / "bin" / "python"
            os.execv(python, [str(python), str(ROOT / "manage.py"), *sys.argv[1:]])
    if sys.argv[1:2] == ["test"]:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[2:]])
    if sys.argv[1:2] == ["up"] and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        # Until it hears Ctrl-C itself: Python's own way is to raise, and somebody may drop that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


def build() -> None:
    """Bring `.venv` to what `requirements.lock` says; one process at a time."""
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    with open(ROOT / ".venv.lock", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if STAMP.exists() and STAMP.read_text() == wanted:
            return
        print("Installing what requirements.lock names into .venv ...", file=sys.stderr, flush=True)
        uv = shutil.which("uv")
        if not (VENV / "bin" / "python").exists():
            maker = (
                [uv, "venv", "-q", "-p", sys.executable] if uv else [sys.executable, "-m", "venv"]
            )
            subprocess.run([*maker, str(VENV)], check=True)
        python = str(VENV / "bin" / "python")
        installer = [uv, "pip", "install", "-q", "-p", python] if uv else [
            python, "-m", "pip", "install", "-q", "--disable-pip-version-check",
        ]  # fmt: skip
        subprocess.run([*installer, "--require-hashes", "-r", str(LOCK)], check=True)
        STAMP.write_text(wanted)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"That did not work (exit {error.returncode}): {' '.join(map(str, error.cmd))}")
