"""Connections: the list, one customer's page, and what a merchant may do about them.

Reads rows and calls billing's verbs: `credits.give` under the connection's lock,
`subscriptions.cancel` and `resume`, `connections.set_enabled`. Each act first says what will
change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.db import connection as database
from django.db import transaction
from django.db.models import OuterRef, Prefetch, Q, Subquery
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import connections as verbs
from billing import credits, errors, ids, ledger, money, subscriptions
from billing.models import Connection, CreditGrant, Plan, Subscription
from lava.console import access, charts, meters, moments, timeline, trail, typed
from lava.console.plans import PER, symbol
from meters import pricing
from meters.models import Meter, MeterPosition

PAGE = 25
ZERO = Decimal(0)
Source = CreditGrant.Source
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
    "disabled": ("Disabled", Q(status=Connection.Status.DISABLED)),
}


@dataclass(frozen=True, slots=True)
class Tile:
    """A balance: what is left, of how much, when it is spent, what becomes of it."""

    label: str
    left: Decimal
    of: Decimal
    order: str
    note: str
    of_note: str = ""

    @property
    def share(self) -> str:
        """How full its bar is, from 0 to 100."""
        if self.of <= 0 or self.left <= 0:
            return "0"
        return f"{min(self.left / self.of, Decimal(1)) * 100:.1f}"


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
            "rows": [(row, row.current[0] if row.current else None, tag(row)) for row in shown],
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
    connection = _find(merchant, key)
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
    used = _used(connection, current, now=now)
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
        "tiles": tiles(connection, current, live, zone=zone),
        "balance": _balance(connection, live),
        "cycle": _cycle(current, now=now, zone=zone),
        "meters": _meters_this_cycle(connection, current, used),
        "zone": zone,
        "currency": connection.currency,
        "now": now,
        "debt": connection.debt,
    }
    if not before and not show:
        context["chart"] = _chart(connection, current, live, used, now=now, zone=zone)
    return render(request, "console/connections/detail.html", context)


@access.requires("billing.change_connection")
def give(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Give credits by hand: typed, then shown as now and after, then given."""
    merchant = request.merchant
    connection = _find(merchant, key)
    now = merchant.now()
    form = typed.Form.read(request.POST.dict())
    amount = ZERO
    given = _given(connection)
    ready = False
    if request.method == "POST":
        amount = form.amount("amount")
        if "amount" not in form.problems and not amount > 0:
            form.problems["amount"] = "Give an amount above 0."
        if not form.text("reason"):
            form.problems["reason"] = "Say why the credits are given."
        elif len(form.text("reason")) > 255:
            form.problems["reason"] = "Use at most 255 characters."
        ready = not form.problems
        if ready and form.text("step") == "give":
            answer = _give(request, connection, form, amount, now=now)
            if answer is not None:
                return answer
            ready = "form" in form.problems
    balance = credits.balance(connection, now=now)
    paid = min(connection.debt - connection.collecting, amount)
    return render(
        request,
        "console/connections/give.html",
        {
            "connection": connection,
            "form": form,
            "ready": ready,
            "amount": amount,
            "balance": balance,
            "after": {
                "total": balance.total + amount,
                "bundle": balance.bundle + amount - paid,
                "debt": balance.debt - paid,
            },
            "given": given,
            "currency": connection.currency,
            "symbol": symbol(connection.currency),
        },
        status=422 if form.problems else 200,
    )


def _give(
    request: access.ConsoleRequest,
    connection: Connection,
    form: typed.Form,
    amount: Decimal,
    *,
    now: datetime,
) -> HttpResponse | None:
    """Give what was shown. Sent twice, it is given once: the page says how many gifts it saw."""
    try:
        with transaction.atomic():
            locked = ledger.lock(connection.pk, merchant_id=connection.merchant_id)
            if str(_given(locked)) != form.text("given"):
                form.problems["form"] = (
                    "Credits were given since this page was shown. Look at the balance and "
                    "confirm again if these are to be added."
                )
                return None
            credits.give(
                locked,
                amount=amount,
                reason=form.text("reason"),
                actor=str(request.user),
                now=now,
            )
            trail.record(
                request,
                "credits.given",
                connection,
                after={"amount": typed.plain(amount, places=2), "reason": form.text("reason")},
            )
    except errors.LavaError as error:
        form.refuse(error)
        return None
    messages.success(request, f"{money.display(amount, connection.currency)} given.")
    return redirect(f"/console/connections/{connection.public_id}")


@access.requires("billing.change_connection")
def cancel(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Cancel the plan at the end of the cycle, or take the cancellation back."""
    merchant = request.merchant
    connection = _find(merchant, key)
    subscription = connection.subscription
    if subscription is None:
        messages.info(request, "There is no plan to cancel.")
        return redirect(f"/console/connections/{connection.public_id}")
    pending = subscription.pending_change == Subscription.PendingChange.CANCELLATION
    plan_name = subscription.plan.name
    problem = ""
    if request.method == "POST":
        try:
            if request.POST.get("keep"):
                with transaction.atomic():
                    subscriptions.resume(subscription, now=merchant.now())
                    if pending:
                        trail.record(request, "plan.kept", connection, after={"plan": plan_name})
                messages.success(request, f"{subscription.plan.name} goes on.")
            else:
                with transaction.atomic():
                    subscriptions.cancel(subscription, now=merchant.now())
                    if not pending:
                        trail.record(
                            request, "plan.cancelled", connection, after={"plan": plan_name}
                        )
                day = moments.short(subscription.cycle_end, merchant.time_zone)
                messages.success(request, f"{subscription.plan.name} ends {day}.")
        except errors.LavaError as error:
            problem = error.message
        else:
            return redirect(f"/console/connections/{connection.public_id}")
    return render(
        request,
        "console/connections/cancel.html",
        {
            "connection": connection,
            "subscription": subscription,
            "plan": subscription.plan,
            "pending": pending,
            "balance": credits.balance(connection, now=merchant.now()),
            "ends": moments.short(subscription.cycle_end, merchant.time_zone),
            "keeps_bundles": subscription.plan.bundle_rollover_type == Plan.Rollover.FULL,
            "problem": problem,
            "zone": merchant.time_zone,
            "currency": connection.currency,
            "per": PER,
        },
        status=409 if problem else 200,
    )


@access.requires("billing.change_connection")
def disable(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Refuse every request of the customer from now on, or take them again."""
    merchant = request.merchant
    connection = _find(merchant, key)
    problem = ""
    if request.method == "POST":
        enabled = bool(request.POST.get("enable"))
        try:
            with transaction.atomic():
                before = connection.status
                after = verbs.set_enabled(connection, enabled=enabled, now=merchant.now()).status
                trail.record(
                    request,
                    "customer.enabled" if enabled else "customer.disabled",
                    connection,
                    before={"status": before},
                    after={"status": after},
                )
        except errors.LavaError as error:
            problem = error.message
        else:
            said = "Requests are taken again." if enabled else "Requests are refused from now on."
            messages.success(request, said)
            return redirect(f"/console/connections/{connection.public_id}")
    return render(
        request,
        "console/connections/disable.html",
        {
            "connection": connection,
            "is_disabled": connection.status == Connection.Status.DISABLED,
            "subscription": connection.subscription,
            "problem": problem,
            "zone": merchant.time_zone,
        },
        status=409 if problem else 200,
    )


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


def tag(connection: Connection) -> tuple[str, str]:
    """The tone and the word of a connection's state."""
    if connection.status == Connection.Status.DISABLED:
        return "bad", "Disabled"
    if connection.debt > 0:
        return "warn", "Overage"
    return "ok", "Active"


def tiles(
    connection: Connection,
    subscription: Subscription | None,
    live: list[CreditGrant],
    *,
    zone: str,
) -> list[Tile]:
    """The four balances, in the order of the draw."""

    def sums(*sources: str) -> tuple[Decimal, Decimal]:
        found = [grant for grant in live if grant.source in sources]
        # A grant spent in an earlier cycle is no part of this one.
        shown = [
            grant
            for grant in found
            if grant.remaining
            or subscription is None
            or grant.created_at >= subscription.cycle_start
        ]
        return (
            sum((grant.remaining for grant in shown), ZERO),
            sum((grant.amount for grant in shown), ZERO),
        )

    currency = connection.currency
    cycle, rolled, bundles = (
        sums(Source.CYCLE),
        sums(Source.ROLLOVER),
        sums(Source.BUNDLE, Source.MANUAL),
    )
    total = cycle[0] + rolled[0] + bundles[0] - connection.debt
    owed = money.display(connection.debt, currency)
    plan = subscription.plan if subscription is not None else None
    next_note, rolls, keeps = "No plan", "No plan", "Kept"
    if plan is not None and subscription is not None:
        end = moments.day_month(subscription.cycle_end, zone)
        full = plan.rollover_type == Plan.Rollover.FULL
        kept = plan.bundle_rollover_type == Plan.Rollover.FULL
        next_note = f"Next {money.display(plan.included_credit, currency)} on {end}"
        rolls = "Kept while subscribed" if full else f"Ends {end}"
        keeps = "Kept while subscribed" if kept else f"Ends {end}"
        if subscription.pending_change:
            next_note = f"Ends {end}"
    return [
        Tile(
            "Left to spend",
            total,
            cycle[1] + rolled[1] + bundles[1],
            "",
            f"Exactly {money.display(total, currency)}. Overage owed: {owed}",
            "this cycle",
        ),
        Tile("Plan credit", *cycle, "spent 1st", next_note),
        Tile("Rolled over", *rolled, "spent 2nd", rolls),
        Tile("Bundles", *bundles, "spent 3rd", keeps),
    ]


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


def _find(merchant: Any, key: str) -> Connection:
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


def _balance(connection: Connection, live: Iterable[CreditGrant]) -> Decimal:
    left: Decimal = sum((grant.remaining for grant in live), ZERO) - connection.debt
    return left


def _given(connection: Connection) -> int:
    """How many times credits were given to a connection by hand."""
    rows = CreditGrant.objects.filter(connection=connection, source=Source.MANUAL)
    return int(rows.count())


def _cycle(subscription: Subscription | None, *, now: datetime, zone: str) -> dict[str, Any] | None:
    """Where in the cycle it is: the day, of how many, and how full the bar is."""
    if subscription is None:
        return None
    start, end = subscription.cycle_start, subscription.cycle_end
    span = max((end - start).total_seconds(), 1)
    passed = min(max((now - start).total_seconds(), 0), span)
    total = max(round(span / 86400), 1)
    return {
        "day": min(int(passed // 86400) + 1, total),
        "days": total,
        "share": f"{Decimal(passed) / Decimal(span) * 100:.1f}",
        "ends": moments.short(end, zone),
        "overdue": end <= now,
    }


@dataclass(frozen=True, slots=True)
class _Used:
    """What a connection used: by meter in this cycle, and in the last two weeks of 7 days."""

    meters: dict[UUID, tuple[Decimal, Decimal]]
    week: Decimal
    earlier: Decimal


def _used(connection: Connection, subscription: Subscription | None, *, now: datetime) -> _Used:
    """One query over the requests of the cycle and of the last 14 days."""
    if subscription is None:
        return _Used({}, ZERO, ZERO)
    since = now - timedelta(days=14)
    first = min(since, subscription.cycle_start) - connection.merchant.clock_offset
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT meter_id, "
            "COALESCE(sum(quantity) FILTER (WHERE subscription_id = %(sub)s AND cycle_index = "
            " %(cycle)s), 0), "
            "COALESCE(sum(charged) FILTER (WHERE subscription_id = %(sub)s AND cycle_index = "
            " %(cycle)s), 0), "
            "COALESCE(sum(charged) FILTER (WHERE created_at >= %(week)s), 0), "
            "COALESCE(sum(charged) FILTER (WHERE created_at >= %(since)s AND created_at < "
            " %(week)s), 0) "
            "FROM meters_usagerequest WHERE connection_id = %(con)s AND id >= %(first)s "
            "GROUP BY meter_id",
            {
                "con": connection.pk,
                "sub": subscription.pk,
                "cycle": subscription.cycle_index,
                "week": now - timedelta(days=7),
                "since": since,
                "first": ids.first(first),
            },
        )
        rows = cursor.fetchall()
    return _Used(
        {row[0]: (row[1], row[2]) for row in rows},
        sum((row[3] for row in rows), ZERO),
        sum((row[4] for row in rows), ZERO),
    )


def _meters_this_cycle(
    connection: Connection, subscription: Subscription | None, used: _Used
) -> list[dict[str, Any]]:
    """Each meter of the plan: used and charged this cycle, and the price of the next unit."""
    if subscription is None:
        return []
    lifetime = MeterPosition.objects.filter(
        connection=connection, meter=OuterRef("pk"), scope=connection.pk, window=-1
    )
    cycle = MeterPosition.objects.filter(
        connection=connection,
        meter=OuterRef("pk"),
        scope=subscription.pk,
        window=subscription.cycle_index,
    )
    found = []
    rows = (
        Meter.objects.filter(links__plan=subscription.plan_id)
        .select_related("price")
        .annotate(
            lifetime=Subquery(lifetime.values("quantity")[:1]),
            cycle=Subquery(cycle.values("quantity")[:1]),
        )
        .order_by("name", "id")
    )
    for meter in rows:
        price = meter.price
        assert price is not None
        quantity, charged = used.meters.get(meter.pk, (ZERO, ZERO))
        position = meter.cycle if price.tier_window == "cycle" else meter.lifetime
        place = _tier(price, position or ZERO)
        note = meters.tier_rate(price, place, connection.currency)
        fixed = price.rate_type == "fixed"
        found.append(
            {
                "meter": meter,
                "quantity": meters.count(quantity, price.unit)
                + (f", tier {place + 1} of {len(price.tiers)}" if len(price.tiers) > 1 else ""),
                "charged": charged,
                "price": f"now {note}" if fixed else f"{note} of cost",
            }
        )
    return found


def _tier(price: Any, position: Decimal) -> int:
    """The tier of the next unit after a position (seconds for minutes)."""
    tiers: list[pricing.Tier] = price.tiers
    scale = 60 if price.unit == "minutes" else 1
    return max(place for place, tier in enumerate(tiers) if tier.start * scale <= position)


def _chart(
    connection: Connection,
    subscription: Subscription | None,
    live: list[CreditGrant],
    used: _Used,
    *,
    now: datetime,
    zone: str,
) -> dict[str, Any] | None:
    """The balance over the cycle, and the hour it runs out at the rate of the last 7 days."""
    if subscription is None:
        return None
    points = timeline.days(connection, since=subscription.cycle_start, zone=zone)
    if not points:
        return None
    left = _balance(connection, live)
    points.append((now, left))
    begun = min(Decimal((now - subscription.started_at).total_seconds()) / 86400, Decimal(7))
    daily = used.week / max(begun, Decimal(1))
    runs_out = None
    if daily > 0 and left > 0:
        days = left / daily
        if days < 400:
            runs_out = now + timedelta(seconds=int(days * 86400))
    drawn = charts.balance(
        points,
        start=subscription.cycle_start,
        end=max(subscription.cycle_end, now),
        now=now,
        runs_out=runs_out,
        currency=connection.currency,
        zone=zone,
    )
    if drawn is None:
        return None
    whole = money.floor_minor(daily, connection.currency)
    before = money.floor_minor(used.earlier / 7, connection.currency)
    plan = subscription.plan
    return drawn | {
        "runs_out": runs_out if runs_out and runs_out <= subscription.cycle_end else None,
        "daily": whole,
        "before": before if subscription.started_at <= now - timedelta(days=14) else None,
        "then": _then(plan),
        "left": left,
    }


def _then(plan: Plan) -> str:
    """What happens when the credit is gone, in a sentence."""
    if plan.when_depleted == Plan.WhenDepleted.BLOCK:
        return "Then requests are refused until a bundle is bought."
    if plan.overage_cap is None:
        return "Then the card is charged as overage."
    cap = money.display(plan.overage_cap, plan.currency)
    return f"Then the card is charged as overage, at most {cap} a cycle."


urls: list[URLPattern] = [
    path("connections/", listing, name="connections"),
    path("connections/<str:key>", one, name="connection"),
    path("connections/<str:key>/give-credits", give, name="connection-give"),
    path("connections/<str:key>/cancel", cancel, name="connection-cancel"),
    path("connections/<str:key>/disable", disable, name="connection-disable"),
]
