"""A local card network for the checkout's tests, one a worker, empty for each test that asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lava.demo.card_network.process import CardNetwork


@pytest.fixture(scope="session")
def running_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CardNetwork]:
    with CardNetwork(tmp_path_factory.mktemp("network") / "network.sqlite") as network:
        yield network


@pytest.fixture
def network(running_network: CardNetwork, settings: Any) -> CardNetwork:
    settings.STRIPE_API_BASE = running_network.url
    settings.STRIPE_JS_URL = f"{running_network.url}/v3/"
    running_network.control("reset", {})
    return running_network
