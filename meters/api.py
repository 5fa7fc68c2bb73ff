"""Meters' endpoints: requests, usage, meters. Parse, call one verb, present."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import orjson
from django.http import HttpResponse
from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors, ids, keys, money
from billing.api import fields, limits, lists, statuses, vocabulary
from billing.api.views import REFUSAL, View
from billing.api.vocabulary import Words
from meters import (
    api_holds,
    api_meters,
    api_models,
    api_plans,
    api_reports,
    api_tokens,
    batch,
    rollups,
    usage,
)
from meters.api_meters import number
from meters.explain import ExplainView
from meters.models import UsageRequest

ZERO = Decimal(0)


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
            present=lambda row: api_reports.present_request(
                row, row.price, connection_id=row.connection_id
            ),
        )


class RequestView(View):
    """`GET /v1/requests/{request_id}`"""

    words = Words.AS_WRITTEN

    def get(self, request: Request, request_id: str) -> Response:
        row = _request(self, request_id)
        return Response(
            api_reports.present_request(row, row.price, connection_id=row.connection_id)
        )


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
        answer = api_reports.present_request(row, row.price, connection_id=row.connection_id)
        return Response(answer | {"void": api_reports.present_void(made)})


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
            connection=api_reports.connection_key(query["connection_id"])
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
    """`POST /v1/requests/batch`: up to 1,000 requests; one result each, in order.

    With `Prefer: return=minimal` (RFC 7240) a charged line is answered by what it asked of the
    credits and what is left, for who reads no more of it.
    """

    words = Words.AS_WRITTEN
    largest_body = 8 * 1024 * 1024
    # Each line has a key of its own, its request_id.
    one_transaction = False

    def perform_authentication(self, request: Request) -> None:
        """The batch finds its merchant in its own trip."""
        if "HTTP_IDEMPOTENCY_KEY" in request.META:
            super().perform_authentication(request)

    def post(self, request: Request) -> Response:
        key = api_reports.key_of(request.META.get("HTTP_AUTHORIZATION", ""))
        lines = fields.items(self.body, "requests", most=batch.MOST)
        if not lines:
            raise errors.Invalid("Send 1 to 1000 `requests`.", param="requests")
        results: list[dict[str, Any]] = [{}] * len(lines)
        places, told = [], []
        for place, line in enumerate(lines):
            try:
                told.append(api_reports.report(line))
                places.append(place)
            except errors.LavaError as error:
                results[place] = _refused(line, error)
        if not told:
            keys.find(key)
        brief = prefers_minimal(request.META.get("HTTP_PREFER", ""))
        ask = batch.report_briefly if brief else batch.report
        answers: Sequence[Any] = (
            ask(key, sandbox=key.startswith("aks_test_"), told=told) if told else []
        )
        for place, report, answer in zip(places, told, answers, strict=True):
            if isinstance(answer, errors.LavaError):
                results[place] = _refused(lines[place], answer)
                continue
            results[place] = {"status": 200, "request_id": report.request_id} | _answered(answer)
        response = Response({"results": results})
        if brief:
            response["Preference-Applied"] = "return=minimal"
        return response


def prefers_minimal(header: str) -> bool:
    """Whether a `Prefer` header asks for `return=minimal`; others it may hold are not ours."""
    return any(
        part.partition(";")[0].replace(" ", "").lower() in ("return=minimal", 'return="minimal"')
        for part in header.split(",")
    )


def _answered(answer: usage.Charged | batch.Brief) -> dict[str, Any]:
    """The result of a line that was charged."""
    if isinstance(answer, batch.Brief):
        return {
            "charged": money.wire(answer.charged),
            "total_remaining": money.wire(answer.total_remaining),
        }
    row = answer.request
    return {"body": api_reports.present_request(row, answer.price, connection_id=row.connection_id)}


class EstimateView(View):
    """`POST /v1/requests/estimate`: what a request would cost now; nothing is written."""

    words = Words.AS_WRITTEN
    one_transaction = False

    def post(self, request: Request) -> Response:
        key = api_reports.key_of(request.META.get("HTTP_AUTHORIZATION", ""))
        body = {"request_id": f"estimate {uuid4()}"} | vocabulary.read(self.body)
        body["enforce"] = False
        found = batch.estimate(
            key, sandbox=key.startswith("aks_test_"), told=api_reports.report(body)
        )
        row = found.request
        told = api_reports.present_request(row, found.price, connection_id=row.connection_id)
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
    key = api_reports.key_of(authorization)
    charged = usage.report(key, sandbox=key.startswith("aks_test_"), told=api_reports.report(body))
    row = charged.request
    return orjson.dumps(
        api_reports.present_request(row, charged.price, connection_id=row.connection_id)
    )


def _request(view: View, text: str) -> UsageRequest:
    """The merchant's request by the client's own id, or by ours (`req_...`)."""
    rows = UsageRequest.objects.of(view.merchant).select_related("price")
    row: UsageRequest | None = rows.told_as(view.merchant, text).first()
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
        rows = rows.filter(connection_id=api_reports.connection_key(query["connection_id"]))
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
    told = UsageRequest.objects.told_as(view.merchant, request_id)
    key = told.values_list("pk", flat=True).first()
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


urlpatterns = [
    re_path(r"^requests/?$", RequestsView.as_view(), name="requests"),
    re_path(r"^requests/batch/?$", BatchView.as_view(), name="requests-batch"),
    re_path(r"^requests/estimate/?$", EstimateView.as_view(), name="requests-estimate"),
    re_path(r"^requests/(?P<request_id>[^/]+)/void/?$", VoidView.as_view(), name="request-void"),
    re_path(r"^requests/(?P<request_id>[^/]+)/?$", RequestView.as_view(), name="request"),
    *api_holds.urlpatterns,
    *(
        re_path(
            rf"^{path}/(?P<connection_id>[^/]+)/balance/explain/?$",
            ExplainView.as_view(words=words),
            name=f"{one}-balance-explain",
        )
        for path, words, one in (
            ("connections", Words.OLDER, "connection"),
            ("customers", Words.NEWER, "customer"),
        )
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
