"""The sandbox's clock: what will fire on the way to an instant, then the run, then what it did.

The list is `billing.forecast`, the run `billing.clock.advance`. A target is an instant, not a
step: sent twice, it is reached once.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils.dateparse import parse_datetime

from billing import clock, errors, forecast, money
from billing.forecast import Due, What
from billing.models import Event, Merchant
from lava.console import access, moments, overview, trail

# Rows shown of a forecast; its sums count all of them.
SHOWN = 200
STEPS = {
    "hour": ("+1 hour", timedelta(hours=1)),
    "day": ("+1 day", timedelta(days=1)),
    "week": ("+1 week", timedelta(weeks=1)),
}
RENEWAL = "renewal"


@access.requires("billing.view_clock")
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/clock`: now, where to, what fires on the way; POST goes there."""
    merchant = request.merchant
    if not merchant.is_sandbox:
        return render(request, "console/sandbox_only.html", {"what": "The clock"}, status=404)
    if request.method == "POST":
        return advance(request)
    return _page(request)


@access.requires("billing.change_clock")
def advance(request: access.ConsoleRequest) -> HttpResponse:
    """Run what falls due up to the instant that was shown, in order."""
    merchant = request.merchant
    before = merchant.now()
    target = parse_datetime(request.POST.get("to", ""))
    try:
        if target is None or target.tzinfo is None:
            raise errors.Invalid("Choose where the clock goes.", param="to")
        clock.advance(merchant, to=target)
        # The run commits as it goes; what moved it is written down after it.
        with transaction.atomic():
            trail.record(
                request,
                "clock.moved",
                before={"now": before.isoformat(timespec="seconds")},
                after={"now": target.isoformat(timespec="seconds")},
            )
    except errors.LavaError as error:
        return _page(request, problem=error.message)
    reached = moments.full(target, merchant.time_zone)
    messages.success(request, f"The sandbox is at {reached}. What happened is below.")
    return redirect(f"/console/clock?{urlencode({'since': before.isoformat()})}")


def _page(request: access.ConsoleRequest, *, problem: str = "") -> HttpResponse:
    merchant = request.merchant
    now, zone = merchant.now(), merchant.time_zone
    chosen = request.GET.get("go", "")
    target: datetime | None = None
    date = request.GET.get("to", "").strip()
    try:
        target, problem = _target(merchant, chosen, date, now=now), problem
    except errors.LavaError as error:
        problem = problem or error.message
    context: dict[str, Any] = {
        "now": now,
        "zone": zone,
        "steps": [(name, label) for name, (label, _) in STEPS.items()],
        "chosen": chosen,
        "date": date,
        "problem": problem,
        "target": target,
        "currency": merchant.currency,
        "offset": moments.span(merchant.clock_offset) if merchant.clock_offset else "",
        "happened": _happened(merchant, request.GET.get("since", ""), now=now),
    }
    if target is not None:
        context |= _ahead(merchant, target, now=now, zone=zone)
    return render(request, "console/clock.html", context, status=409 if problem else 200)


def _target(merchant: Merchant, chosen: str, date: str, *, now: datetime) -> datetime | None:
    """The instant that was asked for; None where nothing was."""
    if chosen in STEPS:
        # To the whole minute, so that the same press twice names the same instant.
        return now.replace(second=0, microsecond=0) + STEPS[chosen][1]
    if chosen == RENEWAL:
        return clock.next_renewal(merchant)
    if not date:
        return None
    local = parse_datetime(date)
    if local is None or local.tzinfo is not None:
        raise errors.Invalid("Write a date and a time.", param="to")
    target = local.replace(tzinfo=ZoneInfo(merchant.time_zone))
    if target <= now:
        raise errors.Refused("The clock only moves forward: choose a later instant.", param="to")
    if target - now > clock.LONGEST:
        raise errors.Refused("Move at most ten years at once.", param="to")
    return target


def _ahead(merchant: Merchant, target: datetime, *, now: datetime, zone: str) -> dict[str, Any]:
    """What falls due on the way, in bands of days, with its sums."""
    found = forecast.ahead(merchant, until=target, now=now)
    rows = [told(row) for row in found.rows[:SHOWN]]
    return {
        "forecast": found,
        "bands": moments.bands(rows, lambda row: row["at"], zone, now=now),
        "count": len(found.rows),
        "hidden": max(len(found.rows) - SHOWN, 0),
        "ahead": moments.span(target - now),
        "is_renewal": any(row.what in (What.RENEWAL, What.FREE_RENEWAL) for row in found.rows),
    }


def told(row: Due) -> dict[str, Any]:
    """One thing that will happen, in words."""
    currency = row.connection.currency

    def show(amount: Any) -> str:
        return money.display(amount, currency)

    parts: list[str] = []
    if row.what in (What.RENEWAL, What.FREE_RENEWAL) and row.pays:
        parts.append(f"{show(row.granted)} credit")
        if row.rolled:
            parts.append(f"rolls over {show(row.rolled)}")
        if row.ended:
            parts.append(f"{show(row.ended)} ends")
    elif row.what in (What.RENEWAL, What.RETRY):
        parts.append(f"Try {row.attempt} of {forecast.TRIES}")
        parts.append("the card declined last time" if row.has_card else "no card is saved")
    elif row.what == What.OVERAGE:
        parts.append("Owed past the credit")
        if not row.pays:
            parts.append("the card declined last time" if row.has_card else "no card is saved")
    elif row.what == What.UNPAID_END:
        parts.append("Every try declined")
    elif row.what == What.END:
        parts.append("Cancelled")
    if row.what in (What.END, What.UNPAID_END) and row.ended:
        parts.append(f"{show(row.ended)} of credit ends with it")
    if row.what == What.VOLUME:
        parts.append(f"{show(row.granted)} comes back for the volume of the cycle")
    if row.what == What.CREDIT_ENDS:
        parts.append(f"{show(row.ended)} reaches its end")
    return {
        "at": row.at,
        "what": {
            What.RENEWAL: "Renewal" if row.pays else "Renewal fails",
            What.FREE_RENEWAL: "Renewal",
            What.RETRY: "Payment tried again",
            What.END: "Plan ends",
            What.UNPAID_END: "Plan ends unpaid",
            What.OVERAGE: "Overage charged" if row.pays else "Overage tried",
            What.CREDIT_ENDS: "Credit ends",
            What.VOLUME: "Volume discount",
        }[row.what],
        "who": str(row.connection),
        "url": f"/console/connections/{row.connection.public_id}",
        "plan": row.plan.name if row.plan is not None else "",
        "why": "; ".join(parts),
        "asked": row.asked if row.asked else None,
        "pays": row.pays,
    }


def _happened(merchant: Merchant, since: str, *, now: datetime) -> dict[str, Any] | None:
    """What the run did: the events between the old now and the new one, as a receipt."""
    start = parse_datetime(since) if since else None
    if start is None or start.tzinfo is None:
        return None
    rows = Event.objects.of(merchant).filter(created_at__gt=start, created_at__lte=now)
    found = list(rows.select_related("connection__customer").order_by("created_at", "id")[:SHOWN])
    return {
        "since": start,
        "rows": [overview.told(row) for row in found],
        "names": sorted(Counter(row.name for row in found).items()),
    }


urls: list[URLPattern] = [path("clock", page, name="clock")]
