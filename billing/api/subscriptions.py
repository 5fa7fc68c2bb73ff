"""`/v1/subscriptions`: who is on which plan; a free plan is given, any is cancelled."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors, ids, subscriptions, topups
from billing.api import fields, lists, present
from billing.api.views import View
from billing.models import Connection, Plan, Subscription


def _rows(view: View) -> Any:
    return Subscription.objects.of(view.merchant).select_related(
        "plan", "connection__customer", "auto_top_up_bundle"
    )


class SubscriptionsView(View):
    """`GET, POST /v1/subscriptions`: active ones, unless `status` says cancelled or all."""

    def get(self, request: Request) -> Response:
        query = self.query
        rows = _rows(self)
        status = query.get("status", "active")
        if status == "active":
            rows = rows.current()
        elif status == "cancelled":
            rows = rows.filter(status=Subscription.Status.CANCELLED)
        elif status != "all":
            raise errors.Invalid("Use active, cancelled or all.", param="status")
        if query.get("connection_id"):
            rows = rows.filter(connection_id=ids.parse("con", query["connection_id"]))
        return lists.page(
            request,
            rows,
            cursor_key=lambda text: ids.parse("sub", text),
            present=lambda row: present.subscription(row, now=self.now),
        )

    def post(self, request: Request) -> Response:
        body = self.body
        connection = lists.named(
            Connection.objects.of(self.merchant).visible(), body, "connection_id"
        )
        plan = lists.named(Plan.objects.of(self.merchant), body, "subscription_config_id")
        if plan.archived_at is not None:
            raise errors.Conflict("That plan is archived.", param="subscription_config_id")
        if not plan.is_free:
            raise errors.Refused(
                "A plan with a price begins at checkout, where the customer pays: make a checkout "
                "session for it.",
                code="plan_needs_checkout",
                param="subscription_config_id",
            )
        made = subscriptions.open(connection, plan=plan, now=self.now)
        row = _rows(self).get(pk=made.pk)
        return Response({"subscription": present.subscription(row, now=self.now)}, status=201)


class SubscriptionView(View):
    """`GET, PATCH, DELETE /v1/subscriptions/{id}`: DELETE cancels at the cycle's end."""

    def get(self, request: Request, subscription_id: str) -> Response:
        row = _rows(self).by_public_id(subscription_id)
        return Response(present.subscription(row, now=self.now))

    def patch(self, request: Request, subscription_id: str) -> Response:
        body = self.body
        row = _rows(self).by_public_id(subscription_id)
        if "auto_top_up_bundle_id" in body:
            text = fields.text(body, "auto_top_up_bundle_id")
            bundle = None
            if text is not None:
                bundle = lists.named(row.plan.live_bundles, body, "auto_top_up_bundle_id")
            threshold = fields.amount(body, "auto_top_up_threshold")
            cap = fields.amount(body, "auto_top_up_monthly_cap")
            topups.configure(
                row,
                bundle=bundle,
                threshold=row.top_up_threshold if threshold is None else threshold,
                monthly_cap=cap if "auto_top_up_monthly_cap" in body else row.top_up_monthly_cap,
                now=self.now,
            )
        return Response({"success": True})

    put = patch

    def delete(self, request: Request, subscription_id: str) -> Response:
        subscriptions.cancel(_rows(self).by_public_id(subscription_id), now=self.now)
        return Response({"success": True})
