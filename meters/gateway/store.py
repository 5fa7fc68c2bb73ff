"""What the gateway asks of the database: two trips a call, over a pool of its own; one more where a
caller is new to the process, or what they may use has changed.

The statements are the functions of `meters/sql/gateway_functions.sql`. The pool is asynchronous and
apart from Django's connections; both go to the same database with the same role. A database that is
away is `errors.Unavailable`, never a free pass.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections import OrderedDict
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
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from billing import errors, ids, prepared, tasks
from meters import costs
from meters.gateway import providers
from meters.gateway.tokens import Token

WAIT_S = 3.0
TRIES = 3
# Callers that a process keeps.
KEPT = 1024


class Stale(Exception):
    """A hold was asked for by what is no longer true: ask who calls again. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, and what they may use."""

    merchant: UUID
    currency: str
    clock_offset: timedelta
    token: UUID | None
    connection: UUID | None
    meter: UUID | None
    # The meter asks for a share of the provider's cost, or for the cost itself.
    needs_cost: bool
    allowed_models: list[str] | None
    allowed_providers: list[str] | None
    own: tuple[providers.Provider, ...]
    # By provider: the origin a key was entered for, and the key, sealed.
    keys: Mapping[str, tuple[str, str]] = field(repr=False)
    overrides: tuple[costs.Override, ...]
    # What a hold looks at again, for a caller that was kept.
    key_hash: bytes | None = field(repr=False)
    epoch: int


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
    """The pool of one process, opened at its first use; one event loop owns it."""

    def __init__(self) -> None:
        self._pool: AsyncConnectionPool[Any] | None = None
        self._opening = asyncio.Lock()
        self._kept: OrderedDict[tuple[Any, ...], Caller] = OrderedDict()

    async def close(self) -> None:
        """Give the connections back."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def kept(self, told: Token) -> Caller | None:
        """Who calls, as it was last told here: true if a hold takes it."""
        found = self._kept.get(_kept_by(told))
        if found is not None:
            self._kept.move_to_end(_kept_by(told))
        return found

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
            raise _refusal(outcome, "", told.meter)
        (merchant, currency, clock_offset, token, connection, meter, needs_cost, allowed_models,
         allowed_providers, own, keys, prices, epoch) = found  # fmt: skip
        caller = Caller(
            merchant=merchant,
            currency=currency,
            clock_offset=clock_offset,
            token=token,
            connection=connection or told.connection,
            meter=meter,
            needs_cost=needs_cost or False,
            allowed_models=allowed_models,
            allowed_providers=allowed_providers,
            own=_own(own),
            keys=_keys(keys),
            overrides=_overrides(prices),
            key_hash=key_hash,
            epoch=epoch,
        )
        # A sandbox's clock is moved by hand.
        if not told.is_sandbox:
            self._kept[_kept_by(told)] = caller
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return caller

    async def hold(
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
        disabled: bool,
        billed: bool,
        input_tokens: int,
        output_tokens: int,
        characters: int,
        seconds: Decimal,
        cost: Decimal | None,
        floor_cost: Decimal | None,
        limited: bool,
        metadata: Mapping[str, str],
        again: bool = False,
    ) -> Decimal:
        """Let a call through and set aside what it may cost; gives the amount.

        `again`: it was let through before, and a crash of the database took that with it.

        Raises:
            billing.errors.LavaError: as `_refusal`; nothing was written.
            Stale: the caller was kept, and is told otherwise by now; nothing was written.
        """
        outcome, detail, amount, fell = await self._one(
            HOLD,
            call_id,
            caller.merchant,
            caller.token,
            caller.connection,
            caller.meter,
            timezone.now(),
            provider,
            own_key,
            method,
            endpoint[:500],
            model,
            stream,
            disabled,
            billed,
            input_tokens,
            output_tokens,
            characters,
            seconds,
            cost,
            floor_cost,
            None if limited else settings.GATEWAY_HOLD_CAP,
            settings.GATEWAY_UNPRICED == "allow",
            timedelta(seconds=settings.GATEWAY_LONGEST_S + 3600),
            _json(metadata),
            caller.key_hash,
            caller.epoch,
            again,
        )
        if outcome == "stale":
            raise Stale
        if outcome != "held":
            if fell and caller.connection is not None:
                hint(tasks.hint_fall, caller.connection, refused=True)
            raise _refusal(outcome, detail or "", "")
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
                link = await pool.getconn()
                try:
                    return await statement.row_on(link, words)
                finally:
                    await pool.putconn(link)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
                if attempt == TRIES:
                    raise _busy() from error
            except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
                raise _busy() from error
        raise AssertionError("unreachable")

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


def hint(wake: Callable[..., None], connection: UUID, **words: bool) -> None:
    """Wake a worker; the broker's client blocks, so not in this loop."""
    asyncio.get_running_loop().run_in_executor(None, lambda: wake(connection, **words))


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


def _kept_by(told: Token) -> tuple[Any, ...]:
    """What of a token says who calls: by its hash, so that no secret stays in memory for it."""
    hashed = ids.secret_hash(told.opaque or told.secret_key)
    return bool(told.opaque), hashed, told.connection, told.meter


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(value)).decode()


def _connection_params() -> dict[str, Any]:
    """Django's parameters for the database, without what is Django's own."""
    params = connections["default"].get_connection_params()
    for name in ("cursor_factory", "context", "pool", "assume_role", "server_side_binding"):
        params.pop(name, None)
    return params | {"autocommit": True}


@functools.lru_cache(maxsize=256)
def _own(text: str | None) -> tuple[providers.Provider, ...]:
    """The merchant's rows, out of their JSON."""
    return tuple(
        providers.Provider(
            slug=row["slug"],
            name=row["name"],
            host=row["host"],
            paths=(row["path"],),
            dialect=row["dialect"],
            slot=row["slot"],
            prices=row["prices"],
            asks_usage=row["asks_usage"],
            scheme=row["scheme"],
            port=row["port"],
            own=True,
            private=row["private"],
            long_running=row["long_running"],
        )
        for row in orjson.loads(text or "[]")
    )


def _keys(text: str | None) -> dict[str, tuple[str, str]]:
    return {slug: (origin, sealed) for slug, (origin, sealed) in orjson.loads(text or "{}").items()}


@functools.lru_cache(maxsize=256)
def _overrides(text: str | None) -> tuple[costs.Override, ...]:
    # Rates are money: never through a float.
    rows = json.loads(text or "[]", parse_float=Decimal)
    return tuple(
        costs.override(row | {"valid_from": datetime.fromisoformat(row["valid_from"])})
        for row in rows
    )


def _busy() -> errors.Unavailable:
    return errors.Unavailable("The database is away or busy; nothing was sent.", retry_after_s=2)


def _refusal(outcome: str, detail: str, meter: str) -> errors.LavaError:
    """The error for an outcome of `meters_caller` or `meters_hold`; nothing was written."""
    if outcome == "insufficient_credits":
        return errors.PaymentRequired(
            f"The credits left ({Decimal(detail):f}) do not cover this call.", available=detail
        )
    if outcome == "meter_not_found":
        return errors.NotFound(f"There is no meter {meter!r}.", code=outcome, param="meter_slug")
    if outcome == "meter_not_on_plan":
        return errors.Forbidden(
            f"The meter {detail!r} is not active for this connection: attach it to the "
            "connection's plan, or subscribe the customer to a plan that has it.",
            code=outcome,
        )
    if outcome == "rate_limited":
        return errors.Throttled(
            "This token's limit of calls a minute is reached.",
            code=outcome,
            retry_after_s=float(detail),
        )
    kind, words = _WORDS[outcome]
    return kind(words, code="invalid_key" if outcome == "unauthenticated" else outcome)


_WORDS: dict[str, tuple[type[errors.LavaError], str]] = {
    "unauthenticated": (errors.Unauthenticated, "The key is not valid."),
    "token_expired": (errors.Unauthenticated, "This token has expired."),
    "token_paused": (errors.Forbidden, "This token is paused."),
    "connection_not_found": (errors.NotFound, "No such connection."),
    "connection_disabled": (errors.Forbidden, "This connection is disabled."),
    "past_due": (
        errors.PaymentRequired,
        "The subscription is past due and its grace period is over.",
    ),
    "cost_unknown": (
        errors.Refused,
        "This meter takes a share of the provider's cost, and the price of this model is not "
        "known: add it under Gateway, Prices.",
    ),
    "amount_too_large": (errors.Refused, "The fee would pass 12 digits; check the limits."),
    "spend_limit_reached": (errors.PaymentRequired, "This token's spend limit is reached."),
    "request_limit_reached": (errors.PaymentRequired, "This token's limit of calls is reached."),
}
