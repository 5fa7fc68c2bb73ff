"""The licence of everything that is installed with the product, by what each package says of
itself: one that is unknown, or would bind whoever runs or passes on the product, fails here."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# May be used and passed on with their notice kept: SPDX names, and what packages write for them.
FREE = {
    "MIT", "MIT-0", "MIT-CMU", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0",
    "AFL-2.1", "0BSD", "ISC",
    "BSD", "New BSD", "BSD License", "BSD 2-Clause License", "BSD 3-Clause", "MIT License",
    "Apache 2.0", "Apache License, Version 2.0", "Apache Software License", "PSFL",
    "Python Software Foundation License", "Dual License",
}  # fmt: skip
# Bind changes of their own files alone, and not what stands beside them; none is changed here.
OF_THEIR_OWN_FILES = {"MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"}
# A library that whoever runs the product may exchange, since Python loads it as it stands.
EXCHANGEABLE = {
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
    "psycopg-pool": "LGPL-3.0-only",
    "fpdf2": "LGPL-3.0-only",
}


def allowed(said: str) -> bool:
    """Whether a licence, or an SPDX expression of several, binds nobody who runs the product."""
    if said in FREE or said in OF_THEIR_OWN_FILES:
        return True
    parts = [part.strip("() ") for part in re.split(r" (?:AND|OR) ", said)]
    if len(parts) < 2:
        return False
    verdicts = [part in FREE | OF_THEIR_OWN_FILES for part in parts]
    return any(verdicts) if " AND " not in said else all(verdicts)


def said_by(package: str) -> list[str]:
    """What a package says of its licence: its expression, its classifiers, or its own words."""
    told = importlib.metadata.metadata(package)
    if expression := told.get("License-Expression"):
        return [expression]
    classifiers = told.get_all("Classifier", [])
    found = [line.rsplit(" :: ", 1)[1] for line in classifiers if line.startswith("License :: ")]
    first = (told.get("License") or "").strip().splitlines()
    return found or first[:1]


def locked() -> list[str]:
    """Every package of the lock that this machine has (a few are for other systems)."""
    text = (ROOT / "requirements.lock").read_text()
    names = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==", text, re.MULTILINE)
    installed = {
        re.sub(r"[-_.]+", "-", dist.name).lower() for dist in importlib.metadata.distributions()
    }
    return [name for name in names if re.sub(r"[-_.]+", "-", name).lower() in installed]


def test_every_python_package_may_be_used_and_passed_on() -> None:
    packages = locked()
    assert len(packages) > 100
    refused = {
        name: said
        for name in packages
        for said in [said_by(name)]
        if said != [EXCHANGEABLE.get(name)] and not (said and all(map(allowed, said)))
    }
    assert not refused, refused


def test_every_npm_package_of_the_tests_may_be_used() -> None:
    lock = json.loads((ROOT / "tests/clients/package-lock.json").read_text())
    packages = {path: row for path, row in lock["packages"].items() if path}
    assert packages
    refused = {
        path: row.get("license")
        for path, row in packages.items()
        if not allowed(str(row.get("license", "")).strip("()"))
    }
    assert not refused, refused


@pytest.mark.parametrize(
    "said",
    ["GPL-3.0-only", "AGPL-3.0-or-later", "LGPL-3.0-only", "SSPL-1.0", "UNLICENSED", "",
     "MIT AND GPL-2.0-only", "Proprietary", "BUSL-1.1",
     "GNU General Public License v3 (GPLv3)"],
)  # fmt: skip
def test_a_licence_that_binds_or_says_nothing_is_refused(said: str) -> None:
    assert not allowed(said)


def test_a_choice_needs_one_that_is_allowed() -> None:
    assert allowed("GPL-2.0-only OR MIT") and allowed("MPL-2.0 AND (Apache-2.0 OR MIT)")
