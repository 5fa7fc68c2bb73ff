"""Who calls, as the database told it, and the callers that a process keeps.

A caller that is kept saves a trip and proves nothing: the hold looks whether it is still true (see
`meters/sql/gateway_functions.sql`). Used by `store`, which asks, and by `proxy`, which keeps.
"""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from billing import ids, secrets
from meters import costs
from meters.gateway import providers, targets
from meters.gateway.targets import Target
from meters.gateway.tokens import Token

# Callers that a process keeps, and targets of each.
MOST, MOST_TARGETS = 1024, 32


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
    # What was found out for a call and holds for the next: keys, by how they are sealed, and
    # targets by path. A caller is kept no longer than both stay as they are.
    _opened: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    _targets: dict[str, Target] = field(default_factory=dict, repr=False, compare=False)

    def open(self, sealed: str) -> str:
        """A key of a provider in clear.

        Raises:
            billing.errors.Unavailable: as `billing.secrets.open`.
        """
        found = self._opened.get(sealed)
        if found is None:
            found = self._opened[sealed] = secrets.open(sealed.encode())
        return found

    def target(self, path: str, query: str) -> Target:
        """Where a call to `/v1/forward...` goes; as `targets.resolve`, which raises the same."""
        if query or "%3f" in path.lower():
            # It may hold a key, or anything else once; so may one that is encoded into the path.
            return targets.resolve(path, query, own=self.own)
        found = self._targets.get(path)
        if found is None:
            found = targets.resolve(path, "", own=self.own)
            if len(self._targets) < MOST_TARGETS:
                self._targets[path] = found
        return found


class Kept:
    """The callers that a process keeps, those that called last."""

    def __init__(self) -> None:
        self._callers: OrderedDict[tuple[Any, ...], Caller] = OrderedDict()

    def __len__(self) -> int:
        return len(self._callers)

    def find(self, told: Token) -> Caller | None:
        """Who calls, as it was told last: true if a hold takes it."""
        if told.is_sandbox:
            return None
        key = _kept_by(told)
        found = self._callers.get(key)
        if found is not None:
            self._callers.move_to_end(key)
        return found

    def keep(self, told: Token, caller: Caller) -> None:
        """Keep who calls; not those of a sandbox, whose clock is moved by hand."""
        if told.is_sandbox:
            return
        self._callers[_kept_by(told)] = caller
        if len(self._callers) > MOST:
            self._callers.popitem(last=False)


def _kept_by(told: Token) -> tuple[Any, ...]:
    """What of a token says who calls: by its hash, so that no secret stays in memory for it."""
    hashed = ids.secret_hash(told.opaque or told.secret_key)
    return bool(told.opaque), hashed, told.connection, told.meter


def read(found: Sequence[Any], told: Token, *, key_hash: bytes | None) -> Caller:
    """A caller out of what `meters_caller` answers after its outcome."""
    (merchant, currency, clock_offset, token, connection, meter, needs_cost, allowed_models,
     allowed_providers, own, keys, prices, epoch) = found  # fmt: skip
    return Caller(
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
