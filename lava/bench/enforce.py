"""`bench enforce`: more draws of 1 than there are credits, all at once (speed.md, goal 8).

A quarter too many, with `enforce`, from 16, 64 and 200 connections: exactly as many pass as there
are credits, and the others get an honest 402.
"""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from typing import Any

from lava.bench import books, shop, sides
from lava.bench.options import Options, Say

WIDTHS = (16, 64, 200)


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """Each width on a customer of its own."""
    place = shop.fill(1)
    credit = options.requests * 3 // 4
    targets = [
        shop.customer_with(place, Decimal(credit), number=number)
        for number in range(1, len(WIDTHS) + 1)
    ]
    product = sides.product(place, database=database)
    draws = []
    acknowledged = 0
    try:
        for width, target in zip(WIDTHS, targets, strict=True):
            outcome = product.post(
                product.plan(
                    f"enforce-{width}-",
                    clients=width,
                    requests=options.requests,
                    targets=[target],
                    fields={"meter_slug": shop.DRAW, "enforce": True},
                )
            )
            say(f"{width:>4} connections {outcome.statuses}")
            acknowledged += outcome.acknowledged
            found = books.read(audited=True)
            exact = outcome.statuses == {200: credit, 402: options.requests - credit}
            draws.append({
                "connections": width,
                "passed": outcome.statuses.get(200, 0),
                "refused": outcome.statuses.get(402, 0),
                "statuses": outcome.statuses,
                "books": asdict(found),
                "hold": exact and found.hold(acknowledged=acknowledged),
            })  # fmt: skip
    finally:
        product.stop()
    return {
        "requests": options.requests,
        "credit": credit,
        "draws": draws,
        "correct": all(draw["hold"] for draw in draws),
    }
