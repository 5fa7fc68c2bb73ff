"""The pages of the meter builder: the list, one meter's form with its use, its versions, plans."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from billing import errors
from billing.models import Connection, Plan, Subscription
from checkout import prices as words
from lava.console import access, numbers, rates, trail, typed
from lava.console.meters.builder import Builder, Row, facts, filled, read
from lava.console.meters.calculator import calculation
from lava.console.rates import symbol
from meters import prices
from meters.models import Meter, MeterPrice


@access.requires("meters.view_meter")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """Every meter with its price, its plans and how many customers are on them."""
    merchant = request.merchant
    rows = (
        Meter.objects.of(merchant)
        .filter(archived_at=None)
        .select_related("price")
        .prefetch_related("plans")
        .order_by("name", "id")
    )
    on_plan = _customers(merchant)
    shown = []
    for meter in rows:
        if meter.price is None:
            continue
        meter.customers = sum(on_plan.get(plan.pk, 0) for plan in meter.plans.all())
        price = words.tell(meter.price, merchant.currency)
        shown.append((meter, price, rates.WORDS[meter.price.unit].many))
    return render(request, "console/meters/list.html", {"meters": shown})


@access.requires("meters.change_meter")
def new(request: access.ConsoleRequest) -> HttpResponse:
    """Make a meter."""
    merchant = request.merchant
    if request.method != "POST":
        values = {
            "kind": "rate",
            "unit": "tokens_1m",
            "token_basis": "input+output",
            "tier_mode": "graduated",
            "tier_window": "lifetime",
            "base_cost_payer": "merchant",
            "tier_rate_type": "fixed",
            "package_rounding": "up",
        }
        return page(request, Builder(typed.Form(values), [Row(0, "0", "")]), meter=None)
    builder = read(request)
    terms = builder.terms()
    if builder.is_sound:
        try:
            with transaction.atomic():
                meter = prices.create_meter(
                    merchant,
                    slug=builder.form.text("slug"),
                    name=builder.form.text("name"),
                    terms=terms,
                    actor=_actor(request),
                    now=merchant.now(),
                )
                trail.record(request, "meter.made", meter, after=facts(meter, meter.price))
        except errors.LavaError as error:
            builder.refuse(error)
        else:
            messages.success(request, f"{meter.name} is ready. Attach it to a plan to charge it.")
            return redirect(f"/console/meters/{meter.public_id}")
    return page(request, builder, meter=None)


@access.requires("meters.view_meter")
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """A meter's form; posting publishes a changed price as the next version."""
    merchant = request.merchant
    meter = find(merchant, key)
    if request.method == "POST":
        return _save(request, meter)
    return page(request, filled(meter, merchant.currency), meter=meter)


@access.requires("meters.change_meter")
def _save(request: access.ConsoleRequest, meter: Meter) -> HttpResponse:
    merchant = request.merchant
    builder = read(request)
    builder.form.values["slug"] = meter.slug
    before = meter.price
    terms = builder.terms(prices.of(before) if before is not None else None)
    if builder.is_sound:
        try:
            with transaction.atomic():
                old = facts(meter, before)
                prices.rename(meter, name=builder.form.text("name"))
                price = prices.publish(
                    meter, terms=terms, actor=_actor(request), now=merchant.now()
                )
                new = facts(meter, price) | {"name": builder.form.text("name")}
                trail.record(request, "meter.changed", meter, before=old, after=new)
        except errors.LavaError as error:
            builder.refuse(error)
        else:
            fresh = before is None or price.pk != before.pk
            messages.success(
                request,
                f"Version {price.version} counts from the next request on." if fresh else "Saved.",
            )
            return redirect(f"/console/meters/{meter.public_id}")
    return page(request, builder, meter=meter)


@access.requires("meters.change_meter")
@require_POST
def attach(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Put the meter on a plan, or take it off one."""
    merchant = request.merchant
    meter = find(merchant, key)
    try:
        plan = Plan.objects.of(merchant).by_public_id(request.POST.get("plan", ""))
    except errors.NotFound as error:
        raise Http404 from error
    off = bool(request.POST.get("take_off"))
    with transaction.atomic():
        before = {"on_plan": plan.meters.filter(pk=meter.pk).exists(), "plan": plan.name}
        (prices.detach if off else prices.attach)(meter, plan)
        after = {"on_plan": not off, "plan": plan.name}
        action = "meter.detached" if off else "meter.attached"
        trail.record(request, action, meter, before=before, after=after)
    if off:
        messages.success(request, f"{meter.name} is off {plan.name}. Its requests are refused.")
    else:
        messages.success(request, f"{meter.name} is on {plan.name} from the next request on.")
    return redirect(f"/console/meters/{meter.public_id}")


def page(request: access.ConsoleRequest, builder: Builder, *, meter: Meter | None) -> HttpResponse:
    """The builder's page: an empty one, a meter's, or what was typed with its problems."""
    merchant = request.merchant
    currency = merchant.currency
    context = calculation(builder, currency=currency) | {
        "meter": meter,
        "builder": builder,
        "form": builder.form,
        "symbol": symbol(currency),
        "units": [(key, word.many.capitalize()) for key, word in rates.WORDS.items()],
        "words": {
            key: [word.many, word.one, word.per, word.short] for key, word in rates.WORDS.items()
        },
        "template_row": Row(-1, "", ""),
        "kinds": builder.kind_fields,
        "used": meter is not None and prices.was_used(meter),
    }
    if meter is not None and meter.price is not None:
        context |= _in_use(merchant, meter)
    status = 200 if builder.is_sound or request.method == "GET" else 422
    return render(request, "console/meters/form.html", context, status=status)


def _in_use(merchant: Any, meter: Meter) -> dict[str, Any]:
    """Where a meter is attached, what it earned in 30 days, its versions, its ready code."""
    assert meter.price is not None
    unit = meter.price.unit
    on_plan = _customers(merchant)
    plans = list(
        Plan.objects.of(merchant)
        .filter(archived_at=None)
        .annotate(attached=Count("meter_links", filter=Q(meter_links__meter=meter)))
        .order_by("name", "id")
    )
    rows = [(plan, on_plan.get(plan.pk, 0)) for plan in plans if plan.attached]
    used = numbers.used(merchant, meter)
    connection = Connection.objects.of(merchant).visible().order_by("-id").first()
    return {
        "attached": rows,
        "attached_names": _and([plan.name for plan, _ in rows]),
        "free_plans": [plan for plan in plans if not plan.attached],
        "attached_total": sum(count for _, count in rows),
        "used_in_30_days": _counted(used[0], unit),
        "charged_in_30_days": used[1],
        "versions": [
            (version, words.tell(version, merchant.currency))
            for version in MeterPrice.objects.filter(meter=meter).order_by("-version")[:20]
        ],
        "code": _code(meter, connection),
        "zone": merchant.time_zone,
    }


def _customers(merchant: Any) -> dict[Any, int]:
    """How many customers are on each plan now."""
    rows = Subscription.objects.of(merchant).current().values_list("plan_id")
    return dict(rows.annotate(Count("id")).order_by())


def _counted(quantity: Decimal, unit: str) -> str:
    return rates.plain_count(quantity / 60 if unit == "minutes" else quantity)


def _code(meter: Meter, connection: Connection | None) -> str:
    """A request that can be pasted: the meter's own slug, a connection of the merchant's."""
    assert meter.price is not None
    body: dict[str, Any] = {
        "request_id": "job-1",
        "meter_slug": meter.slug,
        "connection_id": connection.public_id if connection else "con_…",
    }
    body |= {
        "tokens_1m": {"input_tokens": 1200, "output_tokens": 350},
        "characters_1m": {"input_characters": 4200},
        "minutes": {"input_seconds": 90},
        "requests": {},
    }[meter.price.unit]
    if any(kind.startswith("cache") for kind in meter.price.tier_kinds):
        body["cache_read_tokens"] = 800
    if meter.price.rate_type == "percentage":
        body["provider_cost"] = "0.0042"
    lines = json.dumps(body, indent=2, ensure_ascii=False)
    return (
        f"curl -X POST {settings.LAVA_BASE_URL}/v1/requests \\\n"
        '  -H "Authorization: Bearer $LAVA_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{lines}'"
    )


def _and(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _actor(request: access.ConsoleRequest) -> str:
    return str(request.user)[:255]


def find(merchant: Any, key: str) -> Meter:
    """A meter of the open books by its public id; another's is not found."""
    rows = Meter.objects.of(merchant).filter(archived_at=None)
    try:
        found: Meter = rows.select_related("price", "merchant").by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error
    return found
