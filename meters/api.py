"""Meters' endpoints: requests, usage, meters. Parse, call one verb, present."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import orjson
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import TruncDate
from django.http import HttpResponse
from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import authentication, errors, ids, keys, money
from billing.api import fields, lists
from billing.api.views import View
from meters import pricing, usage
from meters.explain import ExplainView
from meters.models import Meter, MeterPrice, UsageRequest, Void

ZERO = Decimal(0)
# Where `lava.api.door` leaves the refusal of a charge, for the view to answer. No header can: those
# begin with HTTP_.
REFUSAL = "lava.refusal"


class RequestsView(View):
    """`GET, POST /v1/requests`"""

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """A charge skips the steps of a view that it has no use for; refusals are every view's."""
        if request.method != "POST":
            return super().dispatch(request, *args, **kwargs)
        self.args, self.kwargs, self.headers = args, kwargs, {}
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            return self.post(self.request)
        except Exception as error:
            refusal = self.handle_exception(error)
            return self.finalize_response(self.request, refusal, *args, **kwargs)

    def post(self, request: Request) -> HttpResponse:
        if REFUSAL in request.META:
            raise request.META[REFUSAL]
        answer = charge(request.META.get("HTTP_AUTHORIZATION", ""), self.body)
        return HttpResponse(answer, content_type="application/json")

    def get(self, request: Request) -> Response:
        rows = _filtered(self, request).select_related("price")
        return lists.page(
            request,
            rows,
            cursor_key=lambda text: _request_key(self, text),
            cursor_of=lambda row: str(row.request_id),
            present=lambda row: present_request(row, row.price, connection_id=row.connection_id),
        )


class RequestView(View):
    """`GET /v1/requests/{request_id}`"""

    def get(self, request: Request, request_id: str) -> Response:
        row = _request(self, request_id)
        return Response(present_request(row, row.price, connection_id=row.connection_id))


class VoidView(View):
    """`POST /v1/requests/{request_id}/void {"reason"}`: take it back, its credits return.

    Answers with the request, and under `void` why, when, and the balance after it. Sent twice, the
    second answer is the first.
    """

    def post(self, request: Request, request_id: str) -> Response:
        reason = fields.required_text(self.body, "reason")
        row = _request(self, request_id)
        made = usage.void(row, reason=reason, actor=_caller(request), now=self.now)
        row.status = UsageRequest.Status.VOIDED
        answer = present_request(row, row.price, connection_id=row.connection_id)
        return Response(answer | {"void": present_void(made)})


class UsageView(View):
    """`GET /v1/usage`: per day of the start's UTC offset, and in total."""

    def get(self, request: Request) -> Response:
        query = request.query_params
        if "start" not in query:
            raise errors.Invalid("`start` is missing.", param="start")
        start = fields.moment(_plus(query["start"]), "start")
        end = fields.moment(_plus(query["end"]), "end") if "end" in query else self.now
        if end <= start:
            raise errors.Invalid("`end` must be after `start`.", param="end")
        if end - start > timedelta(days=366):
            raise errors.Invalid("Ask for at most 366 days at once.", param="end")
        rows = _filtered(self, request).filter(timestamp__gte=start, timestamp__lt=end)
        rows = rows.exclude(status=UsageRequest.Status.VOIDED)
        zone = start.tzinfo
        items = []
        day = start
        while day < end:
            midnight = datetime.combine(day.astimezone(zone).date(), datetime.min.time(), zone)
            until = min(midnight + timedelta(days=1), end)
            items.append((day, until))
            day = until
        sums = _sums_by_day(rows, start)
        empty = _totals(None)
        return Response(
            {
                "items": [
                    {
                        "date": f"{since.astimezone(zone):%Y-%m-%d}",
                        "start": fields.instant(since),
                        "end": fields.instant(until),
                        **_totals(sums.get(since.astimezone(zone).date())),
                    }
                    for since, until in items
                ],
                "totals": _totals(rows.aggregate(**_SUMS)) if sums else empty,
            }
        )


class MetersView(View):
    """`GET /v1/meters`"""

    def get(self, request: Request) -> Response:
        rows = Meter.objects.of(self.merchant).filter(archived_at=None).select_related("price")
        return lists.page(
            request,
            rows,
            cursor_key=lambda text: ids.parse("prd", text),
            present=present_meter,
        )


class MeterView(View):
    """`GET /v1/meters/{id}`"""

    def get(self, request: Request, meter_id: str) -> Response:
        rows = Meter.objects.of(self.merchant).select_related("price")
        return Response(present_meter(rows.by_public_id(meter_id)))


def charge(authorization: str, body: dict[str, Any]) -> bytes:
    """One charge, from what was sent to what is answered; its merchant is found in its own trip.

    Called by the view, and by `lava.api.door` before there is a view.

    Raises:
        billing.errors.LavaError: it was refused.
    """
    key = authentication.bearer(authorization)
    if not ids.check_secret_key(key):
        keys.find(key)
    charged = usage.report(key, sandbox=key.startswith("aks_test_"), told=_report(body))
    row = charged.request
    return orjson.dumps(present_request(row, charged.price, connection_id=row.connection_id))


def _report(body: dict[str, Any]) -> usage.Report:
    """Read and check the body of a reported request."""
    name = "customer_id" if "connection_id" not in body and "customer_id" in body else None
    connection = fields.required_text(body, name or "connection_id", most=64)
    slug = fields.required_text(body, "meter_slug", most=64)
    stamp = body.get("timestamp")
    used = _usage(body)
    # Cached tokens are part of the input; more of them is refused here, by name.
    pricing.kinds(used)
    return usage.Report(
        request_id=fields.required_text(body, "request_id"),
        connection=_connection_key(connection),
        meter_slug=slug,
        meter=ids.parse("prd", slug) if slug.startswith("prd_") else None,
        usage=used,
        model=fields.text(body, "model", most=120) or "",
        metadata=fields.metadata(body),
        timestamp=None if stamp is None else fields.moment(stamp, "timestamp"),
        enforce=fields.flag(body, "enforce"),
    )


def _usage(body: dict[str, Any]) -> pricing.Usage:
    return pricing.Usage(
        input_tokens=fields.count(body, "input_tokens"),
        output_tokens=fields.count(body, "output_tokens"),
        input_characters=fields.count(body, "input_characters"),
        output_characters=fields.count(body, "output_characters"),
        input_seconds=fields.seconds(body, "input_seconds"),
        output_seconds=fields.seconds(body, "output_seconds"),
        provider_cost=fields.amount(body, "provider_cost"),
        cache_read_tokens=fields.count(body, "cache_read_tokens"),
        cache_write_tokens=fields.count(body, "cache_write_tokens"),
    )


def _connection_key(text: str) -> UUID:
    try:
        return ids.parse("con", text)
    except errors.NotFound as error:
        raise errors.NotFound(
            "No such connection.", code="connection_not_found", param="connection_id"
        ) from error


def _request(view: View, text: str) -> UsageRequest:
    """The merchant's request by the client's own id, or by ours (`req_...`)."""
    rows = UsageRequest.objects.of(view.merchant).select_related("price")
    row: UsageRequest | None = rows.filter(request_id=text).first()
    if row is None and text.startswith("req_"):
        with contextlib.suppress(errors.NotFound):
            row = rows.by_public_id(text)
    if row is None:
        raise errors.NotFound(f"There is no request {text!r}.")
    return row


def _caller(request: Request) -> str:
    """Who asks, for the books: the key by its name and hint."""
    backend = cast(authentication.Backend, request.user)
    return f"API key {backend.key.name} ({backend.key.hint})"


def _filtered(view: View, request: Request) -> Any:
    """The merchant's requests, by the filters of the query."""
    query = request.query_params
    rows = UsageRequest.objects.of(view.merchant)
    connection = query.get("connection_id") or query.get("customer_id")
    if connection:
        rows = rows.filter(connection_id=_connection_key(connection))
    if query.get("meter_id"):
        rows = rows.filter(meter_id=ids.parse("prd", query["meter_id"]))
    for key, value in _metadata_filters(query.get("metadata_filters")):
        rows = rows.filter(metadata__contains={key: value})
    return rows


def _metadata_filters(text: str | None) -> list[tuple[str, str]]:
    if not text:
        return []
    try:
        pairs = json.loads(text)
    except (ValueError, RecursionError) as error:
        pairs = error
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(word, str) and "\x00" not in word for word in pair)
        for pair in pairs
    ):
        raise errors.Invalid(
            'Write `metadata_filters` as JSON: [["key", "value"], ...].', param="metadata_filters"
        )
    return [(key, value) for key, value in pairs]


def _request_key(view: View, request_id: str) -> UUID:
    key = (
        UsageRequest.objects.of(view.merchant)
        .filter(request_id=request_id)
        .values_list("pk", flat=True)
        .first()
    )
    if key is None:
        raise errors.NotFound("No such request.")
    return key  # type: ignore[no-any-return]


def _plus(text: str) -> str:
    """A `+` of an offset that a client did not encode arrives as a space."""
    return text.replace(" ", "+")


_WALLET = Q(price__base_cost_payer="wallet")
_SUMS: dict[str, Any] = {
    "requests": Count("pk"),
    "tokens": Sum(F("input_tokens") + F("output_tokens")),
    "cost": Sum("provider_cost"),
    "fee": Sum("fee"),
    "wallet_cost": Sum("provider_cost", filter=_WALLET),
    "charged": Sum("charged"),
}


def _sums_by_day(rows: Any, start: datetime) -> dict[Any, dict[str, Any]]:
    """Sums per calendar day of the start's offset."""
    days = rows.annotate(day=TruncDate("timestamp", tzinfo=start.tzinfo)).values("day")
    return {row["day"]: row for row in days.annotate(**_SUMS).order_by("day")}


def _totals(sums: dict[str, Any] | None) -> dict[str, Any]:
    """One row of usage on the wire; nothing used is zeros."""
    sums = sums or {}
    fee = sums.get("fee") or ZERO
    cost = sums.get("cost") or ZERO
    by_customer = sums.get("wallet_cost") or ZERO
    charged = sums.get("charged") or ZERO
    return {
        "total_requests": sums.get("requests") or 0,
        "total_usage_tokens": int(sums.get("tokens") or 0),
        "total_usage_cost": money.wire(cost),
        "total_fee_amount": money.wire(fee),
        "total_service_charge_amount": money.wire(ZERO),
        "total_request_cost": money.wire(cost + fee),
        "total_wallet_cost": money.wire(charged),
        "total_merchant_cost": money.wire(cost - by_customer),
        "total_gross_volume": money.wire(charged),
        "total_net_volume": money.wire(charged - cost),
    }


def present_request(
    row: UsageRequest | usage.Stored, price: Any, *, connection_id: UUID
) -> dict[str, Any]:
    """A request on the wire, as the official client declares it, with its balance."""
    seconds = row.input_seconds + row.output_seconds
    cost = row.provider_cost or ZERO
    payer = price.base_cost_payer
    scope = ids.public("con", connection_id)
    return {
        "request_id": row.request_id,
        "status": row.status,
        "connection_id": scope,
        "customer_id": scope,
        "meter_id": ids.public("prd", row.meter_id),
        "provider": "",
        "provider_key_type": "unmanaged",
        "model": row.model,
        "endpoint": "",
        "model_usage": {
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "total_tokens": row.input_tokens + row.output_tokens,
            "cache_read_tokens": row.cache_read_tokens or 0,
            "cache_write_tokens": row.cache_write_tokens or 0,
            "input_characters": row.input_characters,
            "output_characters": row.output_characters,
            "total_characters": row.input_characters + row.output_characters,
            "input_seconds": _number(row.input_seconds),
            "output_seconds": _number(row.output_seconds),
            "total_seconds": _number(seconds),
            "input_cost": money.wire(ZERO),
            "output_cost": money.wire(ZERO),
            "total_cost": money.wire(cost),
            "payer": payer,
        },
        "fee": {
            "amount": money.wire(row.fee),
            "rate_type": price.rate_type,
            "token_basis": price.token_basis,
            "breakdown": [_slice(price, *part) for part in row.slices],
        },
        "service_charge": {"amount": money.wire(ZERO), "payer": "merchant"},
        "total_request_cost": money.wire(cost + row.fee),
        "total_wallet_cost": money.wire(row.charged),
        "total_merchant_cost": money.wire(ZERO if payer == "wallet" else cost),
        "balance": {
            "total_remaining": money.wire(row.total_remaining),
            "cycle_remaining": money.wire(row.cycle_remaining),
            "bundle_remaining": money.wire(row.bundle_remaining),
            "overage_due": money.wire(row.debt_after),
        },
        "late": row.late,
        "metadata": row.metadata,
        "timestamp": fields.instant(row.timestamp),
        "created_at": fields.instant(row.created_at),
    }


def present_void(row: Void) -> dict[str, Any]:
    """A request taken back: why, when, and the balance after it."""
    left = row.cycle_remaining + row.bundle_remaining - row.debt_after
    return {
        "void_id": row.public_id,
        "reason": row.reason,
        "balance": {
            "total_remaining": money.wire(left),
            "cycle_remaining": money.wire(row.cycle_remaining),
            "bundle_remaining": money.wire(row.bundle_remaining),
            "overage_due": money.wire(row.debt_after),
        },
        "created_at": fields.instant(row.created_at),
    }


def _slice(price: Any, place: int, quantity: str, amount: str) -> dict[str, Any]:
    """One slice of a fee: the tier it fell in and what of the request fell there."""
    counted = Decimal(quantity)
    unit = price.unit
    kind = {"kind": price.tier_kinds[place]} if price.tier_kinds else {}
    return {
        "tier": {
            "start": _number(price.tier_starts[place]),
            "rate": money.wire(price.tier_rates[place]),
            "type": unit,
            **kind,
        },
        "tokens": int(counted) if unit == "tokens_1m" else 0,
        "characters": int(counted) if unit == "characters_1m" else 0,
        "seconds": _number(counted) if unit == "minutes" else 0,
        "cost": money.wire(Decimal(amount)),
    }


def _number(value: Decimal) -> int | float:
    """A count as a JSON number: whole where it is whole. Counts only, never money."""
    return int(value) if value == value.to_integral_value() else float(value)


def present_meter(row: Meter) -> dict[str, Any]:
    """A meter on the wire, with the price in force."""
    price: MeterPrice | None = row.price
    assert price is not None
    return {
        "meter_id": row.public_id,
        "meter_slug": row.slug,
        "name": row.name,
        "rate_type": price.rate_type,
        "token_basis": price.token_basis,
        "tier_window": price.tier_window,
        "base_cost_payer": price.base_cost_payer,
        "service_charge_payer": "merchant",
        "tiers": [
            {
                "start": _number(tier.start),
                "rate": money.wire(tier.rate),
                "type": price.unit,
                "flat_amount": money.wire(tier.flat),
                **({"kind": tier.kind} if tier.kind else {}),
            }
            for tier in price.tiers
        ],
        "free_allowance": _number(price.free_allowance),
        "package_size": _number(price.package_size),
        "package_rounding": price.package_rounding,
        "price_version": price.version,
        "created_at": fields.instant(row.created_at),
    }


urlpatterns = [
    re_path(r"^requests/?$", RequestsView.as_view(), name="requests"),
    re_path(r"^requests/(?P<request_id>[^/]+)/void/?$", VoidView.as_view(), name="request-void"),
    re_path(r"^requests/(?P<request_id>[^/]+)/?$", RequestView.as_view(), name="request"),
    re_path(
        r"^connections/(?P<connection_id>[^/]+)/balance/explain/?$",
        ExplainView.as_view(),
        name="balance-explain",
    ),
    re_path(r"^usage/?$", UsageView.as_view(), name="usage"),
    re_path(r"^meters/?$", MetersView.as_view(), name="meters"),
    re_path(r"^meters/(?P<meter_id>[^/]+)/?$", MeterView.as_view(), name="meter"),
]
