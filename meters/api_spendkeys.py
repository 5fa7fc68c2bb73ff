"""`/v1/spend_keys`, as the newest client has them, and `/v1/forward_tokens`: one table, one check.

A spend key calls through the gateway for its merchant; with a `connection_id` and a `meter_slug`,
as forward tokens have them, the customer pays. Its text is shown when it is made and when it is
rotated, and never again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors, ids, money
from billing.api import fields, lists
from billing.api.views import View
from billing.models import Connection
from meters.gateway import spendkeys
from meters.gateway.models import ForwardToken
from meters.gateway.spendkeys import Limits
from meters.models import Meter

CYCLES = tuple(ForwardToken.Cycle.values)
MOST_NAMES = 200


def present(row: ForwardToken) -> dict[str, Any]:
    """A spend key on the wire, with what it used of its limits."""
    return {
        "spend_key_id": row.public_id,
        "key_preview": row.hint,
        "name": row.name,
        "status": row.status,
        "request_shape": row.request_shape,
        "wallet_id": row.merchant.public_id,
        "connection_id": row.connection.public_id if row.connection else None,
        "meter_slug": row.meter.slug if row.meter else None,
        "allowed_models": row.allowed_models,
        "allowed_providers": row.allowed_providers,
        "spend_limit": None
        if row.spend_limit is None
        else {"amount": money.wire(row.spend_limit), "cycle": row.spend_cycle},
        "current_spend": money.wire(row.spent),
        "total_spend": money.wire(row.total_spent),
        "request_limit": None
        if row.request_limit is None
        else {"count": row.request_limit, "cycle": row.request_cycle},
        "current_requests": row.requests,
        "total_requests": row.total_requests,
        "rate_limit": None if row.rpm is None else {"rpm": row.rpm, "burst": row.burst},
        "expires_at": fields.instant(row.expires_at),
        "last_used_at": fields.instant(row.last_used_at),
        "created_at": fields.instant(row.created_at),
    }


class SpendKeysView(View):
    """`GET, POST /v1/spend_keys`"""

    def get(self, request: Request) -> Response:
        return lists.page(
            request, _rows(self), cursor_key=lambda text: ids.parse("spk", text), present=present
        )

    def post(self, request: Request) -> Response:
        body = self.body
        row, text = spendkeys.make(
            self.merchant,
            name=fields.required_text(body, "name", most=80),
            connection=self._connection(body),
            meter=self._meter(body),
            limits=_limits(body, spendkeys.FREE),
            request_shape=fields.choice(
                body, "request_shape", spendkeys.SHAPES, default=spendkeys.SHAPES[0]
            ),
            status=_status(body),
            actor=self.actor,
            now=self.now,
        )
        return Response(present(row) | {"key": text}, status=201)

    def _connection(self, body: dict[str, Any]) -> Connection | None:
        if body.get("connection_id") is None:
            return None
        rows = Connection.objects.of(self.merchant).visible()
        found: Connection = lists.named(rows, body, "connection_id")
        return found

    def _meter(self, body: dict[str, Any]) -> Meter | None:
        slug = fields.text(body, "meter_slug", most=64)
        if slug is None:
            return None
        rows = Meter.objects.of(self.merchant).filter(archived_at=None)
        found: Meter | None = rows.filter(slug=slug).first()
        if found is None:
            raise errors.NotFound(f"There is no meter {slug!r}.", param="meter_slug")
        return found


class SpendKeyView(View):
    """`GET, PUT, PATCH, DELETE /v1/spend_keys/{id}`"""

    def get(self, request: Request, spend_key_id: str) -> Response:
        return Response(present(_rows(self).by_public_id(spend_key_id)))

    def patch(self, request: Request, spend_key_id: str) -> Response:
        body = self.body
        row = _rows(self).by_public_id(spend_key_id)
        name = fields.text(body, "name", most=80)
        shape = body.get("request_shape")
        changed = spendkeys.update(
            row,
            name=row.name if name is None else name,
            status=_status(body, row.status),
            limits=_limits(body, spendkeys.of(row)),
            request_shape=row.request_shape
            if shape is None
            else fields.choice(body, "request_shape", spendkeys.SHAPES),
            now=self.now,
        )
        return Response(present(changed))

    put = patch

    def delete(self, request: Request, spend_key_id: str) -> Response:
        spendkeys.revoke(_rows(self).by_public_id(spend_key_id), now=self.now)
        return Response({"success": True})


class RotateView(View):
    """`POST /v1/spend_keys/{id}/rotate`: another text; the old one stops with the next call."""

    def post(self, request: Request, spend_key_id: str) -> Response:
        row, text = spendkeys.rotate(_rows(self).by_public_id(spend_key_id))
        return Response(present(row) | {"key": text})


def _rows(view: View) -> Any:
    """The merchant's keys that are not revoked."""
    rows = ForwardToken.objects.of(view.merchant).filter(revoked_at=None)
    return rows.select_related("merchant", "connection", "meter")


def _status(body: dict[str, Any], now: str = ForwardToken.Status.ACTIVE) -> str:
    return fields.choice(body, "status", ForwardToken.Status.values, default=now)


def _limits(body: dict[str, Any], now: Limits) -> Limits:
    """The limits of a body: what it leaves out stays as it is now, null is no limit."""
    spend, spend_cycle = _pair(
        body, "spend_limit", lambda told: fields.amount(told, "amount"), now.spend_limit,
        now.spend_cycle,
    )  # fmt: skip
    count, request_cycle = _pair(
        body, "request_limit", lambda told: _whole(told, "count"), now.request_limit,
        now.request_cycle,
    )  # fmt: skip
    rpm, burst = now.rpm, now.burst
    if "rate_limit" in body:
        rate = _inner(body, "rate_limit")
        rpm = None if rate is None else _whole(rate, "rpm", required="rate_limit")
        burst = None if rate is None else _whole(rate, "burst")
    end = now.expires_at
    if "expires_at" in body:
        told = body["expires_at"]
        end = None if told is None else fields.moment(told, "expires_at")
    return Limits(
        allowed_models=_names(body, "allowed_models", now.allowed_models),
        allowed_providers=_names(body, "allowed_providers", now.allowed_providers),
        spend_limit=spend,
        spend_cycle=spend_cycle,
        request_limit=count,
        request_cycle=request_cycle,
        rpm=rpm,
        burst=burst,
        expires_at=end,
    )


def _names(body: dict[str, Any], name: str, now: Any) -> Any:
    if name not in body:
        return now
    found = fields.texts(body, name, most=MOST_NAMES)
    for item in found or ():
        fields.text({name: item}, name, required=True)
    return found


def _pair(
    body: dict[str, Any],
    name: str,
    read: Callable[[dict[str, Any]], Any],
    limit: Any,
    cycle: str,
) -> tuple[Any, str]:
    """A limit and the cycle that it counts in."""
    if name not in body:
        return limit, cycle
    told = _inner(body, name)
    if told is None:
        return None, ForwardToken.Cycle.TOTAL
    try:
        found = read(told)
        chosen = fields.choice(told, "cycle", CYCLES)
    except errors.Invalid as error:
        error.param = f"{name}.{error.param}"
        raise
    if found is None:
        raise errors.Invalid(f"`{name}` says no limit: send null for none.", param=name)
    return found, chosen


def _inner(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = body[name]
    if value is not None and not isinstance(value, dict):
        raise errors.Invalid(f"`{name}` must be an object or null.", param=name)
    return value


def _whole(told: dict[str, Any], name: str, *, required: str = "") -> int | None:
    if told.get(name) is None:
        if required:
            raise errors.Invalid(f"`{required}.{name}` is missing.", param=f"{required}.{name}")
        return None
    return fields.count(told, name)


urlpatterns = [
    route
    for path, one in (("spend_keys", "spend-key"), ("forward_tokens", "forward-token"))
    for route in (
        re_path(rf"^{path}/?$", SpendKeysView.as_view(), name=f"{one}s"),
        re_path(rf"^{path}/(?P<spend_key_id>[^/]+)/?$", SpendKeyView.as_view(), name=one),
        re_path(
            rf"^{path}/(?P<spend_key_id>[^/]+)/rotate/?$",
            RotateView.as_view(),
            name=f"{one}-rotate",
        ),
    )
]
