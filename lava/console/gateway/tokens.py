"""Forward tokens: the list, one with its limits and ready code, and what stops or renews one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, ids
from billing.models import Merchant
from lava.console import access, trail
from lava.console.gateway import snippets
from meters.gateway import keyring, spendkeys
from meters.models import ForwardToken, ProviderKey

PAGE = 25
HERE = "/console/gateway/tokens"
Cycle = ForwardToken.Cycle


@access.requires("meters.view_forwardtoken")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/gateway/tokens`: tokens, newest first, with what they spent."""
    merchant = request.merchant
    rows = ForwardToken.objects.of(merchant)
    before = request.GET.get("before", "")
    if before:
        rows = rows.filter(pk__lt=_key(before))
    found = list(rows.select_related("connection__customer", "meter").order_by("-id")[: PAGE + 1])
    now = merchant.now()
    shown = found[:PAGE]
    return render(
        request,
        "console/gateway/tokens.html",
        {
            "tab": "tokens",
            "rows": [(row, state(row, now=now)) for row in shown],
            "older": urlencode({"before": shown[-1].public_id}) if len(found) > PAGE else "",
            "newest": "" if before else None,
            "currency": merchant.currency,
            "zone": merchant.time_zone,
        },
    )


@access.requires("meters.view_forwardtoken")
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """One token: who pays, its limits and how far they are used, its code; POST pauses it."""
    if request.method == "POST":
        return pause(request, key)
    merchant = request.merchant
    row = find(merchant, key)
    now = merchant.now()
    return render(
        request,
        "console/gateway/token.html",
        {
            "tab": "tokens",
            "token": row,
            "state": state(row, now=now),
            "limits": limits(row, now=now),
            "code": code(merchant, row),
            "currency": merchant.currency,
            "zone": merchant.time_zone,
        },
    )


@access.requires("meters.change_forwardtoken")
def pause(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Pause a token or let it go on; its text stays."""
    row = find(request.merchant, key)
    resume = bool(request.POST.get("resume"))
    wanted = ForwardToken.Status.ACTIVE if resume else ForwardToken.Status.PAUSED
    with transaction.atomic():
        if row.revoked_at is None and row.status != wanted:
            row = spendkeys.update(row, now=request.merchant.now(), status=wanted)
            trail.record(request, "token.resumed" if resume else "token.paused", row)
            words = "works again" if resume else "is paused: its calls are refused"
            messages.success(request, f"{row.name} {words}.")
    return redirect(f"{HERE}/{row.public_id}")


@access.requires("meters.change_forwardtoken")
def rotate(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say what stops, then give a token another text and show it, once."""
    row = find(request.merchant, key)
    if request.method == "POST":
        problem = ""
        try:
            with transaction.atomic():
                row, text = spendkeys.rotate(row)
                trail.record(request, "token.rotated", row, after={"token": row.hint})
        except errors.Conflict as error:
            problem = error.message
        if not problem:
            return made(request, row, text)
        messages.error(request, problem)
        return redirect(f"{HERE}/{row.public_id}")
    return render(request, "console/gateway/token_rotate.html", {"tab": "tokens", "token": row})


@access.requires("meters.change_forwardtoken")
def revoke(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say what stops, then revoke."""
    row = find(request.merchant, key)
    if request.method == "POST":
        with transaction.atomic():
            was_active = row.revoked_at is None
            row = spendkeys.revoke(row, now=request.merchant.now())
            if was_active:
                trail.record(request, "token.revoked", row, after={"token": row.hint})
        messages.success(request, f"{row.name} is revoked. Calls with it are refused.")
        return redirect(HERE)
    return render(request, "console/gateway/token_revoke.html", {"tab": "tokens", "token": row})


def made(request: access.ConsoleRequest, row: ForwardToken, text: str) -> HttpResponse:
    """The only page that ever shows a token's text."""
    return render(
        request,
        "console/gateway/token_made.html",
        {
            "tab": "tokens",
            "token": row,
            "text": text,
            "code": code(request.merchant, row),
            "currency": request.merchant.currency,
        },
    )


def find(merchant: Merchant, key: str) -> ForwardToken:
    """A token of the open books by its public id."""
    rows = ForwardToken.objects.of(merchant)
    found: ForwardToken = rows.select_related(
        "connection__customer", "meter", "merchant"
    ).by_public_id(key)
    return found


def state(row: ForwardToken, *, now: datetime) -> tuple[str, str]:
    """The tag of a token: its tone and its word."""
    if row.revoked_at is not None:
        return "", "Revoked"
    if row.expires_at is not None and row.expires_at <= now:
        return "warn", "Expired"
    if row.status == ForwardToken.Status.PAUSED:
        return "warn", "Paused"
    return "ok", "Active"


def limits(row: ForwardToken, *, now: datetime) -> list[dict[str, Any]]:
    """The limits of a token with how far each is used in its running cycle."""
    found: list[dict[str, Any]] = []
    spent, count = spendkeys.used(row, now=now)
    if row.spend_limit is not None:
        found.append({
            "name": f"Spend {Cycle(row.spend_cycle).label}",
            "used": spent,
            "held": row.held,
            "most": row.spend_limit,
            "is_money": True,
            "share": _share(spent + row.held, row.spend_limit),
        })  # fmt: skip
    if row.request_limit is not None:
        found.append({
            "name": f"Calls {Cycle(row.request_cycle).label}",
            "used": count,
            "most": row.request_limit,
            "is_money": False,
            "share": _share(Decimal(count), Decimal(row.request_limit)),
        })  # fmt: skip
    return found


def _share(used: Decimal, most: Decimal) -> int:
    return min(int(used * 100 / most), 100) if most else 100


def code(merchant: Merchant, row: ForwardToken) -> Sequence[snippets.Snippet]:
    """The ready code for a token."""
    keyed = set(
        ProviderKey.objects.of(merchant).filter(revoked_at=None).values_list("provider", flat=True)
    )
    return snippets.make(
        settings.LAVA_BASE_URL.rstrip("/"),
        keyring.rows(merchant),
        keyed=keyed,
        allowed=row.allowed_providers,
        model=(row.allowed_models or [""])[0],
    )


def _key(text: str) -> UUID:
    """The key of a token; one that is not well formed is before all of them."""
    try:
        return ids.parse("spk", text)
    except errors.NotFound:
        return UUID(int=0)


urls: list[URLPattern] = [
    path("gateway/tokens", listing, name="gateway-tokens"),
    path("gateway/tokens/<str:key>/rotate", rotate, name="gateway-token-rotate"),
    path("gateway/tokens/<str:key>/revoke", revoke, name="gateway-token-revoke"),
]
