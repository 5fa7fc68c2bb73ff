"""The front page: the first minute's checklist until it is done, then the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.http import HttpResponse
from django.shortcuts import redirect, render

from billing import money
from billing.models import Connection, Event, Merchant, Plan, SecretKey, User
from lava.console import numbers, periods
from lava.console.access import ConsoleRequest, requires
from meters.models import Meter, UsageRequest


@dataclass(slots=True)
class Step:
    """One line of the checklist; it ticks itself off from the database."""

    name: str
    text: str
    done: bool
    url: str = ""
    verb: str = ""


def front(request: ConsoleRequest) -> HttpResponse:
    """`/console/`; before anybody exists, the first run."""
    if getattr(request, "membership", None) is None and not User.objects.exists():
        return redirect("/console/first-run")
    answer: HttpResponse = page(request)
    return answer


@requires("billing.view_any")
def page(request: ConsoleRequest) -> HttpResponse:
    """The numbers of a time, or the checklist where nothing was charged yet."""
    merchant: Merchant = request.merchant
    if not is_ready(merchant):
        steps, facts = checklist(merchant)
        return render(
            request,
            "console/checklist.html",
            {
                "steps": steps,
                "done": sum(step.done for step in steps),
                "next": next((step for step in steps if not step.done), None),
                **facts,
            },
        )
    now = merchant.now()
    period = periods.read(request.GET.dict(), now=now, zone=merchant.time_zone)
    found = numbers.facts(merchant, now=now, period=period)
    return render(
        request,
        "console/overview.html",
        {
            "period": period,
            "ranges": periods.RANGES,
            "since": period.start,
            "until": min(period.end - timedelta(seconds=1), now),
            "currency": merchant.currency,
            "tiles": numbers.tiles(found),
            "chart": chart(found.series, merchant=merchant, now=now, period=period),
            "legend": [
                (min(place, 3), one.name, one.total, numbers.spoken(one))
                for place, one in enumerate(found.series)
            ],
            "needs": numbers.needs(found),
            "activity": [told(event) for event in numbers.activity(merchant)],
            "plans": found.plans,
            "customers": found.customers,
            "mrr": found.mrr,
            "credit": found.credit,
            "outstanding": found.outstanding,
            "deferred": found.deferred,
        },
    )


def is_branded(merchant: Merchant) -> bool:
    organization = merchant.organization
    return bool(organization.support_email or organization.logo)


def is_ready(merchant: Merchant) -> bool:
    """Whether every step of the checklist is done; one query."""
    if not is_branded(merchant):
        return False
    mine = {"merchant": OuterRef("pk")}
    plans = Plan.objects.filter(archived_at=None, meters__archived_at=None, **mine)
    return Merchant.objects.filter(
        Exists(plans.filter(meters__isnull=False)),
        Exists(SecretKey.objects.filter(revoked_at=None, **mine)),
        Exists(Connection.objects.visible().filter(**mine)),
        Exists(UsageRequest.objects.filter(**mine)),
        pk=merchant.pk,
    ).exists()


def checklist(merchant: Merchant) -> tuple[list[Step], dict[str, Any]]:
    """The way to the first charged request, and what its code needs."""
    mine = {"merchant": merchant}
    meter = Meter.objects.filter(archived_at=None, **mine).order_by("pk").first()
    plan = (
        Plan.objects.filter(archived_at=None, **mine)
        .annotate(metered=Exists(Meter.objects.filter(plans=OuterRef("pk"))))
        .order_by("-metered", "pk")
        .first()
    )
    key = SecretKey.objects.filter(revoked_at=None, **mine).first()
    connection = Connection.objects.of(merchant).visible().order_by("pk").first()
    charged = UsageRequest.objects.of(merchant).exists()
    steps = [
        Step("Brand", "Name, colour and a support address. Customers see them at checkout.",
             is_branded(merchant), "/console/brand", "Set your brand"),
        Step("Meter", f"{meter.name}, sent in your code as {meter.slug}." if meter else
             "What you count, and what a unit costs.", meter is not None,
             "/console/meters/new", "Make a meter"),
        Step("Plan", f"{plan.name}, with your meter attached." if plan and plan.metered else
             "A price, the credit it gives, and the meters it pays for.",
             bool(plan and plan.metered),
             f"/console/plans/{plan.public_id}" if plan else "/console/plans/new",
             "Attach the meter" if plan else "Make a plan"),
        Step("First key", f"{key.hint}, named {key.name}." if key else
             "Your backend sends it with every call.", key is not None,
             "/console/keys", "Make a key"),
        Step("First checkout", _how_to_check_out(merchant, plan, connection),
             connection is not None),
        Step("First usage", "Charge some usage to that customer and watch the balance."
             if connection else "The code to run stands here once a customer has checked out.",
             charged),
    ]  # fmt: skip
    facts = {
        "base": settings.LAVA_BASE_URL,
        "plan_id": plan.public_id if plan else "",
        "meter_slug": meter.slug if meter else "",
        "connection_id": connection.public_id if connection else "",
        "field": _usage_field(meter),
    }
    return steps, facts


def _how_to_check_out(merchant: Merchant, plan: Plan | None, connection: Connection | None) -> str:
    if connection is not None:
        return "Your first customer is under Connections."
    if plan is None:
        return "The code to run stands here once there is a plan."
    if merchant.is_sandbox:
        return "Run this, open the address it prints, and pay with a test card."
    return "Run this, and send a customer the address it prints."


def _usage_field(meter: Meter | None) -> str:
    unit = meter.price.unit if meter and meter.price else "tokens_1m"
    return {"characters_1m": "input_characters", "minutes": "input_seconds"}.get(
        unit, "input_tokens"
    )


# Names of events in the words of the activity list: the tag, its tone, what happened.
WORDS: dict[str, tuple[str, str, str]] = {
    "payment.succeeded": ("Payment", "", "paid"),
    "payment.failed": ("Payment failed", "bad", "had a card declined"),
    "subscription.created": ("New customer", "accent", "subscribed"),
    "subscription.renewed": ("Renewal", "", "renewed"),
    "subscription.past_due": ("Past due", "warn", "is past due"),
    "subscription.cancelled": ("Ended", "", "has ended"),
    "subscription.changed": ("Changed", "", "changed the plan"),
    "connection.created": ("Connected", "accent", "connected"),
    "connection.deleted": ("Deleted", "", "was deleted"),
    "connection.depleted": ("Out of credit", "warn", "has used all credit"),
    "connection.card_removed": ("Card removed", "warn", "has no card any more"),
    "payment.refunded": ("Refund", "", "was paid back"),
    "payment.refund_failed": ("Refund failed", "bad", "could not be paid back"),
    "payment.action_required": ("Needs the customer", "warn", "must confirm a payment"),
    "payment.disputed": ("Disputed", "bad", "disputes a payment"),
    "payment.dispute_closed": ("Dispute closed", "", "has a dispute closed"),
    "topup.capped": ("Top-up stopped", "warn", "has reached the month\u2019s top-up limit"),
    "volume.settled": ("Volume discount", "", "was given the volume discount of a cycle"),
    "merchant.card_account_changed": ("Card account", "", "changed"),
}
PURPOSES = {
    "subscription": "the plan",
    "renewal": "the renewal",
    "overage": "usage past credit",
    "bundle": "a bundle",
    "top_up": "a top-up",
    "upgrade": "the upgrade",
}


def told(event: Event) -> dict[str, Any]:
    """An event in words."""
    tag, tone, verb = WORDS.get(event.name, (event.name, "", ""))
    data = event.data
    if event.name.startswith("payment."):
        purpose = PURPOSES.get(data.get("purpose", ""))
        verb = f"{verb} for {purpose}" if purpose else verb
    elif data.get("plan"):
        verb = f"{verb} ({data['plan']})"
    amount = Decimal(data["amount"]) if "amount" in data else None
    return {
        "at": event.created_at,
        "tag": tag,
        "tone": tone,
        "who": str(event.connection.customer) if event.connection else "",
        "verb": verb,
        "amount": amount,
        "url": f"/console/connections/{event.connection.public_id}" if event.connection else "",
    }


WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 260, 56, 28, 10


def chart(
    series: list[numbers.Series], *, merchant: Merchant, now: datetime, period: periods.Period
) -> dict[str, Any]:
    """Stacked bars, one a local day: places and sizes for the drawing, sums for the table."""
    zone = ZoneInfo(merchant.time_zone)
    today = now.astimezone(zone).date()
    dates, days = list(period), period.days
    sums = [sum((one.days.get(day, Decimal(0)) for one in series), Decimal(0)) for day in dates]
    top = _round_up(max(sums, default=Decimal(0)))
    room = HEIGHT - BOTTOM - TOP
    step = (WIDTH - LEFT) / days
    bars = []
    for place, day in enumerate(dates):
        base = Decimal(0)
        for number, one in enumerate(series):
            value = one.days.get(day, Decimal(0))
            if not value:
                continue
            height = float(value / top) * room
            bars.append(
                {
                    "x": f"{LEFT + place * step + step * 0.17:.2f}",
                    "y": f"{HEIGHT - BOTTOM - float((base + value) / top) * room:.2f}",
                    "width": f"{step * 0.66:.2f}",
                    "height": f"{height:.2f}",
                    "tone": min(number, 3),
                    "today": day == today,
                    "title": f"{day.day} {day:%b}, {one.name}: "
                    f"{money.display(value, merchant.currency)}",
                }
            )
            base += value
    lines = [
        {
            "y": f"{HEIGHT - BOTTOM - room * part / 4:.2f}",
            "label": money.display(top * part / 4, merchant.currency).removesuffix(".00"),
        }
        for part in range(5)
    ]
    every = max(days // 6, 1)
    labels = [
        {
            "x": f"{LEFT + place * step + step / 2:.2f}",
            "text": "Today" if day == today else f"{day.day} {day:%b}",
        }
        for place, day in enumerate(dates)
        if day == today or (place % every == 0 and days - 1 - place >= every * 0.7)
    ]
    table = [(day, total) for day, total in zip(dates, sums, strict=True) if total]
    return {
        "bars": bars, "lines": lines, "labels": labels, "table": table,
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "base": HEIGHT - 8,
        "empty": not bars,
    }  # fmt: skip


def _round_up(value: Decimal) -> Decimal:
    """A round number just above, for the top of an axis."""
    if value <= 0:
        return Decimal(1)
    power = Decimal(10) ** (value.adjusted())
    for step in (Decimal(1), Decimal("1.2"), Decimal("1.6"), Decimal(2), Decimal("2.4"),
                 Decimal(3), Decimal(4), Decimal(6), Decimal(8), Decimal(10)):  # fmt: skip
        if step * power >= value:
            return step * power
    return power * 10
