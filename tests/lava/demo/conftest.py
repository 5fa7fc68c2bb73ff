"""The local card network for the tests of itself: the worker's own, empty for each module."""

from __future__ import annotations

import pytest

from lava.demo.card_network.process import CardNetwork


@pytest.fixture(scope="module")
def network(running_card_network: CardNetwork) -> CardNetwork:
    running_card_network.control("reset", {})
    return running_card_network
