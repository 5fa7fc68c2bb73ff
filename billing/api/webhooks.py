"""`/v1/webhooks`: where the merchant's backend is told of events, and what became of each."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from billing import deliveries, errors, ids, webhooks
from billing.api import fields, lists
from billing.api.views import View
from billing.events import NAMES
from billing.models import Delivery, DeliveryAttempt, WebhookEndpoint


def present(row: WebhookEndpoint) -> dict[str, Any]:
    """An endpoint on the wire; never its secret."""
    return {
        "webhook_id": row.public_id,
        "name": row.name,
        "url": row.url,
        "events": row.events,
        "status": "active" if row.paused_at is None else "paused",
        "failing_since": fields.instant(row.failing_since),
        "created_at": fields.instant(row.created_at),
    }


def present_delivery(row: Delivery) -> dict[str, Any]:
    """A delivery with the log of its attempts."""
    return {
        "delivery_id": row.public_id,
        "event_id": row.event.public_id,
        "event": row.event.name,
        "sequence": row.sequence,
        "status": row.state,
        "next_attempt_at": fields.instant(row.next_attempt_at)
        if row.state == Delivery.State.PENDING
        else None,
        "delivered_at": fields.instant(row.delivered_at),
        "body": row.body,
        "attempts": [_present_attempt(attempt) for attempt in row.log.all()],
        "created_at": fields.instant(row.created_at),
    }


def _present_attempt(row: DeliveryAttempt) -> dict[str, Any]:
    return {
        "number": row.number,
        "status": row.status,
        "error": row.error or None,
        "answer": row.answer,
        "duration_ms": row.duration_ms,
        "at": fields.instant(row.at),
    }


def _find(view: View, webhook_id: str) -> WebhookEndpoint:
    found: WebhookEndpoint = (
        webhooks.live(view.merchant).select_related("merchant").by_public_id(webhook_id)
    )
    return found


class WebhooksView(View):
    """`GET, POST /v1/webhooks`"""

    def get(self, request: Request) -> Response:
        return lists.page(
            request,
            webhooks.live(self.merchant),
            cursor_key=lambda text: ids.parse("whk", text),
            present=present,
        )

    def post(self, request: Request) -> Response:
        body = self.body
        row, secret = webhooks.create(
            self.merchant,
            name=fields.required_text(body, "name", most=webhooks.LONGEST_NAME),
            url=fields.required_text(body, "url", most=2000),
            wanted=fields.texts(body, "events", most=len(NAMES)) or [],
            now=timezone.now(),
        )
        return Response({**present(row), "webhook_secret": secret}, status=201)


class WebhookView(View):
    """`GET, PATCH, DELETE /v1/webhooks/{id}`"""

    def get(self, request: Request, webhook_id: str) -> Response:
        return Response(present(_find(self, webhook_id)))

    def patch(self, request: Request, webhook_id: str) -> Response:
        body = self.body
        row = _find(self, webhook_id)
        status = fields.choice(body, "status", ("active", "paused"), default="")
        webhooks.update(
            row,
            name=fields.text(body, "name", most=webhooks.LONGEST_NAME),
            url=fields.text(body, "url", most=2000),
            wanted=fields.texts(body, "events", most=len(NAMES)),
        )
        if status and (status == "paused") != (row.paused_at is not None):
            webhooks.set_paused(row, paused=status == "paused", now=timezone.now())
        return Response(present(row))

    put = patch

    def delete(self, request: Request, webhook_id: str) -> Response:
        row = _find(self, webhook_id)
        webhooks.delete(row, now=timezone.now())
        return Response({"id": row.public_id, "deleted": True})


class RotateView(View):
    """`POST /v1/webhooks/{id}/rotate`: a new secret; the old one signs too for 24 hours."""

    def post(self, request: Request, webhook_id: str) -> Response:
        row = _find(self, webhook_id)
        secret = webhooks.rotate(row, now=timezone.now())
        return Response({**present(row), "webhook_secret": secret})


class DeliveriesView(View):
    """`GET /v1/webhooks/{id}/deliveries`"""

    def get(self, request: Request, webhook_id: str) -> Response:
        rows = Delivery.objects.filter(endpoint=_find(self, webhook_id))
        status = self.query.get("status")
        if status:
            if status not in Delivery.State.values:
                raise errors.Invalid("Use pending, delivered or failed.", param="status")
            rows = rows.filter(state=status)
        return lists.page(
            request,
            rows.select_related("event").prefetch_related("log"),
            cursor_key=lambda text: ids.parse("dlv", text),
            present=present_delivery,
        )


class ResendView(View):
    """`POST /v1/webhooks/{id}/deliveries/{delivery_id}/resend`"""

    def post(self, request: Request, webhook_id: str, delivery_id: str) -> Response:
        rows = Delivery.objects.filter(endpoint=_find(self, webhook_id))
        row = rows.by_public_id(delivery_id)
        deliveries.resend(row, now=timezone.now())
        found = rows.select_related("event").prefetch_related("log").get(pk=row.pk)
        return Response(present_delivery(found))
