"""Meters' endpoints: requests, usage, meters. Parse, call one verb, present."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Q, Sum
from django.db.models.functions import TruncDate
from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import authentication, errors, ids, keys, money
from billing.api import fields, lists, vocabulary
from billing.api.views import View
from billing.api.vocabulary import Words
from meters import api_meters, api_models, api_plans, pricing, usage
from meters.api_meters import number
from meters.models import UsageRequest

ZERO = Decimal(0)


class RequestsView(View):
    """`GET, POST /v1/requests`"""

    words = Words.AS_WRITTEN
    # A charge has a key of its own, its request_id, and is one trip.
    one_transaction = False

    def perform_authentication(self, request: Request) -> None:
        """A charge finds its merchant in its own trip to the database; a list asks first, and so
        does a call that brings an Idempotency-Key beside its request_id."""
        if request.method != "POST" or "HTTP_IDEMPOTENCY_KEY" in request.META:
            super().perform_authentication(request)

    def post(self, request: Request) -> Response:
        key = authentication.bearer(request.META.get("HTTP_AUTHORIZATION", ""))
        if not ids.check_secret_key(key):
            keys.find(key)
        sandbox = key.startswith("aks_test_")
        charged = usage.report(key, sandbox=sandbox, told=_report(self.body))
        answer = present_request(
            charged.request, charged.price, connection_id=charged.request.connection_id
        )
        return Response(answer, status=200)

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

    words = Words.AS_WRITTEN

    def get(self, request: Request, request_id: str) -> Response:
        row = (
            UsageRequest.objects.of(self.merchant)
            .select_related("price")
            .filter(request_id=request_id)
            .first()
        )
        if row is None:
            raise errors.NotFound(f"There is no request {request_id!r}.")
        return Response(present_request(row, row.price, connection_id=row.connection_id))


class UsageView(View):
    """`GET /v1/usage`: per day of the start's UTC offset, and in total."""

    def get(self, request: Request) -> Response:
        query = self.query
        if "start" not in query:
            raise errors.Invalid("`start` is missing.", param="start")
        start = fields.moment(_plus(query["start"]), "start")
        end = fields.moment(_plus(query["end"]), "end") if "end" in query else self.now
        if end <= start:
            raise errors.Invalid("`end` must be after `start`.", param="end")
        if end - start > timedelta(days=366):
            raise errors.Invalid("Ask for at most 366 days at once.", param="end")
        rows = _filtered(self, request).filter(timestamp__gte=start, timestamp__lt=end)
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


def _report(body: dict[str, Any]) -> usage.Report:
    """Read and check the body of a reported request."""
    connection = fields.required_text(body, "connection_id", most=64)
    slug = fields.required_text(body, "meter_slug", most=64)
    stamp = body.get("timestamp")
    return usage.Report(
        request_id=fields.required_text(body, "request_id"),
        connection=_connection_key(connection),
        meter_slug=slug,
        meter=ids.parse("prd", slug) if slug.startswith("prd_") else None,
        usage=pricing.Usage(
            input_tokens=fields.count(body, "input_tokens"),
            output_tokens=fields.count(body, "output_tokens"),
            input_characters=fields.count(body, "input_characters"),
            output_characters=fields.count(body, "output_characters"),
            input_seconds=fields.seconds(body, "input_seconds"),
            output_seconds=fields.seconds(body, "output_seconds"),
            provider_cost=fields.amount(body, "provider_cost"),
        ),
        model=fields.text(body, "model", most=120) or "",
        metadata=fields.metadata(body),
        timestamp=None if stamp is None else fields.moment(stamp, "timestamp"),
        enforce=fields.flag(body, "enforce"),
    )


def _connection_key(text: str) -> UUID:
    try:
        return ids.parse("con", text)
    except errors.NotFound as error:
        raise errors.NotFound(
            "No such connection.", code="connection_not_found", param="connection_id"
        ) from error


def _filtered(view: View, request: Request) -> Any:
    """The merchant's requests, by the filters of the query."""
    query = view.query
    rows = UsageRequest.objects.of(view.merchant)
    if query.get("connection_id"):
        rows = rows.filter(connection_id=_connection_key(query["connection_id"]))
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
        "total_cost": money.wire(cost),
        "total_charge": money.wire(fee),
        "total_gross_volume": money.wire(charged),
        "total_net_volume": money.wire(charged - cost),
    }


def present_request(row: UsageRequest, price: Any, *, connection_id: UUID) -> dict[str, Any]:
    """A request on the wire, as the official client declares it, with its balance."""
    seconds = row.input_seconds + row.output_seconds
    cost = row.provider_cost or ZERO
    payer = price.base_cost_payer
    scope = ids.public("con", connection_id)
    breakdown = [_slice(price, *part) for part in row.slices]
    fee, wire_cost = money.wire(row.fee), money.wire(cost)
    return {
        "request_id": row.request_id,
        "status": row.status,
        **vocabulary.ids("connection_id", scope),
        "meter_id": ids.public("prd", row.meter_id),
        "provider": "",
        "provider_key_type": "unmanaged",
        "model": row.model,
        "endpoint": "",
        "model_usage": {
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "total_tokens": row.input_tokens + row.output_tokens,
            "input_characters": row.input_characters,
            "output_characters": row.output_characters,
            "total_characters": row.input_characters + row.output_characters,
            "input_seconds": number(row.input_seconds),
            "output_seconds": number(row.output_seconds),
            "total_seconds": number(seconds),
            "input_cost": money.wire(ZERO),
            "output_cost": money.wire(ZERO),
            "total_cost": wire_cost,
            "payer": payer,
        },
        "fee": {
            "amount": fee,
            "rate_type": price.rate_type,
            "token_basis": price.token_basis,
            "breakdown": breakdown,
        },
        # The newer client's words for the provider's cost and for the fee.
        "cost": wire_cost,
        "charge": {"amount": fee, "rate_type": price.rate_type, "breakdown": breakdown},
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


def _slice(price: Any, place: int, quantity: str, amount: str) -> dict[str, Any]:
    """One slice of a fee: the tier it fell in and what of the request fell there."""
    counted = Decimal(quantity)
    unit = price.unit
    return {
        "tier": {
            "start": number(price.tier_starts[place]),
            "rate": money.wire(price.tier_rates[place]),
            "type": unit,
        },
        "tokens": int(counted) if unit == "tokens_1m" else 0,
        "characters": int(counted) if unit == "characters_1m" else 0,
        "seconds": number(counted) if unit == "minutes" else 0,
        "cost": money.wire(Decimal(amount)),
    }


urlpatterns = [
    re_path(r"^requests/?$", RequestsView.as_view(), name="requests"),
    re_path(r"^requests/(?P<request_id>[^/]+)/?$", RequestView.as_view(), name="request"),
    re_path(r"^usage/?$", UsageView.as_view(), name="usage"),
    re_path(r"^meters/?$", api_meters.MetersView.as_view(), name="meters"),
    re_path(r"^meters/(?P<meter_id>[^/]+)/?$", api_meters.MeterView.as_view(), name="meter"),
    *(
        route
        for path, words, one in (
            ("subscription_configs", Words.OLDER, "subscription-config"),
            ("plans", Words.NEWER, "plan"),
        )
        for route in (
            re_path(rf"^{path}/?$", api_plans.PlansView.as_view(words=words), name=f"{one}s"),
            re_path(
                rf"^{path}/(?P<plan_id>[^/]+)/?$", api_plans.PlanView.as_view(words=words), name=one
            ),
        )
    ),
    re_path(r"^models/?$", api_models.ModelsView.as_view(), name="models"),
]
