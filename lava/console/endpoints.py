"""Webhook endpoints: make one, change it, pause it, rotate its secret, delete it.

A secret is shown once, on the page that made it. Calls `billing.webhooks`.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone
from django.views.decorators.http import require_POST

from billing import errors, events, webhooks
from billing.models import WebhookEndpoint
from lava.console import access, trail, typed

CHANGE = "billing.change_webhookendpoint"


@access.requires(CHANGE)
def new(request: access.ConsoleRequest) -> HttpResponse:
    """Make an endpoint; the answer shows its secret, for the only time."""
    form = typed.Form()
    chosen: list[str] = []
    if request.method == "POST":
        form, chosen = typed.Form.read(request.POST.dict()), request.POST.getlist("events")
        try:
            with transaction.atomic():
                row, secret = webhooks.create(
                    request.merchant,
                    name=form.text("name"),
                    url=form.text("url"),
                    wanted=[] if form.text("all") else chosen,
                    now=timezone.now(),
                )
                trail.record(request, "webhook.made", row, after=_facts(row))
        except errors.LavaError as error:
            form.refuse(error)
        else:
            return _secret(request, row, secret, rotated=False)
    return _form(request, form, chosen, row=None)


@access.requires(CHANGE)
def change(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Change where an endpoint is and what it hears."""
    row = find(request.merchant, key)
    form = typed.Form({"name": row.name, "url": row.url, "all": "" if row.events else "1"})
    chosen: list[str] = list(row.events)
    if request.method == "POST":
        form, chosen = typed.Form.read(request.POST.dict()), request.POST.getlist("events")
        before = _facts(row)
        try:
            with transaction.atomic():
                row = webhooks.update(
                    row,
                    name=form.text("name"),
                    url=form.text("url"),
                    wanted=[] if form.text("all") else chosen,
                )
                trail.record(request, "webhook.changed", row, before=before, after=_facts(row))
        except errors.LavaError as error:
            form.refuse(error)
        else:
            messages.success(request, "Saved. What still waits goes to the address above.")
            return redirect(f"/console/webhooks?endpoint={row.public_id}")
    return _form(request, form, chosen, row=row)


@access.requires(CHANGE)
@require_POST
def pause(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Keep what is to be sent, or send again."""
    row = find(request.merchant, key)
    paused = not request.POST.get("resume")
    with transaction.atomic():
        before = {"paused": row.paused_at is not None}
        webhooks.set_paused(row, paused=paused, now=timezone.now())
        action = "webhook.paused" if paused else "webhook.resumed"
        trail.record(request, action, row, before=before, after={"paused": paused})
    messages.success(
        request,
        f"{row.name} is paused. Everything is kept for it."
        if paused
        else f"{row.name} is told again, what has waited first.",
    )
    return redirect(f"/console/webhooks?endpoint={row.public_id}")


@access.requires(CHANGE)
def rotate(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say what a new secret does, then make and show it."""
    row = find(request.merchant, key)
    if request.method == "POST":
        with transaction.atomic():
            secret = webhooks.rotate(row, now=timezone.now())
            trail.record(request, "webhook.rotated", row)
        return _secret(request, row, secret, rotated=True)
    return render(request, "console/webhooks/rotate.html", {"endpoint": row})


@access.requires(CHANGE)
def delete(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say what is lost, then tell the endpoint no more."""
    row = find(request.merchant, key)
    if request.method == "POST":
        with transaction.atomic():
            webhooks.delete(row, now=timezone.now())
            trail.record(request, "webhook.deleted", row, before=_facts(row), after={})
        messages.success(request, f"{row.name} is told no more.")
        return redirect("/console/webhooks")
    waiting = row.deliveries.filter(state="pending").count()
    context = {"endpoint": row, "waiting": waiting}
    return render(request, "console/webhooks/delete.html", context)


def find(merchant: Any, key: str) -> WebhookEndpoint:
    """An endpoint of the open books by its public id; another's is not found."""
    try:
        found: WebhookEndpoint = (
            webhooks.live(merchant).select_related("merchant").by_public_id(key)
        )
    except errors.NotFound as error:
        raise Http404 from error
    return found


def _facts(row: WebhookEndpoint) -> dict[str, Any]:
    return {"name": row.name, "url": row.url, "events": list(row.events) or "all"}


def _form(
    request: access.ConsoleRequest,
    form: typed.Form,
    chosen: list[str],
    *,
    row: WebhookEndpoint | None,
) -> HttpResponse:
    groups: dict[str, list[tuple[str, bool]]] = {}
    for name in events.NAMES:
        groups.setdefault(name.partition(".")[0], []).append((name, name in chosen))
    context = {
        "endpoint": row,
        "form": form,
        "groups": [(name.replace("topup", "top-up"), names) for name, names in groups.items()],
        "all": bool(form.text("all")) or (row is None and not form.values),
        "local": webhooks.local_allowed(request.merchant),
    }
    status = 422 if form.problems else 200
    return render(request, "console/webhooks/form.html", context, status=status)


def _secret(
    request: access.ConsoleRequest, row: WebhookEndpoint, secret: str, *, rotated: bool
) -> HttpResponse:
    context = {"endpoint": row, "secret": secret, "rotated": rotated}
    return render(request, "console/webhooks/secret.html", context)


urls: list[URLPattern] = [
    path("webhooks/new", new, name="webhook-new"),
    path("webhooks/<str:key>", change, name="webhook"),
    path("webhooks/<str:key>/pause", pause, name="webhook-pause"),
    path("webhooks/<str:key>/rotate", rotate, name="webhook-rotate"),
    path("webhooks/<str:key>/delete", delete, name="webhook-delete"),
]
