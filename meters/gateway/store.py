"""What the gateway asks of the database: three trips a call, over a pool of its own.

The statements are the functions of `meters/sql/gateway.sql`. The pool is asynchronous and apart
from Django's connections; both go to the same database with the same role. A database that is away
is `errors.Unavailable`, never a free pass.
"""

from __future__ import annotations

import asyncio
import functools
import json
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
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from billing import errors, ids, tasks
from meters import costs
from meters.gateway import providers
from meters.gateway.tokens import Token

WAIT_S = 3.0
TRIES = 3


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


_CALLER = "SELECT * FROM meters_caller(%s, %s, %s, %s)"
_HOLD = f"SELECT * FROM meters_hold({', '.join(['%s'] * 24)})"  # noqa: S608
SETTLE = f"SELECT * FROM meters_settle({', '.join(['%s'] * 21)})"  # noqa: S608
_BLOCKED = f"SELECT meters_blocked({', '.join(['%s'] * 15)})"
_SEEN = "SELECT meters_seen(%s, %s, %s, %s)"


class Store:
    """The pool of one process, opened at its first use; one event loop owns it."""

    def __init__(self) -> None:
        self._pool: AsyncConnectionPool[Any] | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Give the connections back."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def caller(self, told: Token) -> Caller:
        """Who calls, by their token.

        Raises:
            billing.errors.LavaError: unknown or revoked, paused, expired; no such meter.
        """
        secret = told.opaque or told.secret_key
        hashed = ids.secret_hash(secret)
        row = await self._one(
            _CALLER,
            None if told.opaque else hashed,
            hashed if told.opaque else None,
            told.meter,
            timezone.now(),
        )
        if row["outcome"] != "ok":
            raise _refusal(row["outcome"], "", told.meter)
        return Caller(
            merchant=row["merchant"],
            currency=row["currency"],
            clock_offset=row["clock_offset"],
            token=row["token"],
            connection=row["connection"] or told.connection,
            meter=row["meter"],
            needs_cost=row["needs_cost"] or False,
            allowed_models=row["allowed_models"],
            allowed_providers=row["allowed_providers"],
            own=_own(row["providers"]),
            keys=_keys(row["keys"]),
            overrides=_overrides(row["prices"]),
        )

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
    ) -> Decimal:
        """Let a call through and set aside what it may cost; gives the amount.

        Raises:
            billing.errors.LavaError: as `_refusal`; nothing was written.
        """
        row = await self._one(
            _HOLD,
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
            Jsonb(dict(metadata)),
        )
        if row["outcome"] != "held":
            if row["fell"] and caller.connection is not None:
                hint(tasks.hint_fall, caller.connection, refused=True)
            raise _refusal(row["outcome"], row["detail"] or "", "")
        return Decimal(row["amount"])

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
            _BLOCKED,
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
        """Settle a call, once; said twice, the first time counts."""
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

    async def _one(self, sql: str, *params: Any) -> dict[str, Any]:
        """One statement, one row. A deadlock or a serialization failure is tried again."""
        for attempt in range(1, TRIES + 1):
            try:
                pool = self._pool or await self._open()
                async with pool.connection() as link:
                    cursor = await link.execute(sql, params)
                    row: dict[str, Any] = await cursor.fetchone()
                    return row
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
        Jsonb(dict(told.usage)),
        told.input_tokens,
        told.output_tokens,
        told.characters,
        told.seconds,
        cost.amount if cost else None,
        cost.source if cost else None,
        Jsonb(cost.rates if cost else {}),
        list(told.flags),
        told.received,
        told.overhead_ms,
        told.first_byte_ms,
        told.total_ms,
    )


def settled(row: Mapping[str, Any]) -> Settled:
    """What `SETTLE` answers."""
    balance = None
    if row["cycle_remaining"] is not None:
        balance = row["cycle_remaining"] + row["bundle_remaining"] - row["debt"]
    return Settled(
        outcome=row["outcome"],
        charged=row["charged"],
        balance=balance,
        collect=row["collect"],
        fell=row["fell"],
        connection=row["connection"],
    )


def _connection_params() -> dict[str, Any]:
    """Django's parameters for the database, without what is Django's own."""
    params = connections["default"].get_connection_params()
    for name in ("cursor_factory", "context", "pool", "assume_role", "server_side_binding"):
        params.pop(name, None)
    row_factory = psycopg.rows.dict_row
    return params | {"autocommit": True, "prepare_threshold": 2, "row_factory": row_factory}


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
