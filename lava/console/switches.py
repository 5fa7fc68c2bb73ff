"""Switch a customer's plan: choose one, see what is charged and what the ledger gets, then do it.

A dearer plan begins at once and charges the saved card; any other waits for the end of the cycle
and can be taken back until then. Calls `billing.upgrades`, `billing.changes`,
`billing.subscriptions`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from billing import changes, errors, ids, money, subscriptions, upgrades
from billing.models import Connection, Payment, Plan, Subscription
from lava.console import access, connections, dry_runs, moments, trail, typed
from lava.console.rates import PER


@access.requires("billing.change_connection")
def switch(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Choose, look, switch; or stay, where a change is pending."""
    merchant = request.merchant
    connection = connections.find(merchant, key)
    subscription = connection.subscription
    home = f"/console/connections/{connection.public_id}"
    if subscription is None:
        messages.info(request, "There is no plan to switch. Send a checkout link instead.")
        return redirect(home)
    now = merchant.now()
    if request.method == "POST" and request.POST.get("stay"):
        return _stay(request, connection, subscription, now=now)
    form = typed.Form.read(request.POST.dict() or request.GET.dict())
    plan = _chosen(merchant, form.text("plan"))
    offer: changes.Preview | None = None
    lines: list[dry_runs.Line] = []
    if form.text("plan") and plan is None:
        form.problems["plan"] = "Choose a plan of the list."
    if plan is not None:
        try:
            offer = changes.preview(subscription, plan=plan, now=now)
            if request.method == "POST" and form.text("step") == "switch":
                answer = _switch(request, connection, subscription, plan, form, offer, now=now)
                if answer is not None:
                    return answer
            lines = _lines(connection, subscription, plan, now=now, zone=merchant.time_zone)
        except errors.LavaError as error:
            form.refuse(error)
    return render(
        request,
        "console/connections/switch.html",
        {
            "connection": connection,
            "subscription": subscription,
            "current": subscription.plan,
            "choices": _choices(subscription),
            "chosen": plan,
            "form": form,
            "offer": offer,
            "stamp": _stamp(offer) if offer else "",
            "lines": lines,
            "no_lines": "None now: the cycle’s end writes them."
            if offer and not offer.is_upgrade
            else "None.",
            "card": connection.card,
            "ends": moments.short(subscription.cycle_end, merchant.time_zone),
            "begins": moments.short(offer.effective_at, merchant.time_zone) if offer else "",
            "until": moments.short(offer.cycle_end, merchant.time_zone) if offer else "",
            "per": PER,
            "currency": connection.currency,
            "zone": merchant.time_zone,
        },
        status=422 if form.problems else 200,
    )


def _stamp(offer: changes.Preview) -> str:
    """What the page showed, so that the click does that or nothing."""
    return f"{offer.charge.amount:f}/{'now' if offer.is_upgrade else 'later'}"


def _choices(subscription: Subscription) -> list[tuple[Plan, str]]:
    """The plans that can be switched to, the cheapest a year first, each with when it begins."""
    rows = (
        Plan.objects.filter(
            merchant_id=subscription.merchant_id,
            archived_at=None,
            price_currency=subscription.plan.currency,
        )
        .exclude(pk=subscription.plan_id)
        .order_by("name", "id")
    )
    return [
        (
            row,
            "at once, the card is charged"
            if changes.is_upgrade(subscription.plan, row)
            else "when the cycle ends",
        )
        for row in sorted(rows, key=lambda row: (changes.yearly(row), row.name))
    ]


def _chosen(merchant: Any, text: str) -> Plan | None:
    try:
        key = ids.parse("sc", text)
    except errors.NotFound:
        return None
    found: Plan | None = Plan.objects.of(merchant).filter(pk=key).first()
    return found


def _lines(
    connection: Connection, subscription: Subscription, plan: Plan, *, now: datetime, zone: str
) -> list[dry_runs.Line]:
    """What an upgrade writes once it is paid; any other change writes nothing before it begins."""
    if not changes.is_upgrade(subscription.plan, plan):
        return []

    def act(_: Connection) -> None:
        fresh = subscriptions.locked(subscription)
        offer = changes.quote(fresh, plan=plan, now=now)
        changes.move_now(fresh, plan=plan, offer=offer, leaves=fresh.cycle_index, now=now)

    return dry_runs.lines(connection, act, zone=zone)


def _switch(
    request: access.ConsoleRequest,
    connection: Connection,
    subscription: Subscription,
    plan: Plan,
    form: typed.Form,
    offer: changes.Preview,
    *,
    now: datetime,
) -> HttpResponse | None:
    """Switch as the page showed it, and say what became of it."""
    if form.text("charge") != _stamp(offer):
        form.problems["form"] = (
            "The price of the switch has changed since this page was shown, because credit was "
            "used. Look again and confirm."
        )
        return None
    before = subscription.plan.name
    try:
        done = upgrades.switch(subscription, plan=plan, now=now)
    except errors.LavaError as error:
        form.refuse(error)
        return None
    payment, zone = done.payment, request.merchant.time_zone
    # The switch commits as it goes, with the network in between; it is written down after it.
    with transaction.atomic():
        trail.record(
            request,
            "plan.switched",
            connection,
            before={"plan": before},
            after={
                "plan": plan.name,
                "charged": money.show(payment.amount) if payment is not None else "nothing",
                "payment": payment.get_status_display() if payment is not None else "none",
            },
        )
    if payment is not None and payment.status != Payment.Status.SUCCEEDED:
        _tell_unpaid(request, connection, payment, before)
    elif done.subscription.plan_id == plan.pk:
        paid = f", and paid {money.show(payment.amount)}" if payment is not None else ""
        messages.success(request, f"{connection.customer} is on {plan.name}{paid}.")
    else:
        day = moments.short(done.subscription.cycle_end, zone)
        messages.success(request, f"{connection.customer} moves to {plan.name} {day}.")
    return redirect(f"/console/connections/{connection.public_id}")


def _tell_unpaid(
    request: access.ConsoleRequest, connection: Connection, payment: Payment, before: str
) -> None:
    if payment.status == Payment.Status.FAILED:
        why = payment.failure_message or "The card was declined."
        messages.error(
            request,
            f"{why} {connection.customer} stays on {before}; nothing was charged. They can switch "
            "at checkout with another card.",
        )
    elif payment.status == Payment.Status.REQUIRES_ACTION:
        messages.warning(
            request,
            "The bank wants the customer to confirm. They got a mail with a link; until then they "
            f"stay on {before}.",
        )
    else:
        messages.warning(
            request,
            "The card network has not answered. It is asked what happened, never charged anew; "
            f"until then the plan is {before}.",
        )


def _stay(
    request: access.ConsoleRequest,
    connection: Connection,
    subscription: Subscription,
    *,
    now: datetime,
) -> HttpResponse:
    """Take back a change that is pending."""
    pending = subscription.pending_plan
    try:
        with transaction.atomic():
            subscriptions.resume(subscription, now=now)
            trail.record(
                request,
                "plan.stayed",
                connection,
                before={"next plan": pending.name if pending else "none"},
                after={"next plan": subscription.plan.name},
            )
    except errors.LavaError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{connection.customer} stays on {subscription.plan.name}.")
    return redirect(f"/console/connections/{connection.public_id}")


urls: list[URLPattern] = [
    path("connections/<str:key>/switch-plan", switch, name="connection-switch"),
]
