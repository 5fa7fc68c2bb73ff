"""What a merchant may do about a customer: give credits, cancel or keep the plan, disable.

Each act first says what will change; a form sent twice is done once. Calls billing's verbs.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from billing import connections as verbs
from billing import credits, errors, ledger, money, subscriptions
from billing.models import Connection, CreditGrant, Plan
from lava.console import access, connections, moments, trail, typed
from lava.console.plans import PER, symbol

ZERO = Decimal(0)


@access.requires("billing.change_connection")
def give(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Give credits by hand: typed, then shown as now and after, then given."""
    merchant = request.merchant
    connection = connections.find(merchant, key)
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


def _given(connection: Connection) -> int:
    """How many times credits were given to a connection by hand."""
    rows = CreditGrant.objects.filter(connection=connection, source=CreditGrant.Source.MANUAL)
    return int(rows.count())


@access.requires("billing.change_connection")
def cancel(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Cancel the plan at the end of the cycle, or take the cancellation back."""
    merchant = request.merchant
    connection = connections.find(merchant, key)
    subscription = connection.subscription
    if subscription is None:
        messages.info(request, "There is no plan to cancel.")
        return redirect(f"/console/connections/{connection.public_id}")
    pending = subscription.is_ending
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
    connection = connections.find(merchant, key)
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


urls: list[URLPattern] = [
    path("connections/<str:key>/give-credits", give, name="connection-give"),
    path("connections/<str:key>/cancel", cancel, name="connection-cancel"),
    path("connections/<str:key>/disable", disable, name="connection-disable"),
]
