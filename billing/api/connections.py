"""`/v1/connections` and `/v1/customers`, one thing in two vocabularies."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from rest_framework.request import Request
from rest_framework.response import Response

from billing import balances, connections, errors, ids
from billing.api import fields, lists, present
from billing.api.views import View
from billing.api.vocabulary import Words
from billing.authentication import bearer
from billing.models import Connection, LedgerEntry, Subscription


def find(view: View, connection_id: str) -> Connection:
    """One of the merchant's connections that exist for clients."""
    rows = Connection.objects.of(view.merchant).visible().select_related("customer", "merchant")
    found: Connection = rows.by_public_id(connection_id)
    return found


def _rows(view: View) -> Any:
    """The merchant's connections, each with its current subscription at hand."""
    current = Subscription.objects.current().select_related("plan")
    return (
        Connection.objects.of(view.merchant)
        .visible()
        .select_related("customer", "merchant")
        .prefetch_related(Prefetch("subscriptions", queryset=current, to_attr="current"))
    )


class _ConnectionView(View):
    words = Words.OLDER

    def present(self, row: Any) -> dict[str, Any]:
        current = row.current[0] if row.current else None
        if self.words is Words.NEWER:
            return present.customer_object(row, current)
        return present.connection(row, current)


class ConnectionsView(_ConnectionView):
    """`GET, POST /v1/connections`"""

    def get(self, request: Request) -> Response:
        rows = _rows(self)
        for name, column in (("reference_id", "reference"), ("phone", "customer__phone")):
            if self.query.get(name):
                rows = rows.filter(**{column: self.query[name].replace(" ", "+", 1)})
        return lists.page(
            request,
            rows,
            cursor_key=lambda text: ids.parse("con", text),
            present=self.present,
        )

    def post(self, request: Request) -> Response:
        body = self.body
        made = connections.create(
            self.merchant,
            phone=fields.phone(body),
            email=fields.email(body),
            name=fields.nullable_text(body, "name", most=160),
            reference=fields.nullable_text(body, "reference_id"),
            metadata=fields.metadata(body),
            now=self.now,
        )
        return Response(self.present(_rows(self).get(pk=made.pk)), status=201)


class ConnectionView(_ConnectionView):
    """`GET, PATCH, DELETE /v1/connections/{id}`"""

    def get(self, request: Request, connection_id: str) -> Response:
        return Response(self.present(_rows(self).by_public_id(connection_id)))

    def patch(self, request: Request, connection_id: str) -> Response:
        body = self.body
        row = find(self, connection_id)
        changes: dict[str, Any] = {}
        for name, reader in (
            ("name", lambda: fields.nullable_text(body, "name", most=160)),
            ("email", lambda: fields.email(body)),
            ("phone", lambda: fields.phone(body)),
            ("reference_id", lambda: fields.nullable_text(body, "reference_id")),
            ("metadata", lambda: fields.metadata(body)),
        ):
            if name in body:
                changes["reference" if name == "reference_id" else name] = reader()
        connections.update(row, **changes)
        return Response(self.present(_rows(self).by_public_id(connection_id)))

    put = patch

    def delete(self, request: Request, connection_id: str) -> Response:
        connections.delete(find(self, connection_id), now=self.now)
        return Response({"success": True})


class ConnectionSubscriptionView(View):
    """`GET /v1/connections/{id}/subscription`: null without one."""

    def get(self, request: Request, connection_id: str) -> Response:
        row = _rows(self).by_public_id(connection_id)
        current: Subscription | None = row.current[0] if row.current else None
        if current is None:
            return Response({"subscription": None})
        current.connection = row
        return Response({"subscription": present.subscription(current, now=self.now)})


class BalanceView(View):
    """`GET /v1/connections/{id}/balance`"""

    def perform_authentication(self, request: Request) -> None:
        """The read finds its merchant in its own trip."""
        if request.method not in ("GET", "HEAD"):
            super().perform_authentication(request)

    def get(self, request: Request, connection_id: str) -> Response:
        return Response(balance(request.META.get("HTTP_AUTHORIZATION", ""), connection_id))


def balance(authorization: str, connection_id: str) -> dict[str, Any]:
    """One balance, from what was sent to what is answered, in our words.

    Called by the view, and by `lava.api.door` before there is a view.

    Raises:
        billing.errors.LavaError: it was refused.
    """
    found = balances.read(bearer(authorization), connection_id)
    return {
        "connection_id": connection_id,
        "currency": found.currency,
        **present.balance(found),
    }


class LedgerView(View):
    """`GET /v1/connections/{id}/ledger`: newest first; the cursor is a line's `seq`."""

    def get(self, request: Request, connection_id: str) -> Response:
        row = find(self, connection_id)
        entries = LedgerEntry.objects.filter(connection=row).order_by("-seq")
        cursor = self.query.get("cursor")
        if cursor:
            if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
                raise errors.Invalid("The cursor is not the seq of a line.", param="cursor")
            entries = entries.filter(seq__lt=int(cursor))
        limit = lists.limit_of(request)
        found = list(entries[: limit + 1])
        answer: dict[str, Any] = {
            "data": [present.entry(line) for line in found[:limit]],
            "has_more": len(found) > limit,
        }
        if answer["has_more"]:
            answer["next_cursor"] = str(found[limit - 1].seq)
        return Response(answer)
