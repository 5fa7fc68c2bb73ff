"""API keys: the list, one made and shown once, rotated, revoked, or offered to a terminal."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.utils import timezone

from billing import errors, keys
from billing.models import SecretKey
from lava.console import trail
from lava.console.access import ConsoleRequest, requires
from lava.middleware import ContentSecurityPolicy

# The newest client asks with 32 hex digits; others may ask with what they like of these.
_STATE = re.compile(r"[A-Za-z0-9_-]{8,128}\Z")
_PORT = re.compile(r"[1-9][0-9]{2,4}\Z")


@requires("billing.view_secretkey")
def listing(request: ConsoleRequest) -> HttpResponse:
    """`/console/keys`: the keys of the open books; POST makes one and shows it, once."""
    problem = ""
    if request.method == "POST":
        return make(request)
    rows = SecretKey.objects.of(request.merchant).select_related("created_by")
    return render(
        request,
        "console/keys/list.html",
        {"keys": rows.order_by("revoked_at", "-created_at"), "problem": problem},
    )


@requires("billing.change_secretkey")
def make(request: ConsoleRequest) -> HttpResponse:
    """Make a key; the only page that ever shows it."""
    try:
        with transaction.atomic():
            key, text = keys.make(
                request.merchant, name=request.POST.get("name", ""), user=request.user
            )
            trail.record(request, "key.made", key, after={"key": key.hint})
    except errors.Invalid as error:
        rows = SecretKey.objects.of(request.merchant).select_related("created_by")
        context = {"keys": rows.order_by("revoked_at", "-created_at"), "problem": error.message}
        return render(request, "console/keys/list.html", context, status=400)
    return render(request, "console/keys/made.html", {"key": key, "text": text})


@requires("billing.change_secretkey")
def revoke(request: ConsoleRequest, key: str) -> HttpResponse:
    """Say what stops, then revoke."""
    row = SecretKey.objects.of(request.merchant).by_public_id(key)
    if request.method == "POST":
        with transaction.atomic():
            was_active = row.is_active
            row = keys.revoke(row)
            if was_active:
                trail.record(request, "key.revoked", row, after={"key": row.hint})
        messages.success(request, f"{row.name} is revoked. Requests with it are refused.")
        return redirect("/console/keys")
    return render(request, "console/keys/revoke.html", {"key": row})


def ask(request: HttpRequest) -> HttpResponse:
    """`/auth/connect`: where the client's `Lava.login` sends a browser; the console asks."""
    asked = {name: request.GET.get(name, "") for name in ("state", "port")}
    return redirect(f"/console/keys/connect?{urlencode(asked)}")


@requires("billing.change_secretkey")
def connect(request: ConsoleRequest) -> HttpResponse:
    """Ask whether a terminal on this machine may have a key of the open books; yes sends it a code.

    The code goes to 127.0.0.1 alone, with the terminal's `state`, and buys one key, once.
    """
    state, port = request.GET.get("state", ""), request.GET.get("port", "")
    if not (_STATE.match(state) and _PORT.match(port) and int(port) < 2**16):
        return render(request, "console/keys/connect.html", {"problem": True}, status=400)
    there = f"http://127.0.0.1:{port}"
    if request.method == "POST":
        with transaction.atomic():
            code = keys.offer(request.merchant, user=request.user, now=timezone.now())
            trail.record(request, "key.offered", name="a terminal")
        return redirect(f"{there}/callback?{urlencode({'code': code, 'state': state})}")
    response = render(request, "console/keys/connect.html", {"there": there})
    # The answer to this form, and to no other, leads to the terminal.
    response["Content-Security-Policy"] = ContentSecurityPolicy.POLICY.replace(
        "form-action 'self'", f"form-action 'self' {there}"
    )
    response["X-Frame-Options"] = "DENY"
    return response


@requires("billing.change_secretkey")
def rotate(request: ConsoleRequest, key: str) -> HttpResponse:
    """Say what becomes of the old key, then make the new one; the only page that shows it."""
    row = SecretKey.objects.of(request.merchant).by_public_id(key)
    problem = ""
    if request.method == "POST":
        at_once = request.POST.get("old") == "stops"
        try:
            with transaction.atomic():
                made, text = keys.rotate(row, at_once=at_once, user=request.user)
                trail.record(
                    request,
                    "key.rotated",
                    made,
                    before={"key": row.hint},
                    after={"key": made.hint, "old key": "revoked" if at_once else "works on"},
                )
        except errors.Conflict as error:
            problem = error.message
        else:
            context = {"key": made, "text": text, "old": row, "old_stopped": at_once}
            return render(request, "console/keys/made.html", context)
    context = {"key": row, "problem": problem}
    return render(request, "console/keys/rotate.html", context, status=409 if problem else 200)


urls = [
    path("keys", listing, name="keys"),
    path("keys/connect", connect, name="key-connect"),
    path("keys/<str:key>/rotate", rotate, name="key-rotate"),
    path("keys/<str:key>/revoke", revoke, name="key-revoke"),
]
