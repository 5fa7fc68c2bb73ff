"""`/v1/forward_tokens`, and `/v1/spend_keys` as the newest client calls them: one table, two words.

A token's text is answered once, when it is made or rotated. Parse, call `spendkeys`, present.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors, ids, money
from billing.api import fields, lists, vocabulary
from billing.api.views import View
from billing.api.vocabulary import Words
from billing.models import Connection
from meters.gateway import spendkeys
from meters.gateway.models import ForwardToken
from meters.gateway.spendkeys import Limits
from meters.models import Meter

LONGEST_NAME = 80
CYCLES = ForwardToken.Cycle.values
MOST_NAMES = 200


class TokenView(View):
    """What both paths share. `as_spend_key`: answer in the newest client's words."""

    words = Words.AS_WRITTEN
    as_spend_key = False

    def present(self, row: ForwardToken) -> dict[str, Any]:
        """A token on the wire, without its text."""
        spent, requests = spendkeys.used(row, now=self.now)
        limits: dict[str, Any] = {
            "allowed_models": row.allowed_models,
            "allowed_providers": row.allowed_providers,
            "spend_limit": None
            if row.spend_limit is None
            else {"amount": money.wire(row.spend_limit), "cycle": row.spend_cycle},
            "current_spend": money.wire(spent),
            "total_spend": money.wire(row.total_spent),
            "request_limit": None
            if row.request_limit is None
            else {"count": row.request_limit, "cycle": row.request_cycle},
            "current_requests": requests,
            "total_requests": row.total_requests,
            "rate_limit": None if row.rpm is None else {"rpm": row.rpm, "burst": row.burst},
            "expires_at": fields.instant(row.expires_at),
            "last_used_at": fields.instant(row.last_used_at),
            "created_at": fields.instant(row.created_at),
        }
        told = {"name": row.name, "status": row.status, "request_shape": row.request_shape}
        if self.as_spend_key:
            wallet = row.merchant.public_id
            names = {"spend_key_id": row.public_id, "key_preview": row.hint, "wallet_id": wallet}
            return names | told | limits
        payer = row.connection.public_id if row.connection is not None else None
        return {
            "forward_token_id": row.public_id,
            "token_hint": row.hint,
            "connection_id": payer,
            vocabulary.NEWER["connection_id"]: payer,
            "meter_id": row.meter.public_id if row.meter is not None else None,
            "meter_slug": row.meter.slug if row.meter is not None else None,
            **told,
            **limits,
        }

    def shown_once(self, row: ForwardToken, text: str) -> dict[str, Any]:
        """A token with its text."""
        return self.present(row) | {"key" if self.as_spend_key else "forward_token": text}

    def rows(self) -> Any:
        """The merchant's tokens that were not revoked."""
        rows = ForwardToken.objects.of(self.merchant).filter(revoked_at=None)
        return rows.select_related("merchant", "connection", "meter")

    def find(self, token_id: str) -> ForwardToken:
        """One of them by its id."""
        found: ForwardToken = self.rows().by_public_id(token_id)
        return found


class TokensView(TokenView):
    """`GET, POST /v1/forward_tokens`, `/v1/spend_keys`"""

    def get(self, request: Request) -> Response:
        return lists.page(
            request,
            self.rows(),
            cursor_key=lambda text: ids.parse("spk", text),
            present=self.present,
        )

    def post(self, request: Request) -> Response:
        body = vocabulary.read(self.body) if "customer_id" in self.body else self.body
        status = fields.choice(body, "status", ForwardToken.Status.values, default="active")
        row, text = spendkeys.make(
            self.merchant,
            name=fields.required_text(body, "name", most=LONGEST_NAME),
            now=self.now,
            connection=self._connection(body),
            meter=self._meter(body),
            limits=_limits(body, Limits()),
            request_shape=fields.choice(
                body, "request_shape", spendkeys.SHAPES, default=spendkeys.SHAPES[0]
            ),
            actor=self.actor,
        )
        if status != ForwardToken.Status.ACTIVE:
            spendkeys.update(row, now=self.now, status=status)
        return Response(self.shown_once(self.find(row.public_id), text), status=201)

    def _connection(self, body: dict[str, Any]) -> Connection | None:
        text = fields.text(body, "connection_id", most=64)
        if text is None:
            return None
        try:
            key = ids.parse("con", text)
        except errors.NotFound:
            key = None
        rows = Connection.objects.of(self.merchant).visible()
        found: Connection | None = rows.filter(pk=key).first() if key else None
        if found is None:
            raise errors.NotFound(
                "No such connection.", code="connection_not_found", param="connection_id"
            )
        return found

    def _meter(self, body: dict[str, Any]) -> Meter | None:
        slug = fields.text(body, "meter_slug", most=64)
        if slug is None:
            return None
        rows = Meter.objects.of(self.merchant).filter(archived_at=None)
        found: Meter | None = rows.filter(slug=slug).first()
        if found is None:
            raise errors.NotFound(
                f"There is no meter {slug!r}.", code="meter_not_found", param="meter_slug"
            )
        return found


class OneTokenView(TokenView):
    """`GET, PATCH, DELETE /v1/forward_tokens/{id}`, `/v1/spend_keys/{id}`"""

    def get(self, request: Request, token_id: str) -> Response:
        return Response(self.present(self.find(token_id)))

    def patch(self, request: Request, token_id: str) -> Response:
        body = self.body
        row = self.find(token_id)
        changed: dict[str, Any] = {"limits": _limits(body, spendkeys.limits_of(row))}
        name = fields.text(body, "name", most=LONGEST_NAME)
        if name is not None:
            changed["name"] = name
        if body.get("status") is not None:
            changed["status"] = fields.choice(body, "status", ForwardToken.Status.values)
        if body.get("request_shape") is not None:
            changed["request_shape"] = fields.choice(body, "request_shape", spendkeys.SHAPES)
        spendkeys.update(row, now=self.now, **changed)
        return Response(self.present(self.find(token_id)))

    put = patch

    def delete(self, request: Request, token_id: str) -> Response:
        row = spendkeys.revoke(self.find(token_id), now=self.now)
        if self.as_spend_key:
            return Response({"success": True})
        return Response({"id": row.public_id, "deleted": True})


class RotateTokenView(TokenView):
    """`POST .../{id}/rotate`: another text; the one before it stops at once."""

    def post(self, request: Request, token_id: str) -> Response:
        _, text = spendkeys.rotate(self.find(token_id))
        return Response(self.shown_once(self.find(token_id), text))


def _limits(body: dict[str, Any], now: Limits) -> Limits:
    """The limits of a body; what it leaves out stays as `now`, null is no limit."""
    told: dict[str, Any] = {
        name: getattr(now, name)
        for name in ("allowed_models", "allowed_providers", "spend_limit", "spend_cycle",
                     "request_limit", "request_cycle", "rpm", "burst", "expires_at")
    }  # fmt: skip
    for name in ("allowed_models", "allowed_providers"):
        if name in body:
            told[name] = fields.texts(body, name, most=MOST_NAMES)
    if "spend_limit" in body:
        part = _part(body, "spend_limit")
        told["spend_limit"] = _in("spend_limit", fields.amount, part, "amount")
        told["spend_cycle"] = _cycle("spend_limit", part)
    if "request_limit" in body:
        part = _part(body, "request_limit")
        told["request_limit"] = _in("request_limit", _whole, part, "count")
        told["request_cycle"] = _cycle("request_limit", part)
    if "rate_limit" in body:
        part = _part(body, "rate_limit")
        told["rpm"] = _in("rate_limit", _whole, part, "rpm")
        told["burst"] = None
        if part is not None and part.get("burst") is not None:
            told["burst"] = _in("rate_limit", _whole, part, "burst")
    if "expires_at" in body:
        told["expires_at"] = _moment(body["expires_at"])
    return Limits(**told)


def _part(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = body[name]
    if value is not None and not isinstance(value, dict):
        raise errors.Invalid(f"`{name}` must be an object or null.", param=name)
    return value


def _in(name: str, read: Any, part: dict[str, Any] | None, field: str) -> Any:
    """A field that a limit must have; None without the limit."""
    if part is None:
        return None
    try:
        if part.get(field) is None:
            raise errors.Invalid(f"`{name}.{field}` is missing.", param=field)
        return read(part, field)
    except errors.Invalid as error:
        error.param = f"{name}.{field}"
        raise


def _whole(part: dict[str, Any], field: str) -> int:
    found = fields.count(part, field)
    if not 1 <= found <= 10**9:
        raise errors.Invalid(f"`{field}` must be a whole number from 1 to 10^9.", param=field)
    return found


def _cycle(name: str, part: dict[str, Any] | None) -> str:
    if part is None:
        return str(ForwardToken.Cycle.TOTAL)
    try:
        return fields.choice(part, "cycle", CYCLES)
    except errors.Invalid as error:
        error.param = f"{name}.cycle"
        raise


def _moment(value: Any) -> datetime | None:
    return None if value is None else fields.moment(value, "expires_at")
