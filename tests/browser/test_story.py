"""The main job, end to end: a merchant in the console, their backend with the official Node client,
a customer in Chromium alone and in the official package's iframe, a worker that beats."""

from __future__ import annotations

import functools
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser import customer, merchant
from tests.product import Backend, Product, eventually

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("product")]


@pytest.fixture(scope="module")
def parent_page(clients_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The merchant's own site, with the official checkout package, on an origin of its own."""
    folder = tmp_path_factory.mktemp("parent")
    subprocess.run(
        [
            str(clients_dir / "node_modules/.bin/esbuild"),
            str(clients_dir / "parent.jsx"),
            "--bundle",
            f"--outfile={folder / 'parent.js'}",
            "--define:process.env.NODE_ENV='production'",
            "--log-level=error",
        ],
        check=True,
    )
    (folder / "index.html").write_text(
        '<!doctype html><div id="root"></div><script src="parent.js"></script>'
    )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}"
        server.shutdown()


class Node:
    """The merchant's backend, in the official client's words."""

    def __init__(self, node: str, folder: Path, key: str, url: str) -> None:
        self.command = [node, str(folder / "run.cjs")]
        self.told = {"client": "@lavapayments/nodejs", "key": key, "baseUrl": f"{url}/v1/"}

    def __call__(self, method: str, *args: Any) -> Any:
        done = subprocess.run(
            self.command,
            input=json.dumps(self.told | {"calls": [[method, args]]}),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        (answer,) = json.loads(done.stdout)
        return answer.get("ok", answer.get("error"))


def taken(product: Product) -> list[dict[str, Any]]:
    """What the card network really took, newest first."""
    answer = httpx.get(
        f"{product.facts['card_network']['url']}/v1/payment_intents",
        params={"limit": "100"},
        headers={"Authorization": "Bearer sk_test_local"},
    )
    return [row for row in answer.json()["data"] if row["status"] == "succeeded"]


def test_the_main_job(
    empty_product: Product,
    page: Page,
    parent_page: str,
    node_path: str,
    clients_dir: Path,
) -> None:
    product = empty_product
    # 1. The merchant: first run, a meter, a plan, a key.
    merchant.first_run(page, product, business="Northwind Voice")
    merchant.make_meter(page, product)
    plan_id = merchant.make_plan(page, product)
    key = merchant.make_key(page, product)
    backend = Backend(product, key)
    lava = Node(node_path, clients_dir, key, product.url)

    # 2. A customer pays in the iframe that the official package makes.
    session = lava(
        "checkoutSessions.create",
        {
            "checkout_mode": "subscription",
            "origin_url": parent_page,
            "subscription_config_id": plan_id,
        },
    )
    token = session["checkout_session_token"]
    page.goto(f"{parent_page}/?token={token}")
    page.get_by_role("button", name="Subscribe").click()
    frame = page.frame_locator("iframe")
    customer.confirm_phone(frame, backend, "+14155550142")
    customer.pay(frame, name="Mara Lindqvist", email="mara@tallgrass.example")
    told = page.locator("#told")
    expect(told).to_have_text(re.compile("^success"), timeout=20_000)
    _, session_id, connection_id = told.inner_text().split()
    assert session_id == session["checkout_session_id"]
    assert [row["amount"] for row in taken(product)] == [2500]
    balance = backend.get(f"connections/{connection_id}/balance")
    assert balance["total_remaining"] == "25.0000000000"

    # 3. Usage, with the client: priced with slices; again; in conflict.
    body = {
        "request_id": "job-1",
        "connection_id": connection_id,
        "meter_slug": "chat",
        "input_tokens": 3_000_000,
        "output_tokens": 1_000_000,
    }
    first = lava("requests.create", body)
    assert first["fee"]["amount"] == "12.0000000000"
    assert first["balance"]["total_remaining"] == "13.0000000000"
    assert lava("requests.create", body) == first
    assert "409" in lava("requests.create", body | {"output_tokens": 2})

    # 4. Credits run out: overage, and the card is charged at the threshold, once, by a worker.
    over = lava("requests.create", body | {"request_id": "job-2", "input_tokens": 8_000_000})
    assert [part["cost"] for part in over["fee"]["breakdown"]] == ["18.0000000000", "6.0000000000"]
    assert over["balance"]["overage_due"] == "11.0000000000"
    eventually(lambda: len(taken(product)) == 2)
    assert taken(product)[0]["amount"] == 1100
    eventually(
        lambda: backend.get(f"connections/{connection_id}/balance")["overage_due"] == "0.0000000000"
    )

    # 5. A month passes on the sandbox's clock: the worker renews.
    backend.post("test_helpers/clock/advance", to_next_renewal=True, run=False)
    eventually(
        lambda: (
            backend.get(f"connections/{connection_id}/balance")["cycle_remaining"]
            == "25.0000000000"
        )
    )
    assert [row["amount"] for row in taken(product)] == [2500, 1100, 2500]
    lava("requests.create", body | {"request_id": "job-3", "input_tokens": 0})
    backend.post("test_helpers/clock/advance", to_next_renewal=True)
    left = backend.get(f"connections/{connection_id}/balance")
    assert Decimal(left["total_remaining"]) == 23 + 25
    audit = product.manage("audit")
    assert (audit.returncode, audit.stdout) == (0, ""), audit.stdout + audit.stderr
    explained = product.manage("explain", connection_id)
    assert explained.returncode == 0 and "48.00" in explained.stdout, explained.stdout
