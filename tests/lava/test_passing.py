"""Commands that start another program give it their words, dashes and all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.product import ROOT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chaos", "--minutes", "0", "--help"], "--forgetful"),
        (["mutants", "-k", "rounding", "--collect-only", "-q", "-n", "0"], "rounding"),
    ],
    ids=["chaos", "mutants"],
)
def test_a_word_with_a_dash_reaches_the_program(words: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *words], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr
