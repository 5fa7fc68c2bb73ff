"""Opaque forward tokens, which the newest client calls spend keys: made, limited, rotated, revoked.

The only writer of `ForwardToken` but for its counters (`meters/sql/gateway.sql`); called by the
console and by `/v1/forward_tokens` and `/v1/spend_keys`. A token's text is shown once; its hash is
kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from billing import errors, ids
from billing.models import Connection, Merchant
from meters.gateway import tokens
from meters.gateway.models import ForwardToken
from meters.models import Meter

_KEPT: Any = object()
SHAPES = ("openai", "anthropic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a token may do; None is no limit."""

    allowed_models: Sequence[str] | None = None
    allowed_providers: Sequence[str] | None = None
    spend_limit: Decimal | None = None
    spend_cycle: str = ForwardToken.Cycle.TOTAL
    request_limit: int | None = None
    request_cycle: str = ForwardToken.Cycle.TOTAL
    rpm: int | None = None
    burst: int | None = None
    expires_at: datetime | None = None


FREE = Limits()


def make(
    merchant: Merchant,
    *,
    name: str,
    now: datetime,
    connection: Connection | None = None,
    meter: Meter | None = None,
    limits: Limits = FREE,
    request_shape: str = "openai",
    actor: str = "",
) -> tuple[ForwardToken, str]:
    """Make a token; gives its row and its text, which is never to be had again.

    Raises:
        billing.errors.Invalid: no name, a connection without a meter, a limit that is none.
        billing.errors.NotFound: connection or meter are another merchant's.
    """
    if not name.strip():
        raise errors.Invalid("Name the token, so that you know it again.", param="name")
    if request_shape not in SHAPES:
        raise errors.Invalid(f"Choose one of {', '.join(SHAPES)}.", param="request_shape")
    for other, noun in ((connection, "connection"), (meter, "meter")):
        if other is not None and other.merchant_id != merchant.pk:
            raise errors.NotFound(f"No such {noun}.")
    if connection is not None and meter is None:
        raise errors.Invalid(
            "Name the meter that the connection pays by.", code="meter_missing", param="meter_slug"
        )
    validate(limits, now=now)
    text = tokens.new(sandbox=merchant.is_sandbox)
    row = ForwardToken(
        merchant=merchant,
        name=name.strip()[:80],
        connection=connection,
        meter=meter,
        request_shape=request_shape,
        created_by=actor,
        created_at=now,
        **_secret(text),
        **_columns(limits),
    )
    row.save()
    return row, text


def validate(limits: Limits, *, now: datetime) -> None:
    """Check limits before they are stored.

    Raises:
        billing.errors.Invalid: naming the field.
    """
    for cycle, param in (
        (limits.spend_cycle, "spend_limit"),
        (limits.request_cycle, "request_limit"),
    ):
        if cycle not in ForwardToken.Cycle.values:
            raise errors.Invalid(
                f"Choose a cycle of {', '.join(ForwardToken.Cycle.values)}.", param=param
            )
    if limits.spend_limit is not None and not 0 <= limits.spend_limit < 10**12:
        raise errors.Invalid("Give a limit of 0 or more.", param="spend_limit")
    for number, param in (
        (limits.request_limit, "request_limit"),
        (limits.rpm, "rate_limit"),
        (limits.burst, "rate_limit"),
    ):
        if number is not None and not 1 <= number <= 10**9:
            raise errors.Invalid("Give a whole number from 1.", param=param)
    if limits.expires_at is not None and limits.expires_at <= now:
        raise errors.Invalid("Choose an end in the future.", param="expires_at")
    for listed, most, param in (
        (limits.allowed_models, 120, "allowed_models"),
        (limits.allowed_providers, 40, "allowed_providers"),
    ):
        if listed is not None and (
            len(listed) > 200 or not all(0 < len(item) <= most for item in listed)
        ):
            raise errors.Invalid("Give at most 200 names.", param=param)


def update(
    token: ForwardToken,
    *,
    now: datetime,
    name: str = _KEPT,
    status: str = _KEPT,
    request_shape: str = _KEPT,
    limits: Limits = _KEPT,
) -> ForwardToken:
    """Rename, pause or limit a token, from its next call on. An end that has passed may stay.

    Raises:
        billing.errors.Invalid: as `make`.
    """
    changed: dict[str, Any] = {}
    if name is not _KEPT:
        if not name.strip():
            raise errors.Invalid("Write a name.", param="name")
        changed["name"] = name.strip()[:80]
    if status is not _KEPT:
        if status not in ForwardToken.Status.values:
            raise errors.Invalid("Choose active or paused.", param="status")
        changed["status"] = status
    if request_shape is not _KEPT:
        if request_shape not in SHAPES:
            raise errors.Invalid(f"Choose one of {', '.join(SHAPES)}.", param="request_shape")
        changed["request_shape"] = request_shape
    if limits is not _KEPT:
        kept = limits.expires_at == token.expires_at
        validate(dataclasses.replace(limits, expires_at=None) if kept else limits, now=now)
        changed |= _columns(limits)
    if changed:
        # Named columns alone: the counters are moving meanwhile.
        ForwardToken.objects.filter(pk=token.pk).update(**changed)
    token.refresh_from_db()
    return token


def rotate(token: ForwardToken) -> tuple[ForwardToken, str]:
    """Give a token another text; the old one stops with the next call.

    Raises:
        billing.errors.Conflict: it was revoked.
    """
    text = tokens.new(sandbox=token.merchant.is_sandbox)
    moved = ForwardToken.objects.filter(pk=token.pk, revoked_at=None).update(**_secret(text))
    if not moved:
        raise errors.Conflict("This token was revoked.", code="token_revoked")
    token.refresh_from_db()
    return token, text


def revoke(token: ForwardToken, *, now: datetime) -> ForwardToken:
    """Stop a token from the next call on. Revoked twice, the first time counts."""
    ForwardToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now)
    token.refresh_from_db()
    return token


def used(token: ForwardToken, *, now: datetime) -> tuple[Decimal, int]:
    """What was spent and how many calls were made in the cycles that run now, as
    `meters_limit_counted` says it."""

    def runs(cycle: str, since: datetime | None) -> bool:
        start = _cycle_start(cycle, token.merchant.time_zone, now)
        return start is not None and since is not None and since >= start

    spent, requests = Decimal(0), 0
    if token.spend_cycle == ForwardToken.Cycle.TOTAL:
        spent = token.total_spent
    elif runs(token.spend_cycle, token.spend_cycle_start):
        spent = token.spent
    if token.request_cycle == ForwardToken.Cycle.TOTAL:
        requests = token.total_requests
    elif runs(token.request_cycle, token.request_cycle_start):
        requests = token.requests
    return spent, requests


def limits_of(token: ForwardToken) -> Limits:
    """The limits of a token that is there."""
    return Limits(
        allowed_models=token.allowed_models,
        allowed_providers=token.allowed_providers,
        spend_limit=token.spend_limit,
        spend_cycle=token.spend_cycle,
        request_limit=token.request_limit,
        request_cycle=token.request_cycle,
        rpm=token.rpm,
        burst=token.burst,
        expires_at=token.expires_at,
    )


def _cycle_start(cycle: str, zone: str, now: datetime) -> datetime | None:
    """When the running cycle of a limit began, as `meters_limit_start` says it; None: no cycle."""
    local = now.astimezone(ZoneInfo(zone))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    if cycle == ForwardToken.Cycle.DAILY:
        return midnight
    if cycle == ForwardToken.Cycle.WEEKLY:
        return midnight - timedelta(days=midnight.weekday())
    return midnight.replace(day=1) if cycle == ForwardToken.Cycle.MONTHLY else None


def _secret(text: str) -> dict[str, Any]:
    return {"secret_hash": ids.secret_hash(text), "hint": f"{text[:11]}\u2026{text[-4:]}"}


def _columns(limits: Limits) -> dict[str, Any]:
    models, allowed = limits.allowed_models, limits.allowed_providers
    return {
        "allowed_models": None if models is None else list(models),
        "allowed_providers": None if allowed is None else list(allowed),
        "spend_limit": limits.spend_limit,
        "spend_cycle": limits.spend_cycle,
        "request_limit": limits.request_limit,
        "request_cycle": limits.request_cycle,
        "rpm": limits.rpm,
        "burst": limits.burst,
        "expires_at": limits.expires_at,
    }
