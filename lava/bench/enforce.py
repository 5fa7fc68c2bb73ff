"""`bench enforce`: more draws of 1 than there are credits, all at once (speed.md, goal 8).

A quarter too many, from 16, 64 and 200 connections: exactly as many pass as there are credits, and
the others get an honest 402. Once by requests with `enforce`, once by holds, of which each that was
let through is then settled.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import httpx

from billing import ids
from billing.models import Hold
from lava.bench import books, load, shop, sides
from lava.bench.options import Options, Say

WIDTHS = (16, 64, 200)


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """Each width and way on a customer of its own."""
    place = shop.fill(1)
    credit = options.requests * 3 // 4
    exact = {200: credit, 402: options.requests - credit}
    ways = [(way, width) for way in (_requests, _holds) for width in WIDTHS]
    targets = [
        shop.customer_with(place, Decimal(credit), number=number)
        for number in range(1, len(ways) + 1)
    ]
    product = sides.product(place, database=database)
    draws = []
    acknowledged = 0
    try:
        for (way, width), target in zip(ways, targets, strict=True):
            statuses, charged = way(product, target, width=width, requests=options.requests)
            name = way.__name__.removeprefix("_")
            say(f"{width:>4} connections, {name:<8} {statuses}")
            acknowledged += charged
            found = books.read(audited=True)
            draws.append({
                "way": name,
                "connections": width,
                "passed": statuses.get(200, 0),
                "refused": statuses.get(402, 0),
                "charged": charged,
                "statuses": statuses,
                "books": asdict(found),
                "hold": (statuses, charged) == (exact, credit)
                and found.hold(acknowledged=acknowledged),
            })  # fmt: skip
    finally:
        product.stop()
    return {
        "requests": options.requests,
        "credit": credit,
        "draws": draws,
        "correct": all(draw["hold"] for draw in draws),
    }


def _requests(
    product: sides.Web, target: str, *, width: int, requests: int
) -> tuple[dict[int, int], int]:
    """What was answered, and how many were charged."""
    outcome: load.Outcome = product.post(
        product.plan(
            f"enforce-{width}-",
            clients=width,
            requests=requests,
            targets=[target],
            fields={"meter_slug": shop.DRAW, "enforce": True},
        )
    )
    return outcome.statuses, outcome.acknowledged


def _holds(
    product: sides.Web, target: str, *, width: int, requests: int
) -> tuple[dict[int, int], int]:
    """Holds of 1, one a draw; then each that was placed is settled by as many callers."""
    outcome: load.Outcome = product.post(
        product.plan(
            f"holds-{width}-",
            clients=width,
            requests=requests,
            targets=[product.shop.key],
            path="/v1/holds",
            fields={"connection_id": target, "amount": "1"},
        )
    )
    placed = Hold.objects.filter(connection_id=ids.parse("con", target), state="open")
    with (
        httpx.Client(
            base_url=f"http://127.0.0.1:{product.port}",
            headers={"Authorization": f"Bearer {product.shop.key}"},
            timeout=60,
        ) as client,
        ThreadPoolExecutor(16) as callers,
    ):

        def settle(hold: Hold) -> int:
            told = {"meter_slug": shop.DRAW}
            return client.post(f"/v1/holds/{hold.public_id}/settle", json=told).status_code

        settled = list(callers.map(settle, placed.select_related("merchant")))
    # A hold that is placed answers 201; beside the requests it is one that passed.
    passed = {200 if status == 201 else status: n for status, n in outcome.statuses.items()}
    return passed, settled.count(200)
