"""The floor of `bench gateway`: what a call asks of the database, by pgbench."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.utils import timezone

from billing import ids, prepared
from lava.bench import shop, sides
from lava.bench.called import MODEL
from meters import costs
from meters.gateway import tokens as spoken
from meters.gateway.callers import Caller
from meters.gateway.store import (
    HOLD,
    SETTLE,
    Admission,
    Settlement,
    Store,
    hold_params,
    settle_params,
)
from meters.models import ForwardToken


class Floor:
    """pgbench: both trips of a call, with the parameters that the product gives them."""

    name, says = "floor", "pgbench, the hold and the settlement of a call as prepared statements"
    ways: Sequence[str] = ("load", "one")

    def __init__(self, place: shop.Shop, *, database: int, tokens: list[str]) -> None:
        self.place = place
        self.caller = asyncio.run(_caller(tokens[0]))
        self.pgbench = sides.Floor(says=self.says, script=self.script, database=database)

    def sample(self, tag: str, *, clients: int, seconds: float, stream: bool) -> sides.Sample:
        return self.pgbench.run(tag, seconds=seconds, clients=clients)

    def script(self, tag: str) -> str:
        """What each pgbench client does again and again: a call is one of its transactions, and two
        of the database's."""
        now = timezone.now()
        call = ids.new(sandbox=False)
        rows = ForwardToken.objects.filter(merchant=self.place.merchant).order_by("pk")
        each = [(str(row.pk), str(row.connection_id), str(row.meter_id)) for row in rows]
        token, connection, meter = (
            f"('{{{','.join(column)}}}'::uuid[])[:n + 1]" for column in zip(*each, strict=True)
        )
        # Ids of their own, as ordered as the product's.
        number = f"'{call.hex[:20]}' || lpad(to_hex(:client_id::int), 3, '0')"
        number = f"({number} || lpad(to_hex(:i::int), 9, '0'))::uuid"
        hold = hold_params(
            call,
            self.caller,
            Admission(
                provider="bench", own_key=False, method="POST", endpoint="/v1/chat/completions",
                model=MODEL, stream=False, disabled=False, billed=True, input_tokens=18,
                output_tokens=64, characters=0, seconds=Decimal(0), cost=None, floor_cost=None,
                limited=True, metadata={},
            ),
            now,
        )  # fmt: skip
        settle = settle_params(
            call,
            Settlement(
                status="completed", billed=True, http_status=200, model=MODEL,
                usage={"input": 12, "output": 64}, input_tokens=12, output_tokens=64,
                cost=costs.Cost(Decimal("0.0000402"), "library", MODEL, {"input": "0.15"}),
                received=600, overhead_ms=1, first_byte_ms=2, total_ms=3,
            ),
            now,
        )  # fmt: skip
        lines = [
            f"\\set n random(0, {len(each) - 1})",
            "\\set i :i + 1",
            _with(HOLD.sql, hold, {1: number, 3: token, 4: connection, 5: meter, 6: "now()"}),
            _with(SETTLE.sql, settle, {1: number, 2: "now()", 3: f"'req_' || {number}"}),
        ]
        return "\n".join(lines) + "\n"

    def stop(self) -> None:
        """Nothing runs between its rounds."""


async def _caller(token: str) -> Caller:
    """Who calls with a token."""
    asked = Store()
    try:
        told, _ = spoken.find({b"authorization": f"Bearer {token}".encode()}, "")
        return await asked.caller(told)
    finally:
        await asked.close()


def _with(sql: str, values: Sequence[Any], instead: Mapping[int, str]) -> str:
    """A statement with its parameters in it as constants; some as other expressions."""

    def said(match: re.Match[str]) -> str:
        place = int(match[1])
        if place in instead:
            return instead[place]
        (words,) = prepared.params(values[place - 1])
        return "NULL" if words is None else "'" + words.decode().replace("'", "''") + "'"

    return re.sub(r"\$(\d+)", said, sql) + ";"
