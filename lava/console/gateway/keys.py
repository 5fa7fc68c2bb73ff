"""Keys at providers: entered, replaced, deleted; and providers of the merchant's own.

A key is sealed as it comes in and never shown; its last four are enough to know it again.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.views.decorators.debug import sensitive_post_parameters

from billing import errors
from lava.console import access, trail, typed
from meters.gateway import keyring, providers
from meters.models import Provider, ProviderKey

HERE = "/console/gateway/keys"
DIALECTS = {
    "openai": "OpenAI",
    "anthropic": "Anthropic",
    "google": "Gemini",
    "cohere": "Cohere",
    "elevenlabs": "ElevenLabs",
    "bedrock": "Bedrock",
}
SLOTS = {
    "authorization": "Authorization: Bearer",
    "x-api-key": "x-api-key",
    "x-goog-api-key": "x-goog-api-key",
    "api-key": "api-key",
    "xi-api-key": "xi-api-key",
}


@access.requires("meters.view_providerkey")
@sensitive_post_parameters("key")
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/gateway/keys`: the keys in use and one's own providers; POST enters a key."""
    if request.method == "POST":
        return enter(request)
    return _page(request, typed.Form({"provider": request.GET.get("provider", "")}))


@access.requires("meters.change_providerkey")
def enter(request: access.ConsoleRequest) -> HttpResponse:
    """Enter a key in place of the one before it."""
    form = typed.Form.read(request.POST.dict())
    try:
        with transaction.atomic():
            made = keyring.set_key(
                request.merchant,
                provider=form.text("provider"),
                key=form.text("key"),
                actor=str(request.user),
                now=request.merchant.now(),
            )
            name = keyring.row(request.merchant, made.provider).name
            trail.record(
                request, "provider_key.entered", made, name=name, after={"ends in": made.last4}
            )
    except errors.LavaError as error:
        form.refuse(error)
        form.values["key"] = ""
        return _page(request, form, status=422)
    messages.success(request, f"The key for {name} is in use from the next call on.")
    return redirect(HERE)


@access.requires("meters.change_providerkey")
def delete(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say what stops, then stop using a key."""
    row = ProviderKey.objects.of(request.merchant).by_public_id(key)
    name = _name(request, row.provider)
    if request.method == "POST":
        with transaction.atomic():
            was_used = row.revoked_at is None
            keyring.revoke_key(row, now=request.merchant.now())
            if was_used:
                trail.record(
                    request, "provider_key.deleted", row, name=name, after={"ends in": row.last4}
                )
        messages.success(request, f"The key for {name} is deleted.")
        return redirect(HERE)
    return render(
        request, "console/gateway/key_delete.html", {"tab": "keys", "key": row, "name": name}
    )


@access.requires("meters.change_providerkey")
@sensitive_post_parameters("key")
def new_provider(request: access.ConsoleRequest) -> HttpResponse:
    """Add a provider of the merchant's own, with its key where it asks for one."""
    form = typed.Form.read(request.POST.dict())
    if request.method == "POST":
        answer = _add(request, form)
        if answer is not None:
            return answer
        form.values["key"] = ""
    else:
        form.values = {"dialect": "openai", "slot": providers.BEARER, "asks_usage": "1"}
    return render(
        request,
        "console/gateway/provider.html",
        {"tab": "keys", "form": form, "dialects": DIALECTS.items(), "slots": SLOTS.items()},
        status=422 if form.problems else 200,
    )


def _add(request: access.ConsoleRequest, form: typed.Form) -> HttpResponse | None:
    merchant = request.merchant
    try:
        with transaction.atomic():
            made = keyring.add_provider(
                merchant,
                slug=form.text("slug"),
                name=form.text("name"),
                base_url=form.text("base_url"),
                dialect=form.text("dialect"),
                slot=form.text("slot"),
                asks_usage=bool(form.text("asks_usage")),
                private=bool(form.text("private")),
                long_running=bool(form.text("long_running")),
                now=merchant.now(),
            )
            after: dict[str, Any] = {"address": made.row.base}
            if form.text("key"):
                key = keyring.set_key(
                    merchant,
                    provider=made.slug,
                    key=form.text("key"),
                    actor=str(request.user),
                    now=merchant.now(),
                )
                after["key ends in"] = key.last4
            trail.record(request, "provider.added", made, after=after)
    except errors.LavaError as error:
        form.refuse(error)
        return None
    messages.success(request, f"{made.name} can be called as /v1/forward/{made.slug}/…")
    return redirect(HERE)


@access.requires("meters.change_providerkey")
def remove_provider(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say what stops, then stop calling a provider of one's own."""
    row = Provider.objects.of(request.merchant).by_public_id(key)
    if request.method == "POST":
        with transaction.atomic():
            was_there = row.archived_at is None
            keyring.archive_provider(row, now=request.merchant.now())
            if was_there:
                trail.record(request, "provider.removed", row, after={"address": row.row.base})
        messages.success(request, f"{row.name} is not called any more.")
        return redirect(HERE)
    return render(request, "console/gateway/provider_remove.html", {"tab": "keys", "row": row})


def _page(request: access.ConsoleRequest, form: typed.Form, *, status: int = 200) -> HttpResponse:
    merchant = request.merchant
    own = list(Provider.objects.of(merchant).filter(archived_at=None).order_by("name"))
    mine = {row.slug: row for row in own}
    table = {row.slug: row for row in providers.TABLE}
    keys = ProviderKey.objects.of(merchant).filter(revoked_at=None).order_by("provider")
    shown = []
    for key in keys:
        row = mine[key.provider].row if key.provider in mine else table.get(key.provider)
        shown.append((key, row, row is not None and row.origin == key.origin))
    keyed = {key.provider for key, _, _ in shown}
    return render(
        request,
        "console/gateway/keys.html",
        {
            "tab": "keys",
            "keys": shown,
            "own": [
                (row, row.slug in keyed, DIALECTS.get(row.dialect, row.dialect)) for row in own
            ],
            "choices": [
                ("Your own", [(row.slug, row.name, row.slug in keyed) for row in own]),
                ("Common providers", [(row.slug, row.name, row.slug in keyed)
                                      for row in providers.TABLE]),
            ],
            "form": form,
        },
        status=status,
    )  # fmt: skip


def _name(request: access.ConsoleRequest, slug: str) -> str:
    """A provider's name; its slug where it is gone."""
    try:
        return keyring.row(request.merchant, slug).name
    except errors.NotFound:
        return slug


urls: list[URLPattern] = [
    path("gateway/keys", listing, name="gateway-keys"),
    path("gateway/keys/<str:key>/delete", delete, name="gateway-key-delete"),
    path("gateway/providers/new", new_provider, name="gateway-provider-new"),
    path("gateway/providers/<str:key>/remove", remove_provider, name="gateway-provider-remove"),
]
