"""Kill -9 in the middle of it: afterwards everything is as if nothing had died.

The clients retry until they are answered, as backends do; then every acknowledged request is in the
books once, every card charge is at the card network once, and the audit is silent.
"""

from __future__ import annotations

import json
import os
import signal
import time
from decimal import Decimal

import httpx
import pytest

from tests.chaos import storm
from tests.chaos.shop import Shop, quarrels, taken
from tests.product import Product, eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kills")]

# The short form; the long one is `manage.py chaos --minutes 30`.
SHORT_S = 30


@pytest.fixture
def shop(product: Product) -> Shop:
    return Shop(product)


def test_a_storm_of_kills_loses_and_doubles_nothing() -> None:
    with storm.empty_product() as product:
        report = storm.Storm(product, seed=7).play(SHORT_S)
    told = "\n".join(report.lines())
    assert report.is_clean, told
    # It did storm, however busy the machine is.
    assert report.acknowledged and report.months and report.kills["database"], told


def test_each_detector_of_the_storm_goes_red_when_it_must() -> None:
    """The controls: what is lost, double or off by a last digit is seen, each by its own name."""
    with storm.empty_product() as product:
        played = storm.Storm(product, seed=3)
        report = played.play(4)
        assert report.is_clean and report.acknowledged > 2, "\n".join(report.lines())
        json.dumps(vars(report))
        seen = []
        for fault in ("drift", "double", "lost"):
            storm.spoil(product, fault)
            played.count()
            seen.append((report.lost, report.double, bool(report.drift)))
    assert seen == [(0, 0, True), (0, 1, True), (1, 1, True)], seen


def test_a_worker_killed_while_it_charges_overage_charges_once(
    product: Product, shop: Shop
) -> None:
    connection = shop.subscribe("+14155550102")
    before = len(taken(product))
    network = product.facts["card_network"]["url"]
    # The network takes the charge and the line drops: nobody was told.
    httpx.post(
        f"{network}/_control/faults",
        json={"action": "drop", "method": "POST", "path": "/v1/payment_intents", "times": 1},
    ).raise_for_status()
    shop.use(connection, "over", 12_000_000)
    eventually(lambda: len(taken(product)) == before + 1)
    os.kill(product.child("worker"), signal.SIGKILL)

    def paid() -> bool:
        due = shop.backend.get(f"connections/{connection}/balance")["overage_due"]
        return Decimal(due) == 0

    # The sweep asks about it half a minute later, or the network's event tells at once.
    eventually(paid, within_s=90)
    charged = taken(product)
    assert len(charged) == before + 1
    assert charged[0]["amount"] == 1100
    assert quarrels(product) == ""


def test_a_worker_that_beats_renews_on_the_sandboxs_clock_though_it_is_killed(
    product: Product, shop: Shop
) -> None:
    connection = shop.subscribe("+14155550103")
    before = len(taken(product))
    shop.backend.post("test_helpers/clock/advance", to_next_renewal=True, run=False)
    os.kill(product.child("worker"), signal.SIGKILL)
    balance = eventually(
        lambda: [
            left
            for left in [shop.backend.get(f"connections/{connection}/balance")]
            if left["total_remaining"] == "50.0000000000"
        ],
        within_s=90,
    )
    assert balance[0]["overage_due"] == "0.0000000000"
    time.sleep(6)
    assert len(taken(product)) == before + 1
    assert quarrels(product) == ""
