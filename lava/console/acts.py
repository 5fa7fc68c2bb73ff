"""What a merchant may do about a customer: cancel or keep the plan, disable, enable.

Each act first says what will change; a form sent twice is done once. Calls billing's verbs.
"""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from billing import connections as verbs
from billing import credits, errors, subscriptions
from billing.models import Connection, Plan
from lava.console import access, connections, moments, trail
from lava.console.rates import PER


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
    path("connections/<str:key>/cancel", cancel, name="connection-cancel"),
    path("connections/<str:key>/disable", disable, name="connection-disable"),
]
