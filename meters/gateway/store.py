"""What the gateway asks of the database: two trips a call, over a pool of its own; one more where a
caller is new to the process, or what they may use has changed.

The statements are the functions of `meters/sql/gateway_functions.sql`. The pool is asynchronous and
apart from Django's connections; both go to the same database with the same role. A database that is
away is `errors.Unavailable`, never a free pass.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import psycopg
from django.conf import settings
from django.db import connections
from django.utils import timezone
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from billing import errors, ids, prepared, tasks
from meters import costs
from meters.gateway import callers, outcomes
from meters.gateway.callers import Caller
from meters.gateway.lanes import Lanes
from meters.gateway.tokens import Token

WAIT_S = 3.0
TRIES = 3
# What a settlement is tried again after: nothing of it was written, and it is owed.
FAULTS = (errors.Unavailable, psycopg.Error)


class Stale(Exception):
    """A hold was asked for by what is no longer true: ask who calls again. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a call asks for, as `meters_hold` takes it. The counts are an estimate; `limited`: the
    caller has bounded the output. `cost`: what they cost at the provider, where a fee depends on
    it, and `floor_cost` the input of it alone."""

    provider: str
    own_key: bool
    method: str
    endpoint: str
    model: str
    stream: bool
    disabled: bool
    billed: bool
    input_tokens: int
    output_tokens: int
    characters: int
    seconds: Decimal
    cost: Decimal | None
    floor_cost: Decimal | None
    limited: bool
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a call ended, as `meters_settle` takes it."""

    status: str
    billed: bool
    http_status: int = 0
    error: str = ""
    model: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    characters: int = 0
    seconds: Decimal = Decimal(0)
    cost: costs.Cost | None = None
    flags: Sequence[str] = ()
    received: int = 0
    overhead_ms: int = 0
    first_byte_ms: int = 0
    total_ms: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settlement charged, and the balance after it (None where nobody was charged)."""

    outcome: str
    charged: Decimal
    balance: Decimal | None
    collect: bool
    fell: bool
    connection: UUID | None


def _statement(function: str, answers: str, arguments: int) -> prepared.Statement:
    places = ", ".join(f"${place}" for place in range(1, arguments + 1))
    return prepared.Statement(
        f"lava_{function}",
        f"SELECT {answers} FROM meters_{function}({places})",  # noqa: S608
    )


_CALLER = _statement(
    "caller",
    "outcome, merchant, currency, clock_offset, token, connection, meter, needs_cost,"
    " allowed_models, allowed_providers, providers, keys, prices, epoch",
    4,
)
HOLD = _statement("hold", "outcome, detail, amount, fell", 27)
SETTLE = _statement(
    "settle",
    "outcome, charged, cycle_remaining, bundle_remaining, debt, collect, fell, connection",
    21,
)
BLOCKED = _statement("blocked", "1", 15)
_SEEN = _statement("seen", "1", 4)


class Store:
    """The pool of one process, opened at its first use; one event loop owns it.

    The connection that was used last is used next: its server process has everything at hand, and
    a pool that goes round makes all of them slow (twice the processor time at one call at a time).
    """

    def __init__(self) -> None:
        self._pool: AsyncConnectionPool[Any] | None = None
        self._opening = asyncio.Lock()
        # Connections that are taken from the pool and not in use, the last one on top.
        self._resting: list[psycopg.AsyncConnection[Any]] = []
        # Who waits for the pool to give one.
        self._waiting = 0
        self._lanes = Lanes(settings.GATEWAY_DB_BUSY, wait_s=WAIT_S)

    async def close(self) -> None:
        """Give the connections back."""
        pool, self._pool = self._pool, None
        if pool is not None:
            while self._resting:
                await pool.putconn(self._resting.pop())
            await pool.close()

    async def caller(self, told: Token) -> Caller:
        """Who calls, by their token.

        Raises:
            billing.errors.LavaError: unknown or revoked, paused, expired; no such meter.
        """
        hashed = ids.secret_hash(told.opaque or told.secret_key)
        key_hash = None if told.opaque else hashed
        outcome, *found = await self._one(
            _CALLER, key_hash, hashed if told.opaque else None, told.meter, timezone.now()
        )
        if outcome != "ok":
            raise outcomes.refusal(outcome, "", told.meter)
        return callers.read(found, told, key_hash=key_hash)

    async def hold(
        self, call_id: UUID, caller: Caller, told: Admission, *, again: bool = False
    ) -> Decimal:
        """Let a call through and set aside what it may cost; gives the amount.

        `again`: it was let through before, and a crash of the database took that with it.

        Raises:
            billing.errors.LavaError: as `_refusal`; nothing was written.
            Stale: the caller was kept, and is told otherwise by now; nothing was written.
        """
        outcome, detail, amount, fell = await self._one(
            HOLD, *hold_params(call_id, caller, told, timezone.now(), again=again)
        )
        if outcome == "stale":
            raise Stale
        if outcome != "held":
            if fell and caller.connection is not None:
                hint(tasks.hint_fall, caller.connection, refused=True)
            raise outcomes.refusal(outcome, detail or "", "")
        return Decimal(amount)

    async def blocked(
        self,
        call_id: UUID,
        caller: Caller,
        *,
        provider: str,
        own_key: bool,
        method: str,
        endpoint: str,
        model: str,
        stream: bool,
        http_status: int,
        error: str,
        taken_ms: int,
    ) -> None:
        """Write down a call that was refused before the provider saw it."""
        await self._one(
            BLOCKED,
            call_id,
            caller.merchant,
            caller.token,
            caller.connection,
            caller.meter,
            timezone.now(),
            provider,
            own_key,
            method[:8],
            endpoint[:500],
            model[:120],
            stream,
            http_status,
            error[:80],
            taken_ms,
        )

    async def settle(self, call_id: UUID, told: Settlement) -> Settled:
        """Settle a call, once; said twice, the first time counts. `unknown`: it is not held."""
        return settled(await self._one(SETTLE, *settle_params(call_id, told, timezone.now())))

    async def seen(self, calls: Sequence[tuple[UUID, int, int]]) -> None:
        """Say of running calls that they live: id, output so far, bytes so far."""
        await self._one(
            _SEEN,
            [call for call, _, _ in calls],
            [output for _, output, _ in calls],
            [size for _, _, size in calls],
            timezone.now(),
        )

    async def _one(self, statement: prepared.Statement, *params: Any) -> tuple[Any, ...]:
        """One statement, one row. A deadlock or a serialization failure is tried again."""
        words = prepared.params(*params)
        for attempt in range(1, TRIES + 1):
            try:
                pool = self._pool or await self._open()
                async with self._lanes:
                    link = await self._take(pool)
                    try:
                        return await statement.row_on(link, words)
                    finally:
                        await self._rest(pool, link)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
                if attempt == TRIES:
                    raise _busy() from error
            except (
                psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, TimeoutError,
            ) as error:  # fmt: skip
                raise _busy() from error
        raise AssertionError("unreachable")

    async def _take(self, pool: AsyncConnectionPool[Any]) -> psycopg.AsyncConnection[Any]:
        while self._resting:
            link = self._resting.pop()
            if not _has_word(link):
                return link
            await link.close()
            await pool.putconn(link)
        self._waiting += 1
        try:
            found: psycopg.AsyncConnection[Any] = await pool.getconn()
            return found
        finally:
            self._waiting -= 1

    async def _rest(
        self, pool: AsyncConnectionPool[Any], link: psycopg.AsyncConnection[Any]
    ) -> None:
        """Keep a connection for the next statement; the pool has it where somebody waits there, or
        where it broke or was left in the midst."""
        is_idle = link.pgconn.transaction_status == TransactionStatus.IDLE
        if is_idle and not self._waiting and self._pool is pool:
            self._resting.append(link)
        else:
            await pool.putconn(link)

    async def _open(self) -> AsyncConnectionPool[Any]:
        async with self._opening:
            if self._pool is None:
                params = await asyncio.to_thread(_connection_params)
                pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
                    kwargs=params,
                    min_size=1,
                    max_size=settings.GATEWAY_DB_POOL,
                    timeout=WAIT_S,
                    reconnect_timeout=5,
                    open=False,
                    name="gateway",
                )
                await pool.open()
                self._pool = pool
            return self._pool


def _has_word(link: psycopg.AsyncConnection[Any]) -> bool:
    """Whether a connection that rests has something to say: that its server has ended it."""
    poll = select.poll()
    poll.register(link.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


def hint(wake: Callable[..., None], connection: UUID, **words: bool) -> None:
    """Wake a worker; the broker's client blocks, so not in this loop."""
    asyncio.get_running_loop().run_in_executor(None, lambda: wake(connection, **words))


def hold_params(
    call_id: UUID, caller: Caller, told: Admission, now: datetime, *, again: bool = False
) -> tuple[Any, ...]:
    """The parameters of `HOLD`."""
    return (
        call_id,
        caller.merchant,
        caller.token,
        caller.connection,
        caller.meter,
        now,
        told.provider,
        told.own_key,
        told.method,
        told.endpoint[:500],
        told.model,
        told.stream,
        told.disabled,
        told.billed,
        told.input_tokens,
        told.output_tokens,
        told.characters,
        told.seconds,
        told.cost,
        told.floor_cost,
        None if told.limited else settings.GATEWAY_HOLD_CAP,
        settings.GATEWAY_UNPRICED == "allow",
        timedelta(seconds=settings.GATEWAY_LONGEST_S + 3600),
        _json(told.metadata),
        caller.key_hash,
        caller.epoch,
        again,
    )


def settle_params(call_id: UUID, told: Settlement, now: datetime) -> tuple[Any, ...]:
    """The parameters of `SETTLE`."""
    cost = told.cost
    return (
        call_id,
        now,
        ids.public("req", call_id),
        told.status,
        told.billed,
        told.http_status,
        told.error[:80],
        told.model[:120].replace("\x00", ""),
        _json(told.usage),
        told.input_tokens,
        told.output_tokens,
        told.characters,
        told.seconds,
        cost.amount if cost else None,
        cost.source if cost else None,
        _json(cost.rates if cost else {}),
        list(told.flags),
        told.received,
        told.overhead_ms,
        told.first_byte_ms,
        told.total_ms,
    )


def settled(row: Sequence[Any]) -> Settled:
    """What `SETTLE` answers."""
    outcome, charged, cycle, bundle, debt, collect, fell, connection = row
    return Settled(
        outcome=outcome,
        charged=charged,
        balance=None if cycle is None else cycle + bundle - debt,
        collect=collect,
        fell=fell,
        connection=connection,
    )


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(value)).decode()


def _connection_params() -> dict[str, Any]:
    """Django's parameters for the database, without what is Django's own."""
    params = connections["default"].get_connection_params()
    for name in ("cursor_factory", "context", "pool", "assume_role", "server_side_binding"):
        params.pop(name, None)
    return params | {"autocommit": True}


def _busy() -> errors.Unavailable:
    return errors.Unavailable("The database is away or busy; nothing was sent.", retry_after_s=2)
