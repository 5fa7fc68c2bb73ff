"""Meters' endpoints: requests, usage, meters. Parse, call one verb, present."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import orjson
from django.http import HttpResponse
from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import authentication, errors, ids, keys, money
from billing.api import fields, limits, lists, statuses, vocabulary
from billing.api.views import View
from billing.api.vocabulary import Words
from meters import api_meters, api_models, api_plans, api_tokens, batch, pricing, rollups, usage
from meters.api_meters import number
from meters.explain import ExplainView
from meters.models import UsageRequest, Void

ZERO = Decimal(0)
# Where `lava.api.door` leaves the refusal of a charge and where its key stands, for the view to
# answer. No header can: those begin with HTTP_.
REFUSAL = "lava.refusal"


class RequestsView(View):
    """`GET, POST /v1/requests`"""

    words = Words.AS_WRITTEN
    # A charge has a key of its own, its request_id, and is one trip.
    one_transaction = False

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """A charge skips the steps of a view that it has no use for; refusals are every view's."""
        if request.method != "POST" or "HTTP_IDEMPOTENCY_KEY" in request.META:
            return super().dispatch(request, *args, **kwargs)
        self.args, self.kwargs, self.headers = args, kwargs, {}
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            return self.post(self.request)
        except Exception as error:
            refusal = self.handle_exception(error)
            return self.finalize_response(self.request, refusal, *args, **kwargs)

    def post(self, request: Request) -> HttpResponse:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if REFUSAL in request.META:
            error, self._standing = request.META[REFUSAL]
            raise error
        if self._standing is None and header:
            self._standing = limits.take(header[-64:])
        answer = charge(header, self.body)
        if "HTTP_IDEMPOTENCY_KEY" in request.META:
            return Response(orjson.loads(answer))
        response = HttpResponse(answer, content_type="application/json")
        if self._standing is not None:
            for name, value in self._standing.headers().items():
                response[name] = value
        return response

    def get(self, request: Request) -> Response:
        rows = _filtered(self, request).select_related("price")
        for name, edge in (("start", "timestamp__gte"), ("end", "timestamp__lt")):
            if self.query.get(name):
                rows = rows.filter(**{edge: fields.moment(_plus(self.query[name]), name)})
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
        made = usage.void(row, reason=reason, actor=self.actor, now=self.now)
        row.status = UsageRequest.Status.VOIDED
        answer = present_request(row, row.price, connection_id=row.connection_id)
        return Response(answer | {"void": present_void(made)})


class UsageView(View):
    """`GET /v1/usage`: per day of the start's UTC offset, and in total."""

    def get(self, request: Request) -> Response:
        query = self.query
        if "start" not in query:
            raise errors.Invalid("`start` is missing.", param="start")
        start = fields.moment(_plus(query["start"]), "start")
        end = fields.moment(_plus(query["end"]), "end") if query.get("end") else self.now
        if end <= start:
            raise errors.Invalid("`end` must be after `start`.", param="end")
        if end - start > timedelta(days=366):
            raise errors.Invalid("Ask for at most 366 days at once.", param="end")
        days = rollups.by_day(
            self.merchant,
            start=start,
            end=end,
            connection=_connection_key(query["connection_id"])
            if query.get("connection_id")
            else None,
            meter=ids.parse("prd", query["meter_id"]) if query.get("meter_id") else None,
            metadata=_metadata_filters(query.get("metadata_filters")),
        )
        return Response(
            {
                "items": [
                    {
                        "date": day.date.isoformat(),
                        "start": fields.instant(day.start),
                        "end": fields.instant(day.end),
                        **_totals(day.sums),
                    }
                    for day in days
                ],
                "totals": _totals(rollups.total(day.sums for day in days)),
            }
        )


class BatchView(View):
    """`POST /v1/requests/batch`: up to 1,000 requests; one result each, in order."""

    words = Words.AS_WRITTEN
    largest_body = 8 * 1024 * 1024
    # Each line has a key of its own, its request_id.
    one_transaction = False

    def perform_authentication(self, request: Request) -> None:
        """The batch finds its merchant in its own trip."""
        if "HTTP_IDEMPOTENCY_KEY" in request.META:
            super().perform_authentication(request)

    def post(self, request: Request) -> Response:
        key = _key(request.META.get("HTTP_AUTHORIZATION", ""))
        lines = fields.items(self.body, "requests", most=batch.MOST)
        if not lines:
            raise errors.Invalid("Send 1 to 1000 `requests`.", param="requests")
        results: list[dict[str, Any]] = [{}] * len(lines)
        places, told = [], []
        for place, line in enumerate(lines):
            try:
                told.append(_report(line))
                places.append(place)
            except errors.LavaError as error:
                results[place] = _refused(line, error)
        if not told:
            keys.find(key)
        answers = batch.report(key, sandbox=key.startswith("aks_test_"), told=told) if told else []
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, errors.LavaError):
                results[place] = _refused(lines[place], answer)
                continue
            row = answer.request
            body = present_request(row, answer.price, connection_id=row.connection_id)
            results[place] = {"status": 200, "request_id": row.request_id, "body": body}
        return Response({"results": results})


class EstimateView(View):
    """`POST /v1/requests/estimate`: what a request would cost now; nothing is written."""

    words = Words.AS_WRITTEN
    one_transaction = False

    def post(self, request: Request) -> Response:
        key = _key(request.META.get("HTTP_AUTHORIZATION", ""))
        body = {"request_id": f"estimate {uuid4()}"} | vocabulary.read(self.body)
        body["enforce"] = False
        found = batch.estimate(key, sandbox=key.startswith("aks_test_"), told=_report(body))
        row = found.request
        told = present_request(row, found.price, connection_id=row.connection_id)
        names = ("connection_id", "customer_id", "meter_id", "model", "model_usage", "fee", "cost")
        totals = ("charge", "total_request_cost", "total_wallet_cost", "total_merchant_cost")
        return Response(
            {
                **{name: told[name] for name in (*names, *totals)},
                "currency": found.currency,
                # Whether credits alone would pay for it.
                "covered": all(grant is not None for grant, _ in row.draws),
                "balance_after": told["balance"],
            }
        )


def _key(authorization: str) -> str:
    """The secret key that was sent, its checksum checked."""
    key = authentication.bearer(authorization)
    if not ids.check_secret_key(key):
        keys.find(key)
    return key


def _refused(line: dict[str, Any], error: errors.LavaError) -> dict[str, Any]:
    """The result of a line that was not charged, as the error of a single request."""
    told: dict[str, Any] = {"message": error.message, "code": error.code}
    status = statuses.of(error)
    told["status"] = status
    if error.param:
        told["param"] = vocabulary.param(error.param, line)
    name = line.get("request_id")
    return {
        "status": status,
        "request_id": name if isinstance(name, str) else None,
        "error": told,
    }


def charge(authorization: str, body: dict[str, Any]) -> bytes:
    """One charge, from what was sent to what is answered; its merchant is found in its own trip.

    Called by the view, and by `lava.api.door` before there is a view.

    Raises:
        billing.errors.LavaError: it was refused.
    """
    key = _key(authorization)
    charged = usage.report(key, sandbox=key.startswith("aks_test_"), told=_report(body))
    row = charged.request
    return orjson.dumps(present_request(row, charged.price, connection_id=row.connection_id))


def _report(body: dict[str, Any]) -> usage.Report:
    """Read and check the body of a reported request, in either vocabulary."""
    if "customer_id" in body:
        body = vocabulary.read(body)
    connection = fields.required_text(body, "connection_id", most=64)
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
        and all(isinstance(word, str) and _is_storable(word) for word in pair)
        for pair in pairs
    ):
        raise errors.Invalid(
            'Write `metadata_filters` as JSON: [["key", "value"], ...].', param="metadata_filters"
        )
    return [(key, value) for key, value in pairs]


def _is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold a text: no NUL, no half of a character."""
    return "\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


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


def _totals(sums: rollups.Sums) -> dict[str, Any]:
    """One row of usage on the wire."""
    # What the customer paid beyond the fee is the provider's cost, where they bear it.
    by_customer = sums.charged - sums.fee
    return {
        "total_requests": sums.requests,
        "total_usage_tokens": sums.tokens,
        "total_usage_characters": sums.characters,
        "total_usage_seconds": number(sums.seconds),
        "total_usage_cost": money.wire(sums.provider_cost),
        "total_fee_amount": money.wire(sums.fee),
        "total_service_charge_amount": money.wire(ZERO),
        "total_request_cost": money.wire(sums.provider_cost + sums.fee),
        "total_wallet_cost": money.wire(sums.charged),
        "total_merchant_cost": money.wire(sums.provider_cost - by_customer),
        "total_cost": money.wire(sums.provider_cost),
        "total_charge": money.wire(sums.fee),
        "total_gross_volume": money.wire(sums.charged),
        "total_net_volume": money.wire(sums.charged - sums.provider_cost),
    }


def present_request(
    row: UsageRequest | usage.Stored, price: Any, *, connection_id: UUID
) -> dict[str, Any]:
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
            "cache_read_tokens": row.cache_read_tokens or 0,
            "cache_write_tokens": row.cache_write_tokens or 0,
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
            "start": number(price.tier_starts[place]),
            "rate": money.wire(price.tier_rates[place]),
            "type": unit,
            **kind,
        },
        "tokens": int(counted) if unit == "tokens_1m" else 0,
        "characters": int(counted) if unit == "characters_1m" else 0,
        "seconds": number(counted) if unit == "minutes" else 0,
        "cost": money.wire(Decimal(amount)),
    }


urlpatterns = [
    re_path(r"^requests/?$", RequestsView.as_view(), name="requests"),
    re_path(r"^requests/batch/?$", BatchView.as_view(), name="requests-batch"),
    re_path(r"^requests/estimate/?$", EstimateView.as_view(), name="requests-estimate"),
    re_path(r"^requests/(?P<request_id>[^/]+)/void/?$", VoidView.as_view(), name="request-void"),
    re_path(r"^requests/(?P<request_id>[^/]+)/?$", RequestView.as_view(), name="request"),
    re_path(
        r"^connections/(?P<connection_id>[^/]+)/balance/explain/?$",
        ExplainView.as_view(),
        name="balance-explain",
    ),
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
    *(
        route
        for path, as_spend_key in (("forward_tokens", False), ("spend_keys", True))
        for route in (
            re_path(
                rf"^{path}/?$", api_tokens.TokensView.as_view(as_spend_key=as_spend_key), name=path
            ),
            re_path(
                rf"^{path}/(?P<token_id>[^/]+)/?$",
                api_tokens.OneTokenView.as_view(as_spend_key=as_spend_key),
                name=f"{path}-one",
            ),
            re_path(
                rf"^{path}/(?P<token_id>[^/]+)/rotate/?$",
                api_tokens.RotateTokenView.as_view(as_spend_key=as_spend_key),
                name=f"{path}-rotate",
            ),
        )
    ),
    re_path(r"^models/?$", api_models.ModelsView.as_view(), name="models"),
]
