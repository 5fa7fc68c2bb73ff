"""`/v1/holds`: credits set aside for work about to run that is not a call through the gateway.

Place a hold, run the work, then settle it with what was really used, or release it. One that is
forgotten expires. Shapes are our own: no official client knows holds yet.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import credits, errors, ids, money
from billing import holds as set_aside
from billing.api import fields, lists, present
from billing.api.views import View
from billing.models import Connection, Hold
from meters import api_reports, holds
from meters.models import UsageRequest

DEFAULT_LIFE_S = 900


def present_hold(row: Hold, request: UsageRequest | None) -> dict[str, Any]:
    """A hold on the wire; `request_id` and `charged` say what settled it."""
    return {
        "hold_id": row.public_id,
        "connection_id": ids.public("con", row.connection_id),
        "amount": money.wire(row.amount),
        "status": row.state,
        "purpose": row.purpose,
        "request_id": None if request is None else request.request_id,
        "charged": None if request is None else money.wire(request.charged),
        "expires_at": fields.instant(row.expires_at),
        "created_at": fields.instant(row.created_at),
        "ended_at": fields.instant(row.ended_at),
    }


class HoldsView(View):
    """`GET, POST /v1/holds`"""

    def get(self, request: Request) -> Response:
        rows = holds.of(self.merchant)
        if self.query.get("connection_id"):
            rows = rows.filter(
                connection_id=api_reports.connection_key(self.query["connection_id"])
            )
        if self.query.get("status"):
            rows = rows.filter(state=fields.choice(self.query, "status", Hold.State.values))
        settled: dict[Any, UsageRequest] = {}

        def present_row(row: Hold) -> dict[str, Any]:
            return present_hold(row, settled.get(row.request_id))

        def look(page: list[Hold]) -> None:
            settled.update(holds.requests(page))

        return lists.page(
            request,
            rows,
            cursor_key=lambda text: ids.parse("hld", text),
            present=present_row,
            look=look,
        )

    def post(self, request: Request) -> Response:
        body = self.body
        connection = api_reports.connection_key(
            fields.required_text(body, "connection_id", most=64)
        )
        amount = fields.amount(body, "amount")
        slug = fields.text(body, "meter_slug", most=64)
        if (amount is None) == (slug is None):
            raise errors.Invalid(
                "Send an `amount`, or a `meter_slug` with the usage that is expected.",
                param="amount",
            )
        life = (
            fields.count(body, "expires_in_s")
            if body.get("expires_in_s") is not None
            else DEFAULT_LIFE_S
        )
        if not 0 < life <= set_aside.LONGEST.total_seconds():
            raise errors.Invalid("Hold for 1 second to 1 day.", param="expires_in_s")
        row = holds.place(
            self.merchant,
            connection,
            amount=amount
            if amount is not None
            else api_reports.report({**body, "request_id": f"hold {uuid4()}", "enforce": False}),
            key=api_reports.key_of(request.META.get("HTTP_AUTHORIZATION", "")),
            purpose=fields.nullable_text(body, "purpose"),
            expires_in=timedelta(seconds=life),
            now=self.now,
        )
        return Response(_with_balance(self, row), status=201)


class HoldView(View):
    """`GET /v1/holds/{id}`"""

    def get(self, request: Request, hold_id: str) -> Response:
        return Response(_presented(_find(self, hold_id)))


class SettleView(View):
    """`POST /v1/holds/{id}/settle`: a request's body without its connection.

    `request_id` is the hold's own id where none is sent. Answers with the request, and the hold.
    """

    # The charge has a key of its own, its request_id, and is one trip.
    one_transaction = False

    def post(self, request: Request, hold_id: str) -> Response:
        row = _find(self, hold_id, ends=True)
        connection = ids.public("con", row.connection_id)
        body = {"connection_id": connection, "request_id": row.public_id} | self.body
        if body["connection_id"] != connection:
            raise errors.Conflict(
                "This hold is of another connection.",
                code="hold_of_another_connection",
                param="connection_id",
            )
        charged = holds.settle(
            row,
            told=api_reports.report(body),
            key=api_reports.key_of(request.META.get("HTTP_AUTHORIZATION", "")),
        )
        stored = charged.request
        answer = api_reports.present_request(
            stored, charged.price, connection_id=stored.connection_id
        )
        return Response(answer | {"hold": _presented(row)})


class ReleaseView(View):
    """`POST /v1/holds/{id}/release`: the work will not run. Sent twice, the first time counts."""

    def post(self, request: Request, hold_id: str) -> Response:
        row = set_aside.release(_find(self, hold_id, ends=True), now=self.now)
        return Response(_with_balance(self, row))


def _find(view: View, hold_id: str, *, ends: bool = False) -> Hold:
    """One of the merchant's holds; with `ends` one that the caller may settle or release."""
    row: Any = holds.of(view.merchant).select_related("merchant").by_public_id(hold_id)
    if ends and row.is_of_call:
        raise errors.Conflict(
            "A call through the gateway holds this, and settles it.", code="hold_of_a_call"
        )
    found: Hold = row
    return found


def _presented(row: Hold) -> dict[str, Any]:
    request = holds.requests([row]).get(row.request_id) if row.request_id else None
    return present_hold(row, request)


def _with_balance(view: View, row: Hold) -> dict[str, Any]:
    connection = Connection.objects.get(pk=row.connection_id)
    left = credits.balance(connection, now=view.now)
    return _presented(row) | {"balance": present.balance(left)}


urlpatterns = [
    re_path(r"^holds/?$", HoldsView.as_view(), name="holds"),
    re_path(r"^holds/(?P<hold_id>[^/]+)/?$", HoldView.as_view(), name="hold"),
    re_path(r"^holds/(?P<hold_id>[^/]+)/settle/?$", SettleView.as_view(), name="hold-settle"),
    re_path(r"^holds/(?P<hold_id>[^/]+)/release/?$", ReleaseView.as_view(), name="hold-release"),
]
