"""Webhooks: the endpoints with their health, what was sent to one, and every try of a message.

Reads, and sends again (`billing.deliveries`); making and changing endpoints is `endpoints`. Times
are real ones: messages leave in real time, whatever a sandbox's clock says.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.contrib import messages
from django.db import connection as database
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from billing import deliveries, errors, ids, webhooks
from billing.models import Delivery, DeliveryAttempt, Merchant, WebhookEndpoint
from lava.console import access, moments, payments, trail

PAGE = 20
HOURS = 48
# A message is tried for so long; older ones have no try in the window of the bars.
_TRIED = timedelta(days=8)
_TONES = {
    Delivery.State.PENDING: "warn",
    Delivery.State.DELIVERED: "ok",
    Delivery.State.FAILED: "bad",
}

# The tries of the last two days by endpoint and hour: how many, and how many were taken.
_HOURLY = """
SELECT d.endpoint_id, date_trunc('hour', a.at), count(*),
       count(*) FILTER (WHERE a.status >= 200 AND a.status < 300)
  FROM billing_deliveryattempt a JOIN billing_delivery d ON d.id = a.delivery_id
 WHERE d.merchant_id = %(merchant)s AND d.id >= %(first)s AND a.at >= %(since)s
 GROUP BY 1, 2
"""
# What waits for each endpoint, and how long it takes to answer.
_REST = """
SELECT e.id,
       (SELECT count(*) FROM billing_delivery w
         WHERE w.merchant_id = e.merchant_id AND w.endpoint_id = e.id AND w.state = 'pending'),
       (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a.duration_ms)
          FROM billing_deliveryattempt a JOIN billing_delivery d ON d.id = a.delivery_id
         WHERE d.merchant_id = e.merchant_id AND d.endpoint_id = e.id AND d.id >= %(first)s
           AND a.at >= %(since)s AND a.status >= 200 AND a.status < 300)
  FROM billing_webhookendpoint e
 WHERE e.merchant_id = %(merchant)s AND e.deleted_at IS NULL
"""


@dataclass(slots=True)
class Health:
    """How an endpoint did in the last two days."""

    endpoint: WebhookEndpoint
    # An hour each, the oldest first: "none", "ok" or "bad".
    hours: list[str]
    share: str
    median: str
    waiting: int

    @property
    def tone(self) -> str:
        if self.endpoint.paused_at is not None:
            return "warn"
        return "bad" if self.endpoint.failing_since is not None else "ok"


@access.requires("billing.view_webhookendpoint")
@require_GET
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/webhooks`: every endpoint; the messages of one; the tries of one message."""
    merchant = request.merchant
    now = timezone.now()
    rows = list(webhooks.live(merchant).select_related("merchant").order_by("created_at", "pk"))
    chosen = _chosen(rows, request.GET.get("endpoint", ""))
    state = request.GET.get("state", "")
    state = state if state in Delivery.State.values else ""
    context: dict[str, Any] = {
        "endpoints": health(merchant, rows, now=now),
        "chosen": chosen,
        "state": state,
        "states": Delivery.State.choices,
        "zone": merchant.time_zone,
        "hours": HOURS,
    }
    if chosen is not None:
        context |= _messages(merchant, chosen, request.GET, state=state, now=now)
        context["host"] = urlsplit(chosen.url).netloc
    return render(request, "console/webhooks/page.html", context)


def _chosen(rows: list[WebhookEndpoint], text: str) -> WebhookEndpoint | None:
    """The endpoint that was asked for, else the first one that needs somebody, else the first."""
    asked = next((row for row in rows if row.public_id == text), None)
    failing = next((row for row in rows if row.failing_since is not None), None)
    return asked or failing or (rows[0] if rows else None)


def health(merchant: Merchant, rows: list[WebhookEndpoint], *, now: datetime) -> list[Health]:
    """The last two days of each endpoint, hour by hour; two queries for all of them."""
    since = now - timedelta(hours=HOURS)
    first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    params: dict[str, Any] = {
        "merchant": merchant.pk,
        "since": since,
        "first": ids.first(since - _TRIED),
    }
    with database.cursor() as cursor:
        cursor.execute(_HOURLY, params)
        hourly = {(key, hour): (count, good) for key, hour, count, good in cursor.fetchall()}
        cursor.execute(_REST, params)
        rest = {key: (waiting, median) for key, waiting, median in cursor.fetchall()}
    found = []
    for row in rows:
        mine = [hourly.get((row.pk, first + timedelta(hours=n)), (0, 0)) for n in range(HOURS)]
        count, good = sum(pair[0] for pair in mine), sum(pair[1] for pair in mine)
        waiting, median = rest.get(row.pk, (0, None))
        found.append(
            Health(
                endpoint=row,
                hours=[_mark(*pair) for pair in mine],
                share=f"{Decimal(good) * 100 / count:.1f} %" if count else "none sent",
                median=f"{median:,.0f} ms" if median is not None else "",
                waiting=waiting,
            )
        )
    return found


def _mark(count: int, good: int) -> str:
    if not count:
        return "none"
    return "ok" if good == count else "bad"


def _messages(
    merchant: Merchant, endpoint: WebhookEndpoint, query: Any, *, state: str, now: datetime
) -> dict[str, Any]:
    """A page of what was sent to an endpoint, and the one that is open."""
    rows: QuerySet[Delivery] = Delivery.objects.of(merchant).filter(endpoint=endpoint)
    shown = rows.filter(state=state) if state else rows
    before = query.get("before", "")
    if before:
        shown = shown.filter(pk__lt=payments.key_of("dlv", before))
    listed = list(shown.select_related("event").prefetch_related("log").order_by("-pk")[: PAGE + 1])
    kept = {"endpoint": endpoint.public_id} | ({"state": state} if state else {})
    asked = query.get("delivery", "")
    opened = None
    if asked:
        opened = (
            rows.select_related("event")
            .prefetch_related("log")
            .filter(pk=payments.key_of("dlv", asked))
            .first()
        )
    elif listed:
        opened = listed[0]
    found: dict[str, Any] = {
        "bands": moments.bands(
            [(row, _last(row)) for row in listed[:PAGE]],
            lambda pair: pair[0].created_at,
            merchant.time_zone,
            now=now,
        ),
        "older": urlencode(kept | {"before": listed[PAGE - 1].public_id})
        if len(listed) > PAGE
        else "",
        "newest": urlencode(kept) if before else "",
        "kept": urlencode(kept | ({"before": before} if before else {})),
        "opened": opened,
        "is_asked": bool(asked),
        "queue": _queue(rows, endpoint, now=now),
    }
    if opened is not None:
        found |= _opened(opened, endpoint, query.get("try", ""))
    return found


def _queue(rows: Any, endpoint: WebhookEndpoint, *, now: datetime) -> dict[str, Any]:
    """What waits for an endpoint that fails or is paused: how many, and when the next try is."""
    if endpoint.failing_since is None and endpoint.paused_at is None:
        return {}
    waiting = rows.filter(state=Delivery.State.PENDING)
    following = waiting.order_by("next_attempt_at").values_list("next_attempt_at", flat=True)
    due = following.first()
    return {
        "count": waiting.count(),
        "next": max(due, now) if due is not None else None,
    }


def _last(row: Delivery) -> tuple[str, str]:
    """The tag of a message: its tone, and what came back last."""
    log = list(row.log.all())
    tone = _TONES[Delivery.State(row.state)]
    if not log:
        return "", "to be sent"
    status = log[-1].status
    if row.state == Delivery.State.PENDING:
        tone = "bad" if status is None or status >= 300 else ""
    return tone, str(status) if status is not None else "no answer"


def _opened(row: Delivery, endpoint: WebhookEndpoint, number: str) -> dict[str, Any]:
    """One message: a try with what was sent and what came back."""
    log: list[DeliveryAttempt] = list(row.log.all())
    tries = list(reversed(log))
    chosen = next((one for one in log if str(one.pk) == number), tries[0] if tries else None)
    body = row.body.encode()
    return {
        "tries": tries,
        "chosen_try": chosen,
        "head": _head(row, endpoint, chosen),
        "body": row.body,
        "size": len(body),
        "digest": hashlib.sha256(body).hexdigest(),
        "curl": _curl(row, endpoint),
        "is_ok": chosen is not None and chosen.status is not None and chosen.status < 300,
    }


def _head(
    row: Delivery, endpoint: WebhookEndpoint, at: DeliveryAttempt | None
) -> list[tuple[str, str]]:
    """The headers of a try. Its signatures are made anew from its own instant, which gives the same
    bytes as long as the secret that signed them is kept."""
    url = urlsplit(endpoint.url)
    lines = [
        ("Host", url.netloc),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(row.body.encode()))),
        ("User-Agent", "Lava-Webhooks/1"),
        ("X-Webhook-Sequence", str(row.sequence)),
    ]
    if at is None:
        return lines
    lines.append(("X-Webhook-Attempt", str(at.number)))
    rotated = endpoint.previous_until - webhooks.OVERLAP if endpoint.previous_until else None
    if rotated is None or at.at - timedelta(milliseconds=at.duration_ms) >= rotated:
        # `at` is when the answer came; the signature is of when the message left.
        left = at.at - timedelta(milliseconds=at.duration_ms)
        signed = webhooks.headers(
            endpoint, message_id=row.event.public_id, body=row.body.encode(), at=left
        )
        lines += [(name, signed[name]) for name in ("webhook-id", "X-Webhook-Signature")]
    else:
        lines.append(("webhook-id", row.event.public_id))
        lines.append(("X-Webhook-Signature", "by a secret that was rotated since"))
    return lines


def _curl(row: Delivery, endpoint: WebhookEndpoint) -> str:
    """A command that sends the same bytes from the reader's own machine, unsigned."""
    body = row.body.replace("'", "'\\''")
    return (
        f"curl -X POST {json.dumps(endpoint.url)} \\\n  -H 'Content-Type: application/json' \\\n"
        f"  -H 'webhook-id: {row.event.public_id}' \\\n  -d '{body}'"
    )


@access.requires("billing.change_webhookendpoint")
@require_POST
def resend(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Send one message again: same id, same bytes."""
    row = _find(Delivery.objects.of(request.merchant).select_related("endpoint", "event"), key)
    with transaction.atomic():
        deliveries.resend(row, now=timezone.now())
        trail.record(
            request, "webhook.resent", row.endpoint, after={"message": row.event.public_id}
        )
    messages.success(request, f"{row.event.name} is sent again within seconds, as it was.")
    return redirect(f"/console/webhooks?endpoint={row.endpoint.public_id}&delivery={row.public_id}")


@access.requires("billing.change_webhookendpoint")
@require_POST
def send_now(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Have all that waits for an endpoint tried now."""
    row = _find(webhooks.live(request.merchant), key)
    with transaction.atomic():
        count = deliveries.send_now(row, now=timezone.now())
        trail.record(request, "webhook.tried", row, after={"messages": count})
    messages.success(request, f"{count:,} message{'' if count == 1 else 's'} tried now.")
    return redirect(f"/console/webhooks?endpoint={row.public_id}")


def _find(rows: Any, key: str) -> Any:
    try:
        return rows.by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error


urls: list[URLPattern] = [
    path("webhooks", page, name="webhooks"),
    path("webhooks/messages/<str:key>/resend", resend, name="webhook-resend"),
    path("webhooks/<str:key>/send-now", send_now, name="webhook-send-now"),
]
