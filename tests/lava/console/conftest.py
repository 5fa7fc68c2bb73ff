"""Two businesses side by side, whose people sign in quickly."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lava.console.shop import Shop


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Slow hashes are the product's; what is tested here stands beside them."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def ours(db: None) -> Shop:
    return Shop("Northwind", number=1)


@pytest.fixture
def theirs(db: None) -> Shop:
    return Shop("Zanzibar", number=2)
