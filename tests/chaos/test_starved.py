"""What the product lives on runs out or stands still: disk, connections, database, broker.

Meanwhile the API says "try again" in its envelope, or does without; afterwards, with nobody's help,
what was acknowledged is there once, and the audit is silent.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.chaos.shop import Shop, acknowledged, quarrels, rest, taken
from tests.product import Product, eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("starved")]

GO = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lava_app'"
# How soon the service must be back by itself.
RECOVERY_S = 10
ANSWER_S = 5
DISK = 240 << 20
PHONES = itertools.count(14155550400)
CAN_MOUNT = os.geteuid() == 0 and shutil.which("mount") is not None


class Confined(Product):
    """A product whose database has a small disk of its own, where this machine lets us make one."""

    @property
    def disk(self) -> Path:
        return self.state / "postgres"

    def start(self) -> None:
        if CAN_MOUNT and not self.disk.exists():
            self.disk.mkdir()
            options = f"size={DISK},mode=755"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.disk], check=True)
        super().start()

    def remove(self) -> None:
        self.stop()
        if CAN_MOUNT:
            subprocess.run(["umount", self.disk], check=True)
        super().remove()

    @property
    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.disk / "data/postmaster.pid").read_text().split()[0]))

    def ask(self, user: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of our own."""
        return psycopg.connect(
            host=str(self.disk / "socket"), user=user, dbname="lava", autocommit=True
        )


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    product = Confined("--no-demo", env={"LAVA_ANSWER_S": str(ANSWER_S)})
    try:
        yield Shop(product)
    finally:
        product.remove()


def product_of(shop: Shop) -> Confined:
    assert isinstance(shop.product, Confined)
    return shop.product


def customer(shop: Shop) -> str:
    return shop.subscribe(f"+{next(PHONES)}")


def post(shop: Shop, connection: str, request_id: str, tokens: int = 1000) -> httpx.Response:
    """Usage, said once; of a thousand tokens it costs 0.003."""
    return httpx.post(
        f"{shop.product.url}/v1/requests",
        json={"request_id": request_id, "connection_id": connection, "meter_slug": "chat",
              "input_tokens": tokens},
        headers={"Authorization": f"Bearer {shop.backend.key}"},
        timeout=ANSWER_S + 15,
    )  # fmt: skip


def told_to_try_again(answer: httpx.Response) -> bool:
    """Whether it was refused as what is busy is: 503, the envelope, when to come again."""
    if answer.is_success:
        return False
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "unavailable"), answer.text
    assert error["message"] and error["request_id"] and int(answer.headers["Retry-After"]) >= 1
    return True


def comes_back(shop: Shop, connection: str, posted: list[str]) -> None:
    """It takes what it refused within seconds; then all that was posted is there, once."""
    start = time.monotonic()
    for request_id in posted:
        shop.use(connection, request_id, 1000)
    assert time.monotonic() - start < RECOVERY_S
    path = f"connections/{connection}/balance"
    left = acknowledged(shop.product, shop.backend.key, path)["total_remaining"]
    assert Decimal(left) == 25 - Decimal("0.003") * len(posted)
    rest(shop.product)
    assert quarrels(shop.product) == ""


@contextmanager
def frozen(*processes: psutil.Process) -> Iterator[None]:
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def test_a_frozen_database_is_an_answer_in_time(shop: Shop) -> None:
    connection = customer(shop)
    posted = [f"frozen-{n}" for n in range(3)]
    assert post(shop, connection, posted[0]).is_success
    main = product_of(shop).postmaster
    with frozen(main, *main.children()):
        start = time.monotonic()
        assert told_to_try_again(post(shop, connection, posted[1]))
        assert time.monotonic() - start < ANSWER_S + 3
    comes_back(shop, connection, posted)


def test_a_frozen_broker_holds_up_no_answer(shop: Shop) -> None:
    connection = customer(shop)
    before = len(taken(shop.product))
    with frozen(psutil.Process(shop.product.child("broker"))):
        # Over the threshold: its card is to be charged, by a worker that cannot be woken.
        for n in range(4):
            start = time.monotonic()
            assert post(shop, connection, f"broker-{n}", 3_000_000).is_success
            assert time.monotonic() - start < ANSWER_S
    eventually(lambda: len(taken(shop.product)) == before + 1, within_s=30)
    rest(shop.product)
    assert len(taken(shop.product)) == before + 1
    assert quarrels(shop.product) == ""


def test_no_connection_left_is_said_and_passes(shop: Shop) -> None:
    product, connection = product_of(shop), customer(shop)
    posted = [f"crowded-{n}" for n in range(6)]
    with ExitStack() as crowd:
        # The last ones are kept for the superuser: the product's own go, and others take them.
        keeper = crowd.enter_context(product.ask())
        refused = 0
        while refused < 5:
            try:
                crowd.enter_context(product.ask("lava_owner"))
            except psycopg.OperationalError:
                refused += 1
                keeper.execute(GO)
                time.sleep(0.05)
        answers = [post(shop, connection, name) for name in posted]
        assert all(told_to_try_again(answer) for answer in answers)
    comes_back(shop, connection, posted)


@pytest.mark.skipif(not CAN_MOUNT, reason="A small disk can only be mounted by root.")
def test_a_full_disk_refuses_and_loses_nothing(shop: Shop) -> None:
    product, connection = product_of(shop), customer(shop)
    filler = product.disk / "filler"
    try:
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"\0" * (1 << 16))
        # Pages that are there take a few more.
        posted = []
        while len(posted) < 400:
            posted.append(f"full-{len(posted)}")
            if told_to_try_again(post(shop, connection, posted[-1])):
                break
        assert len(posted) < 400
        # Its log is full too: it gives up, and cannot start.
        with pytest.raises(psycopg.Error), product.ask() as link:
            for _ in range(40):
                link.execute("SELECT pg_switch_wal(), pg_logical_emit_message(true, '', 'x')")
        posted.append("panic")
        assert told_to_try_again(post(shop, connection, posted[-1]))
    finally:
        filler.unlink()
    comes_back(shop, connection, posted)
