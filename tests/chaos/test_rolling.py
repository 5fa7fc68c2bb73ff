"""A restart under load, as a new version of the product is brought in: not one request fails."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import threading
from decimal import Decimal
from http.client import HTTPConnection, HTTPException

import psutil
import pytest

from tests.chaos.shop import CHARGED, Shop, asked, quarrels, rest
from tests.product import Product, eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kills")]

LINES = 6


class Load:
    """Backends that post again and again, each on a line that it keeps, and never say anything
    twice: what fails, fails. `told`: lines closed by the word of an answer; `untold`: without."""

    def __init__(self, shop: Shop, connection: str) -> None:
        self.shop, self.connection = shop, connection
        self.fees: dict[str, Decimal] = {}
        self.failed: list[str] = []
        self.told = self.untold = 0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._post, args=(n,)) for n in range(LINES)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _post(self, number: int) -> None:
        line = HTTPConnection("127.0.0.1", self.shop.product.port, timeout=30)
        headers = {
            "Authorization": f"Bearer {self.shop.backend.key}",
            "Content-Type": "application/json",
        }
        for count in itertools.count():
            # Long enough that a line is at rest most of the time.
            if self.over.wait(0.02):
                break
            if line.sock is not None and is_closed(line.sock):
                self.untold += 1
                line.close()
            name = f"rolling-{number}-{count}"
            body = {"request_id": name, "connection_id": self.connection, "meter_slug": "chat",
                    "input_tokens": 1}  # fmt: skip
            try:
                line.request("POST", "/v1/requests", json.dumps(body), headers)
                answer = line.getresponse()
                said = answer.read()
            except (OSError, HTTPException) as error:
                self.failed.append(repr(error))
                line.close()
                continue
            self.told += answer.will_close
            if answer.status == 200:
                self.fees[name] = Decimal(json.loads(said)["fee"]["amount"])
            else:
                self.failed.append(said.decode())
        line.close()


def is_closed(line: socket.socket) -> bool:
    """Whether the other side has closed a line that is at rest."""
    readable, _, _ = select.select([line], [], [], 0)
    return bool(readable)


def workers(product: Product) -> set[int]:
    return {child.pid for child in psutil.Process(product.child("web")).children()}


def test_a_rolling_restart_under_load_fails_no_request(product: Product) -> None:
    shop = Shop(product)
    connection = shop.subscribe("+14155550180")
    old = workers(product)
    assert len(old) == 2
    with Load(shop, connection) as load:
        eventually(lambda: len(load.fees) > 50)
        os.kill(product.child("web"), signal.SIGHUP)
        eventually(lambda: not old & workers(product), within_s=60)
        done = len(load.fees)
        eventually(lambda: len(load.fees) > done + 50)
    assert load.failed == []
    # A line that is closed untold fails a request that is on its way.
    assert load.untold == 0 and load.told >= LINES
    stored = {name: Decimal(fee) for name, fee in asked(product, CHARGED)}
    assert {name: stored[name] for name in load.fees} == load.fees
    rest(product)
    assert quarrels(product) == ""
