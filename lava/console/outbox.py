"""The outbox of the sandbox: the texts and mails that would have been sent, newest first."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, ids
from billing.models import OutboxMessage
from lava.console import access, moments

PAGE = 30


@access.requires("billing.view_outboxmessage")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/outbox`: each message with all of its text; by address, by kind."""
    merchant = request.merchant
    if not merchant.is_sandbox:
        return render(request, "console/sandbox_only.html", {"what": "The outbox"}, status=404)
    query = {name: request.GET.get(name, "").strip() for name in ("to", "kind")}
    rows = OutboxMessage.objects.of(merchant)
    if query["to"]:
        rows = rows.filter(to__icontains=query["to"])
    if query["kind"] in OutboxMessage.Kind.values:
        rows = rows.filter(kind=query["kind"])
    before = request.GET.get("before", "")
    if before:
        rows = rows.filter(pk__lt=_key(before))
    found = list(rows.order_by("-id")[: PAGE + 1])
    shown, zone, now = found[:PAGE], merchant.time_zone, merchant.now()
    bands = moments.bands(shown, lambda row: row.created_at, zone, now=now)
    kept = {name: value for name, value in query.items() if value}
    return render(
        request,
        "console/outbox.html",
        {
            "bands": bands,
            "newest_id": shown[0].pk if shown and not before else None,
            "older": urlencode(kept | {"before": shown[-1].public_id}) if len(found) > PAGE else "",
            "newest": urlencode(kept) if before else None,
            "query": query,
            "kinds": OutboxMessage.Kind.choices,
            "is_filtered": bool(kept),
            "zone": zone,
        },
    )


def _key(text: str) -> UUID:
    """The key of a message; one that is not well formed is before all of them."""
    try:
        return ids.parse("msg", text)
    except errors.NotFound:
        return UUID(int=0)


urls: list[URLPattern] = [path("outbox", listing, name="outbox")]
