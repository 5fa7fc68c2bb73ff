"""Connections: the list, and one customer's page. What may be done about one is `acts`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Prefetch, Q
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, ids
from billing.models import Connection, Plan, Subscription
from lava.console import access, purse, timeline
from lava.console.rates import PER

PAGE = 25
FILTERS = ("q", "show", "plan")
# What the list may be narrowed to, in the merchant's words.
SHOWN = {
    "owing": ("Owing past credit", Q(owes=True)),
    "past_due": ("Past due", Q(subscriptions__status=Subscription.Status.PAST_DUE)),
    "ending": (
        "Ending at renewal",
        Q(subscriptions__status__in=Subscription.CURRENT)
        & Q(subscriptions__pending_change=Subscription.PendingChange.CANCELLATION),
    ),
    "ended": (
        "Plan ended",
        Q(subscriptions__ended_at__isnull=False)
        & ~Q(subscriptions__status__in=Subscription.CURRENT),
    ),
    "disabled": ("Disabled", Q(status=Connection.Status.DISABLED)),
}


@access.requires("billing.view_connection")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """Customers by name, e-mail, phone, id or the merchant's own id, newest first."""
    merchant = request.merchant
    query = {name: request.GET.get(name, "").strip() for name in FILTERS}
    rows = filtered(merchant, query)
    kept = {name: value for name, value in query.items() if value}
    before = request.GET.get("before", "")
    if before:
        try:
            rows = rows.filter(pk__lt=ids.parse("con", before))
        except errors.NotFound as error:
            raise Http404 from error
    current = Subscription.objects.current().select_related("plan")
    found = list(
        rows.select_related("customer")
        .prefetch_related(Prefetch("subscriptions", current, to_attr="current"))
        .order_by("-id")[: PAGE + 1]
    )
    shown = found[:PAGE]
    return render(
        request,
        "console/connections/list.html",
        {
            "rows": [
                (row, next(iter(row.current), None), tag(row, has_plan=bool(row.current)))
                for row in shown
            ],
            "query": query,
            "export": urlencode(kept),
            "is_filtered": bool(kept),
            "shown": [(name, label) for name, (label, _) in SHOWN.items()],
            "plans": Plan.objects.of(merchant).order_by("archived_at", "name", "id"),
            "older": urlencode(kept | {"before": shown[-1].public_id}) if len(found) > PAGE else "",
            "newest": urlencode(kept) if before else None,
            "zone": merchant.time_zone,
        },
    )


@access.requires("billing.view_connection")
@require_GET
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """A customer: balances, what used them, what can be done."""
    merchant = request.merchant
    connection = find(merchant, key)
    now, zone = merchant.now(), merchant.time_zone
    subscription = _subscription(connection)
    show = request.GET.get("show", "")
    before = request.GET.get("before", "")
    bands, older, live = timeline.page(
        connection,
        before=int(before) if before.isdecimal() and len(before) < 19 else None,
        show=show,
        zone=zone,
        now=now,
    )
    current = subscription if subscription is not None and subscription.ended_at is None else None
    used = purse.used_by(connection, current, now=now)
    context = {
        "connection": connection,
        "subscription": current,
        "last_subscription": subscription,
        "plan": current.plan if current else None,
        "per": PER,
        "tag": tag(connection),
        "card": connection.card,
        "bands": bands,
        "older": urlencode({"before": older} | ({"show": show} if show else {})) if older else "",
        "show": show,
        "tiles": purse.tiles(connection, current, live, zone=zone),
        "balance": purse.balance(connection, live),
        "cycle": purse.cycle(current, now=now, zone=zone),
        "meters": purse.meters_this_cycle(connection, current, used),
        "zone": zone,
        "currency": connection.currency,
        "now": now,
        "debt": connection.debt,
    }
    if not before and not show:
        which = "usage" if request.GET.get("chart") == "usage" else "balance"
        context["which"] = which
        context["chart"] = purse.chart(
            connection, current, live, used, which=which, now=now, zone=zone
        )
    return render(request, "console/connections/detail.html", context)


def filtered(merchant: Any, query: dict[str, str]) -> Any:
    """The connections that fit all of `FILTERS` that are given."""
    rows = Connection.objects.of(merchant).visible()
    if query["q"]:
        rows = rows.filter(matches(query["q"]))
    if query["show"] in SHOWN:
        rows = rows.filter(SHOWN[query["show"]][1])
    if query["plan"]:
        rows = rows.filter(
            subscriptions__plan_id=_key("sc", query["plan"]),
            subscriptions__status__in=Subscription.CURRENT,
        )
    return rows


def tag(connection: Connection, *, has_plan: bool = True) -> tuple[str, str]:
    """The tone and the word of a connection's state."""
    if connection.status == Connection.Status.DISABLED:
        return "bad", "Disabled"
    if connection.debt > 0:
        return "warn", "Owes"
    if not has_plan:
        return "plain", "No plan"
    return "ok", "Active"


def matches(text: str) -> Q:
    """Where a search may hit; an id must be whole."""
    if text.startswith("con_"):
        try:
            return Q(pk=ids.parse("con", text))
        except errors.NotFound:
            return Q(pk=None)
    found = (
        Q(customer__email__icontains=text)
        | Q(customer__first_name__icontains=text)
        | Q(customer__last_name__icontains=text)
        | Q(reference=text)
    )
    first, _, last = text.partition(" ")
    if last:
        found |= Q(customer__first_name__icontains=first, customer__last_name__icontains=last)
    digits = "".join(letter for letter in text if letter.isdigit())
    if len(digits) >= 4 and not any(letter.isalpha() for letter in text):
        found |= Q(customer__phone__contains=digits)
    return found


def _key(prefix: str, text: str) -> UUID:
    """The key of a public id; one that is not well formed finds nothing."""
    try:
        return ids.parse(prefix, text)
    except errors.NotFound:
        return UUID(int=0)


def find(merchant: Any, key: str) -> Connection:
    """A connection of the open books by its public id; another's is not found."""
    rows = (
        Connection.objects.of(merchant)
        .visible()
        .select_related("customer", "merchant__organization")
    )
    try:
        found: Connection = rows.by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error
    return found


def _subscription(connection: Connection) -> Subscription | None:
    """The subscription that counts, else the one that ended last."""
    found: Subscription | None = (
        Subscription.objects.filter(connection=connection)
        .select_related("plan")
        .order_by("-started_at", "-id")
        .first()
    )
    return found


urls: list[URLPattern] = [
    path("connections/", listing, name="connections"),
    path("connections/<str:key>", one, name="connection"),
]
