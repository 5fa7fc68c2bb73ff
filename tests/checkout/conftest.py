"""The local card network under the name the checkout's tests call it."""

from __future__ import annotations

import pytest

from lava.demo.card_network.process import CardNetwork


@pytest.fixture
def network(card_network: CardNetwork) -> CardNetwork:
    return card_network
