"""The form of a forward token: one made and shown once, or the limits of one changed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from billing import errors
from billing.models import Connection, Merchant
from lava.console import access, connections, moments, trail, typed
from lava.console.gateway import tokens
from lava.console.rates import symbol
from meters.gateway import keyring, spendkeys
from meters.gateway.spendkeys import Limits
from meters.models import ForwardToken, Meter, ProviderKey

# Who pays, with what is said about it.
PAYERS = (
    ("customer", "A customer", "Held and charged on their credits, by a meter."),
    ("meter", "Nobody, counted under a meter", "Measured for your own use; nothing is charged."),
    ("merchant", "Nobody, your own calls", "Their cost is kept, and counts against the limit."),
)
# What a verb calls a field that the form calls otherwise.
_FIELDS = {"meter_slug": "meter", "connection_id": "customer"}


@access.requires("meters.change_forwardtoken")
def new(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/gateway/tokens/new`: make a token and show it, once."""
    merchant = request.merchant
    form = typed.Form.read(request.POST.dict())
    form.values["allowed_providers"] = ",".join(request.POST.getlist("allowed_providers"))
    if request.method == "POST":
        answer = _make(request, form)
        if answer is not None:
            return answer
    else:
        customer = request.GET.get("customer", "")
        form.values = {"payer": "customer", "customer": customer, "spend_cycle": "monthly",
                       "request_cycle": "daily"}  # fmt: skip
    return _page(request, form, merchant, None)


def _make(request: access.ConsoleRequest, form: typed.Form) -> HttpResponse | None:
    merchant = request.merchant
    limits = _limits(form, merchant)
    _name(form)
    payer = form.text("payer")
    connection = _customer(form, merchant) if payer == "customer" else None
    meter = None
    if payer in ("customer", "meter"):
        meter = Meter.objects.of(merchant).filter(slug=form.text("meter"), archived_at=None).first()
        if meter is None:
            form.problems["meter"] = "Choose the meter it is counted by."
    if form.problems:
        return None
    try:
        with transaction.atomic():
            row, text = spendkeys.make(
                merchant,
                name=form.text("name"),
                now=merchant.now(),
                connection=connection,
                meter=meter,
                limits=limits,
                actor=str(request.user),
            )
            trail.record(
                request, "token.made", row, after={"token": row.hint} | _facts(row, merchant)
            )
    except errors.LavaError as error:
        _refuse(form, error)
        return None
    return tokens.made(request, tokens.find(merchant, row.public_id), text)


@access.requires("meters.change_forwardtoken")
def change(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Rename a token or change its limits, from its next call on."""
    merchant = request.merchant
    row = tokens.find(merchant, key)
    form = typed.Form.read(request.POST.dict())
    form.values["allowed_providers"] = ",".join(request.POST.getlist("allowed_providers"))
    if request.method == "POST":
        limits = _limits(form, merchant)
        _name(form)
        if not form.problems:
            before = _facts(row, merchant)
            try:
                with transaction.atomic():
                    row = spendkeys.update(
                        row, now=merchant.now(), name=form.text("name"), limits=limits
                    )
                    after = _facts(row, merchant)
                    if after != before:
                        names = [name for name in {**before, **after}
                                 if before.get(name) != after.get(name)]  # fmt: skip
                        trail.record(
                            request,
                            "token.changed",
                            row,
                            before={name: before[name] for name in names if name in before},
                            after={name: after[name] for name in names if name in after},
                        )
            except errors.LavaError as error:
                _refuse(form, error)
            else:
                messages.success(request, f"{row.name} is changed, from its next call on.")
                return redirect(f"{tokens.HERE}/{row.public_id}")
    else:
        form.values = _values(row, merchant)
    return _page(request, form, merchant, row)


def _page(
    request: access.ConsoleRequest, form: typed.Form, merchant: Merchant, row: ForwardToken | None
) -> HttpResponse:
    chosen = form.text("allowed_providers").split(",")
    keyed = set(
        ProviderKey.objects.of(merchant).filter(revoked_at=None).values_list("provider", flat=True)
    )
    return render(
        request,
        "console/gateway/token_form.html",
        {
            "tab": "tokens",
            "token": row,
            "form": form,
            "payers": PAYERS,
            "meters": Meter.objects.of(merchant).filter(archived_at=None).order_by("name", "id"),
            "cycles": ForwardToken.Cycle.choices,
            "providers": [
                (item.slug, item.name, item.slug in chosen)
                for item in keyring.rows(merchant)
                if item.slug in keyed or item.slug in chosen
            ],
            "symbol": symbol(merchant.currency),
        },
        status=422 if form.problems else 200,
    )


def _name(form: typed.Form) -> None:
    if not form.text("name"):
        form.problems["name"] = "Name the token, so that you know it again."


def _customer(form: typed.Form, merchant: Merchant) -> Connection | None:
    """The one customer that fits what was typed."""
    text = form.text("customer")
    if not text:
        form.problems["customer"] = "Name the customer whose credits pay."
        return None
    rows = Connection.objects.of(merchant).visible().filter(connections.matches(text))
    found: list[Connection] = list(rows[:2])
    if len(found) == 1:
        return found[0]
    form.problems["customer"] = (
        "More than one customer fits: use the connection’s id."
        if found
        else "No customer fits. Use their name, e-mail, phone or the connection’s id."
    )
    return None


def _limits(form: typed.Form, merchant: Merchant) -> Limits:
    """The limits of the form; what cannot be read is said at its field."""
    day = moments.read_day(form.text("expires_at"))
    if form.text("expires_at") and day is None:
        form.problems["expires_at"] = "Choose a day."
    models = [line.strip() for line in form.values.get("allowed_models", "").splitlines()]
    allowed = [slug for slug in form.text("allowed_providers").split(",") if slug]
    return Limits(
        allowed_models=[model for model in models if model] or None,
        allowed_providers=allowed or None,
        spend_limit=form.optional("spend_limit"),
        spend_cycle=form.text("spend_cycle") or ForwardToken.Cycle.TOTAL,
        request_limit=_count(form, "request_limit"),
        request_cycle=form.text("request_cycle") or ForwardToken.Cycle.TOTAL,
        rpm=_count(form, "rate_limit"),
        burst=_count(form, "burst"),
        # Through that day, in the merchant's zone.
        expires_at=moments.bounds(day, merchant.time_zone)[1] if day else None,
    )


def _count(form: typed.Form, name: str) -> int | None:
    """A whole number in a field that may be empty."""
    found = form.optional(name)
    if found is None:
        return None
    if found % 1 or not 1 <= found <= 10**9:
        form.problems[name] = "Write a whole number from 1."
        return None
    return int(found)


def _values(row: ForwardToken, merchant: Merchant) -> dict[str, str]:
    """The form of a token that is there."""
    expires = ""
    if row.expires_at is not None:
        local = row.expires_at.astimezone(ZoneInfo(merchant.time_zone))
        expires = (local - moments.INSTANT).date().isoformat()
    return {
        "name": row.name,
        "allowed_models": "\n".join(row.allowed_models or []),
        "allowed_providers": ",".join(row.allowed_providers or []),
        "spend_limit": typed.plain(row.spend_limit, places=2),
        "spend_cycle": row.spend_cycle,
        "request_limit": "" if row.request_limit is None else str(row.request_limit),
        "request_cycle": row.request_cycle,
        "rate_limit": "" if row.rpm is None else str(row.rpm),
        "burst": "" if row.burst is None else str(row.burst),
        "expires_at": expires,
    }


def _facts(row: ForwardToken, merchant: Merchant) -> dict[str, Any]:
    """What a token may do, for the audit trail: only what is limited."""
    cycle = ForwardToken.Cycle
    facts: dict[str, Any] = {
        "name": row.name,
        "pays": row.connection.public_id if row.connection else "",
        "meter": row.meter.slug if row.meter else "",
        "spend limit": _per(row.spend_limit, cycle(row.spend_cycle).label),
        "limit of calls": _per(row.request_limit, cycle(row.request_cycle).label),
        "calls a minute": row.rpm,
        "at once": row.burst,
        "models": row.allowed_models,
        "providers": row.allowed_providers,
        "expires": moments.full(row.expires_at, merchant.time_zone) if row.expires_at else "",
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _per(limit: Decimal | int | None, cycle: str) -> str:
    if limit is None:
        return ""
    return f"{typed.plain(Decimal(limit))} {cycle}"


def _refuse(form: typed.Form, error: errors.LavaError) -> None:
    error.param = _FIELDS.get(error.param or "", error.param)
    form.refuse(error)


urls: list[URLPattern] = [
    path("gateway/tokens/new", new, name="gateway-token-new"),
    path("gateway/tokens/<str:key>/change", change, name="gateway-token-change"),
    path("gateway/tokens/<str:key>", tokens.one, name="gateway-token"),
]
