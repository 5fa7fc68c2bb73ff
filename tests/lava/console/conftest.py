"""Two businesses side by side, made once a module."""

from __future__ import annotations

from functools import partial

import pytest

from tests.kept import Kept
from tests.lava.console.shop import Shop

OURS = partial(Shop, "Northwind", number=1)
THEIRS = partial(Shop, "Zanzibar", number=2)


@pytest.fixture(scope="class")
def _ours(kept: Kept) -> None:
    kept.open("ours", OURS)


@pytest.fixture(scope="class")
def _theirs(kept: Kept) -> None:
    kept.open("theirs", THEIRS)


@pytest.fixture
def ours(_ours: None, db: None, kept: Kept) -> Shop:
    shop: Shop = kept.give("ours", OURS)
    return shop


@pytest.fixture
def theirs(_theirs: None, db: None, kept: Kept) -> Shop:
    shop: Shop = kept.give("theirs", THEIRS)
    return shop
