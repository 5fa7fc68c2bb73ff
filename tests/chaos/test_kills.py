"""Kill -9 in the middle of it: afterwards everything is as if nothing had died.

The clients retry until they are answered, as backends do; then every acknowledged request is in the
books once, every card charge is at the card network once, and the audit is silent.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from decimal import Decimal
from typing import Any

import httpx
import psutil
import pytest

from tests.product import Backend, Product, eventually

pytestmark = pytest.mark.xdist_group("product")

SHOP = """
import json
from tests import factories
merchant = factories.make_merchant()
plan = factories.make_plan(merchant)
factories.make_meter(merchant, plan)
print(json.dumps({"key": factories.make_key(merchant), "plan": plan.public_id}))
"""


@pytest.fixture
def shop(product: Product) -> Any:
    """A merchant with a plan of 25 and its own backend."""
    made = product.manage("shell", "-v", "0", "-c", SHOP)
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout.strip().splitlines()[-1])

    class Shop:
        backend = Backend(product, facts["key"])
        plan = facts["plan"]

        def subscribe(self, phone: str, card: str = "4242424242424242") -> str:
            session = self.backend.post(
                "checkout_sessions",
                checkout_mode="subscription",
                origin_url="https://app.example",
                subscription_config_id=self.plan,
            )
            path = f"test_helpers/checkout_sessions/{session['checkout_session_id']}/complete"
            connection: str = self.backend.post(path, phone=phone, card=card)["connection_id"]
            return connection

    return Shop()


def post_until_acknowledged(product: Product, key: str, body: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(
                f"{product.url}/v1/requests",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
                timeout=10,
            )
        except httpx.HTTPError:
            time.sleep(0.1)
            continue
        if answer.status_code == 200:
            told: dict[str, Any] = answer.json()
            return told
        assert answer.status_code in (500, 503), answer.text
        assert answer.json()["error"]["code"], answer.text
        time.sleep(0.1)
    raise AssertionError("never acknowledged\n" + product.output())


def charges(product: Product, **query: str) -> list[dict[str, Any]]:
    """What the card network took."""
    answer = httpx.get(
        f"{product.facts['card_network']['url']}/v1/payment_intents",
        params={"limit": "100"} | query,
        headers={"Authorization": "Bearer sk_test_local"},
    )
    return [row for row in answer.json()["data"] if row["status"] == "succeeded"]


def assert_the_audit_is_silent(product: Product) -> None:
    found = product.manage("audit")
    if "Unknown command" in found.stderr:
        return
    assert (found.returncode, found.stdout.strip()) == (0, ""), found.stdout + found.stderr


def test_killed_web_workers_and_databases_lose_and_double_nothing(
    product: Product, shop: Any
) -> None:
    connection = shop.subscribe("+14155550101")
    count, told = 240, []
    stop = threading.Event()

    def client(offset: int) -> None:
        for number in range(offset, count, 4):
            body = {
                "request_id": f"chaos-{number}",
                "connection_id": connection,
                "meter_slug": "chat",
                "input_tokens": 1000,
            }
            told.append(post_until_acknowledged(product, shop.backend.key, body))

    def killer() -> None:
        for turn in range(6):
            if stop.wait(1.5):
                return
            if turn % 2:
                try:
                    workers = psutil.Process(product.child("web")).children(recursive=True)
                    workers[turn % len(workers)].kill()
                except (psutil.NoSuchProcess, IndexError, ZeroDivisionError):
                    continue
            else:
                pid = int((product.state / "postgres/data/postmaster.pid").read_text().split()[0])
                os.kill(pid, signal.SIGKILL)

    threads = [threading.Thread(target=client, args=(offset,)) for offset in range(4)]
    terror = threading.Thread(target=killer)
    for thread in [*threads, terror]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    terror.join()
    assert len(told) == count
    eventually(lambda: httpx.get(f"{product.url}/readyz").status_code == 200)
    balance = shop.backend.get(f"connections/{connection}/balance")
    assert Decimal(balance["total_remaining"]) == 25 - count * Decimal("0.003")
    assert_the_audit_is_silent(product)


def test_a_worker_killed_while_it_charges_overage_charges_once(product: Product, shop: Any) -> None:
    connection = shop.subscribe("+14155550102")
    before = len(charges(product))
    network = product.facts["card_network"]["url"]
    # The network takes the charge and the line drops: nobody was told.
    httpx.post(
        f"{network}/_control/faults",
        json={"action": "drop", "method": "POST", "path": "/v1/payment_intents", "times": 1},
    ).raise_for_status()
    post_until_acknowledged(
        product,
        shop.backend.key,
        {
            "request_id": "over",
            "connection_id": connection,
            "meter_slug": "chat",
            "input_tokens": 12_000_000,
        },
    )
    eventually(lambda: len(charges(product)) == before + 1)
    os.kill(product.child("worker"), signal.SIGKILL)

    def paid() -> bool:
        due = shop.backend.get(f"connections/{connection}/balance")["overage_due"]
        return Decimal(due) == 0

    # The sweep asks about it half a minute later, or the network's event tells at once.
    eventually(paid, within_s=90)
    taken = charges(product)
    assert len(taken) == before + 1
    assert taken[0]["amount"] == 1100
    assert_the_audit_is_silent(product)


def test_beat_and_worker_renew_on_the_sandboxs_clock_whatever_is_killed(
    product: Product, shop: Any
) -> None:
    connection = shop.subscribe("+14155550103")
    before = len(charges(product))
    shop.backend.post("test_helpers/clock/advance", to_next_renewal=True, run=False)
    os.kill(product.child("worker"), signal.SIGKILL)
    os.kill(product.child("beat"), signal.SIGKILL)
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
    assert len(charges(product)) == before + 1
    assert_the_audit_is_silent(product)
