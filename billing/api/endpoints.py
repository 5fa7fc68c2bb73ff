"""Billing's endpoints: parse, call one verb, present."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import connections, credits, errors, ids, subscriptions
from billing.api import lists, present
from billing.api.views import View
from billing.models import Connection, CreditBundle, LedgerEntry, Plan, Subscription


def _connections(view: View) -> Any:
    """The merchant's connections, each with its current subscription at hand."""
    current = Subscription.objects.current().select_related("plan")
    return (
        Connection.objects.of(view.merchant)
        .visible()
        .select_related("customer", "merchant")
        .prefetch_related(Prefetch("subscriptions", queryset=current, to_attr="current"))
    )


def _present_connection(row: Any) -> dict[str, Any]:
    return present.connection(row, row.current[0] if row.current else None)


class ConnectionsView(View):
    """`GET /v1/connections`"""

    def get(self, request: Request) -> Response:
        return lists.page(
            request,
            _connections(self),
            cursor_key=lambda text: ids.parse("con", text),
            present=_present_connection,
        )


class ConnectionView(View):
    """`GET, DELETE /v1/connections/{id}`"""

    def get(self, request: Request, connection_id: str) -> Response:
        return Response(_present_connection(_connections(self).by_public_id(connection_id)))

    def delete(self, request: Request, connection_id: str) -> Response:
        row = Connection.objects.of(self.merchant).visible().by_public_id(connection_id)
        connections.delete(row, now=self.now)
        return Response({"success": True})


class ConnectionSubscriptionView(View):
    """`GET /v1/connections/{id}/subscription`: null without one."""

    def get(self, request: Request, connection_id: str) -> Response:
        row = _connections(self).by_public_id(connection_id)
        current: Subscription | None = row.current[0] if row.current else None
        if current is None:
            return Response({"subscription": None})
        current.connection = row
        return Response({"subscription": present.subscription(current, now=self.now)})


class BalanceView(View):
    """`GET /v1/connections/{id}/balance`"""

    def get(self, request: Request, connection_id: str) -> Response:
        row = Connection.objects.of(self.merchant).visible().by_public_id(connection_id)
        found = credits.balance(row, now=self.now)
        return Response(
            {
                "connection_id": row.public_id,
                "customer_id": row.public_id,
                "currency": found.currency,
                **present.balance(found),
            }
        )


class LedgerView(View):
    """`GET /v1/connections/{id}/ledger`: newest first; the cursor is a line's `seq`."""

    def get(self, request: Request, connection_id: str) -> Response:
        row = Connection.objects.of(self.merchant).visible().by_public_id(connection_id)
        entries = LedgerEntry.objects.filter(connection=row).order_by("-seq")
        cursor = request.query_params.get("cursor")
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


def _plans(view: View) -> Any:
    return (
        Plan.objects.of(view.merchant)
        .select_related("merchant")
        .prefetch_related("meters", Prefetch("bundles", CreditBundle.objects.order_by("position")))
    )


class PlansView(View):
    """`GET /v1/subscription_configs`"""

    def get(self, request: Request) -> Response:
        return lists.page(
            request,
            _plans(self).filter(archived_at=None),
            cursor_key=lambda text: ids.parse("sc", text),
            present=present.plan,
        )


class PlanView(View):
    """`GET /v1/subscription_configs/{id}`"""

    def get(self, request: Request, plan_id: str) -> Response:
        return Response(present.plan(_plans(self).by_public_id(plan_id)))


class BundlesView(View):
    """`GET /v1/credit_bundles`"""

    def get(self, request: Request) -> Response:
        rows = CreditBundle.objects.of(self.merchant).filter(deleted_at=None)
        plan = request.query_params.get("subscription_config_id") or request.query_params.get(
            "plan_id"
        )
        if plan:
            rows = rows.filter(plan_id=ids.parse("sc", plan))
        return lists.page(
            request,
            rows.select_related("plan"),
            cursor_key=lambda text: ids.parse("cb", text),
            present=present.bundle,
        )


class BundleView(View):
    """`GET /v1/credit_bundles/{id}`"""

    def get(self, request: Request, bundle_id: str) -> Response:
        rows = CreditBundle.objects.of(self.merchant).select_related("plan")
        return Response(present.bundle(rows.by_public_id(bundle_id)))


def _subscriptions(view: View) -> Any:
    return Subscription.objects.of(view.merchant).select_related(
        "plan", "connection__customer", "auto_top_up_bundle"
    )


class SubscriptionsView(View):
    """`GET /v1/subscriptions`: active ones, unless `status` says cancelled or all."""

    def get(self, request: Request) -> Response:
        query = request.query_params
        rows = _subscriptions(self)
        status = query.get("status", "active")
        if status == "active":
            rows = rows.current()
        elif status == "cancelled":
            rows = rows.filter(status=Subscription.Status.CANCELLED)
        elif status != "all":
            raise errors.Invalid("Use active, cancelled or all.", param="status")
        connection = query.get("connection_id") or query.get("customer_id")
        if connection:
            rows = rows.filter(connection_id=ids.parse("con", connection))
        return lists.page(
            request,
            rows,
            cursor_key=lambda text: ids.parse("sub", text),
            present=lambda row: present.subscription(row, now=self.now),
        )


class SubscriptionView(View):
    """`GET, DELETE /v1/subscriptions/{id}`: DELETE cancels at the cycle's end."""

    def get(self, request: Request, subscription_id: str) -> Response:
        row = _subscriptions(self).by_public_id(subscription_id)
        return Response(present.subscription(row, now=self.now))

    def delete(self, request: Request, subscription_id: str) -> Response:
        subscriptions.cancel(_subscriptions(self).by_public_id(subscription_id), now=self.now)
        return Response({"success": True})


urlpatterns = [
    re_path(r"^connections/?$", ConnectionsView.as_view(), name="connections"),
    re_path(
        r"^connections/(?P<connection_id>[^/]+)/?$", ConnectionView.as_view(), name="connection"
    ),
    re_path(
        r"^connections/(?P<connection_id>[^/]+)/subscription/?$",
        ConnectionSubscriptionView.as_view(),
        name="connection-subscription",
    ),
    re_path(
        r"^connections/(?P<connection_id>[^/]+)/balance/?$", BalanceView.as_view(), name="balance"
    ),
    re_path(
        r"^connections/(?P<connection_id>[^/]+)/ledger/?$", LedgerView.as_view(), name="ledger"
    ),
    re_path(r"^subscription_configs/?$", PlansView.as_view(), name="plans"),
    re_path(r"^subscription_configs/(?P<plan_id>[^/]+)/?$", PlanView.as_view(), name="plan"),
    re_path(r"^credit_bundles/?$", BundlesView.as_view(), name="bundles"),
    re_path(r"^credit_bundles/(?P<bundle_id>[^/]+)/?$", BundleView.as_view(), name="bundle"),
    re_path(r"^subscriptions/?$", SubscriptionsView.as_view(), name="subscriptions"),
    re_path(
        r"^subscriptions/(?P<subscription_id>[^/]+)/?$",
        SubscriptionView.as_view(),
        name="subscription",
    ),
]
