"""The meter builder: the list of meters, one meter's form, its calculator and its versions.

Parses what was typed and calls `meters.prices`; every sum of the calculator comes from
`meters.pricing`, the code that also estimates for the API.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db import connection as database
from django.db import transaction
from django.db.models import Count, Q
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET, require_POST

from billing import errors, ids, money
from billing.models import Connection, Plan, Subscription
from lava.console import access, charts, rates, trail, typed
from lava.console.plans import symbol
from meters import prices, pricing
from meters.models import Meter, MeterPrice

ZERO = Decimal(0)
_MILLION = Decimal(1_000_000)
_CHOICES = ("unit", "token_basis", "tier_window", "base_cost_payer")
_FIELDS = ("name", "slug", "kind", "tier_rate_type", *_CHOICES)


_MONTH = {"tokens_1m": 12_000_000, "characters_1m": 12_000_000, "minutes": 12_000, "requests": 5000}


@dataclass(slots=True)
class Row:
    """A tier as it stands in the form."""

    number: int
    start: str
    rate: str
    start_problem: str = ""
    rate_problem: str = ""


@dataclass(slots=True)
class Builder:
    """The whole form: texts, problems, tier rows."""

    form: typed.Form
    rows: list[Row]

    @property
    def is_sound(self) -> bool:
        return not self.form.problems and not any(
            row.start_problem or row.rate_problem for row in self.rows
        )

    @property
    def unit(self) -> str:
        unit = self.form.text("unit")
        return unit if unit in rates.WORDS else "tokens_1m"

    @property
    def rate_type(self) -> str:
        kind = self.form.text("kind")
        if kind == "tiers":
            return "percentage" if self.form.text("tier_rate_type") == "percentage" else "fixed"
        return "percentage" if kind == "percent" else "fixed"

    def terms(self, base: prices.Terms | None = None) -> prices.Terms:
        """The terms as typed; what is wrong becomes a problem at its field.

        What this form has no field for (an allowance, packages, flat amounts) stays as in `base`.
        """
        form = self.form
        flats = {tier.start: tier.flat for tier in base.tiers} if base is not None else {}
        rows = self.rows if form.text("kind") == "tiers" else self.rows[:1]
        tiers = []
        for row in rows:
            cells = typed.Form({"start": row.start or "0", "rate": row.rate})
            start = cells.amount("start")
            flat = flats.get(start, ZERO)
            tiers.append(pricing.Tier(start=start, rate=cells.amount("rate"), flat=flat))
            row.start_problem = cells.problems.get("start", "")
            row.rate_problem = cells.problems.get("rate", "")
        terms = prices.Terms(
            tiers=tiers,
            rate_type=self.rate_type,
            **{name: form.text(name) for name in _CHOICES},  # type: ignore[arg-type]
        )
        if base is not None:
            terms = replace(
                terms,
                free_allowance=base.free_allowance,
                package_size=base.package_size,
                package_rounding=base.package_rounding,
            )
        if self.is_sound:
            try:
                prices.validate(terms)
            except errors.Invalid as error:
                self.refuse(error)
        return terms

    def refuse(self, error: errors.LavaError) -> None:
        """Show a refusal at its field: `tiers[2].rate` is the rate of the third row."""
        param = error.param or ""
        for row in self.rows:
            if param == f"tiers[{row.number}].start":
                row.start_problem = error.message
                return
            if param == f"tiers[{row.number}].rate":
                row.rate_problem = error.message
                return
        self.form.refuse(error)


@access.requires("meters.view_meter")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """Every meter with its price, its plans and how many customers are on them."""
    merchant = request.merchant
    rows = (
        Meter.objects.of(merchant)
        .filter(archived_at=None)
        .select_related("price")
        .annotate(
            customers=Count(
                "plans__subscriptions",
                filter=Q(plans__subscriptions__status__in=Subscription.CURRENT),
                distinct=True,
            )
        )
        .prefetch_related("plans")
        .order_by("name", "id")
    )
    shown = [
        (meter, rates.describe(meter.price, merchant.currency), rates.WORDS[meter.price.unit].many)
        for meter in rows
        if meter.price is not None
    ]
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
            "tier_window": "lifetime",
            "base_cost_payer": "merchant",
            "tier_rate_type": "fixed",
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
    return page(request, _filled(meter, merchant.currency), meter=meter)


@access.requires("meters.change_meter")
def _save(request: access.ConsoleRequest, meter: Meter) -> HttpResponse:
    merchant = request.merchant
    builder = read(request)
    builder.form.values["slug"] = meter.slug
    before = meter.price
    if before is not None and before.tier_kinds:
        return _rename(request, meter, builder)
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


def _rename(request: access.ConsoleRequest, meter: Meter, builder: Builder) -> HttpResponse:
    """Save the name alone: rates by kind of token have no fields here and stay as they are."""
    before = {"name": meter.name}
    try:
        with transaction.atomic():
            prices.rename(meter, name=builder.form.text("name"))
            after = {"name": builder.form.text("name")}
            trail.record(request, "meter.changed", meter, before=before, after=after)
    except errors.LavaError as error:
        builder.refuse(error)
        return page(request, builder, meter=meter)
    messages.success(request, "Saved.")
    return redirect(f"/console/meters/{meter.public_id}")


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


@access.requires("meters.view_meter")
@require_POST
def calculate(request: access.ConsoleRequest) -> JsonResponse:
    """What a quantity costs at the terms as typed. JSON: the figures, and the page's fragment."""
    merchant = request.merchant
    builder = read(request)
    found = calculation(builder, currency=merchant.currency)
    html = render_to_string("console/meters/_calculator.html", found, request=request)
    fee: pricing.Fee | None = found["fee"]
    return JsonResponse(
        {
            "fee": None if fee is None else money.wire(fee.amount),
            "slices": []
            if fee is None
            else [
                {
                    "tier": part.tier,
                    "quantity": str(part.quantity),
                    "amount": money.wire(part.amount),
                }
                for part in fee.slices
            ],
            "problem": found["problem"],
            "html": html,
        }
    )


def calculation(builder: Builder, *, currency: str) -> dict[str, Any]:
    """The calculator's figures for a builder: fee, slices, margin, the chart of the next unit."""
    form = typed.Form(dict(builder.form.values))
    unit = builder.unit
    word = rates.WORDS[unit]
    quantity = form.amount("calculator_quantity", blank=Decimal(_MONTH[unit]))
    cost = form.optional("calculator_cost")
    trial = Builder(form, [Row(row.number, row.start, row.rate) for row in builder.rows])
    terms = trial.terms()
    context: dict[str, Any] = {
        "word": word,
        "unit": unit,
        "currency": currency,
        "quantity": quantity,
        "fee": None,
        "problem": "",
        "rows": [],
        "chart": None,
        "is_percentage": builder.rate_type == "percentage",
    }
    if not trial.is_sound:
        context["problem"] = "Give each tier a start and a price to see what a month costs."
        return context
    if builder.rate_type == "percentage" and cost is None:
        context["problem"] = "Write what the provider charges you for it."
    else:
        fee = fee_of(terms.price, quantity, cost)
        paid = fee.amount
        if terms.base_cost_payer == "wallet" and cost is not None:
            paid += cost
        context |= {
            "fee": fee,
            "paid": paid,
            "average": None if not quantity else money.round_fee(fee.amount / quantity),
            "rows": [_slice(terms.price, part, currency) for part in fee.slices],
            "cost": cost,
            "wallet": terms.base_cost_payer == "wallet",
        }
        if cost is not None:
            margin = paid - cost
            context["margin"] = margin
            context["margin_share"] = f"{margin * 100 / paid:.1f} %" if paid else ""
    context["chart"] = charts.steps(terms.price, at=quantity, word=word, currency=currency)
    return context


def facts(meter: Meter, price: MeterPrice | None) -> dict[str, Any]:
    """What a meter says, as the audit trail keeps it."""
    found: dict[str, Any] = {"name": meter.name, "slug": meter.slug}
    if price is not None:
        found |= {name: getattr(price, name) for name in ("rate_type", *_CHOICES)}
        found["version"] = price.version
        found["tiers"] = [
            f"from {typed.plain(tier.start)}: {typed.plain(tier.rate)}" for tier in price.tiers
        ]
    return found


def fee_of(price: pricing.Price, quantity: Decimal, cost: Decimal | None) -> pricing.Fee:
    """The fee of a whole quantity (in the unit counted) as one request from 0.

    A meter of requests counts 1 a request; so many of them are priced as characters at a million
    times the rate, which is the same sum in the same code.
    """
    if price.unit == "minutes":
        spent = pricing.Usage(input_seconds=quantity * 60, provider_cost=cost)
        found = pricing.price(price, spent, before=ZERO)
        return pricing.Fee(
            amount=found.amount,
            quantity=quantity,
            slices=tuple(
                pricing.Slice(tier=part.tier, quantity=part.quantity / 60, amount=part.amount)
                for part in found.slices
            ),
        )
    scale = _MILLION if price.unit == "requests" and price.rate_type == "fixed" else Decimal(1)
    many = pricing.Price(
        rate_type=price.rate_type,
        unit="characters_1m",
        token_basis=price.token_basis,
        tiers=tuple(pricing.Tier(tier.start, tier.rate * scale) for tier in price.tiers),
    )
    spent = pricing.Usage(input_characters=int(quantity), provider_cost=cost)
    return pricing.price(many, spent, before=ZERO)


def _slice(price: pricing.Price, part: pricing.Slice, currency: str) -> dict[str, Any]:
    tier = price.tiers[part.tier]
    shown = rates.rate(tier.rate, currency) if price.rate_type == "fixed" else None
    return {
        "number": part.tier + 1,
        "quantity": rates.plain_count(part.quantity),
        "rate": shown or f"{typed.plain(tier.rate)} %",
        "amount": part.amount,
    }


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
        "used": meter is not None and prices.was_used(meter),
    }
    if meter is not None and meter.price is not None:
        context |= _in_use(merchant, meter)
    status = 200 if builder.is_sound or request.method == "GET" else 422
    return render(request, "console/meters/form.html", context, status=status)


def _in_use(merchant: Any, meter: Meter) -> dict[str, Any]:
    """Where a meter is attached, what it earned in 30 days, its versions, its ready code."""
    now = merchant.now()
    assert meter.price is not None
    usage = _by_plan(merchant, meter, since=now - timedelta(days=30))
    plans = list(
        Plan.objects.of(merchant)
        .filter(archived_at=None)
        .annotate(
            customers=Count(
                "subscriptions",
                filter=Q(subscriptions__status__in=Subscription.CURRENT),
                distinct=True,
            ),
            attached=Count("meter_links", filter=Q(meter_links__meter=meter), distinct=True),
        )
        .order_by("name", "id")
    )
    unit = meter.price.unit
    rows = []
    for plan in plans:
        if plan.attached:
            quantity, charged = usage.get(plan.pk, (ZERO, ZERO))
            rows.append((plan, _counted(quantity, unit), charged))
    customers = sum(plan.customers for plan, _, _ in rows)
    total = sum((usage.get(plan.pk, (ZERO, ZERO))[0] for plan, _, _ in rows), ZERO)
    connection = Connection.objects.of(merchant).visible().order_by("-id").first()
    return {
        "attached": rows,
        "attached_names": _and([plan.name for plan, _, _ in rows]),
        "free_plans": [plan for plan in plans if not plan.attached],
        "attached_total": (
            customers,
            _counted(total, unit),
            sum((charged for _, _, charged in rows), ZERO),
        ),
        "versions": [
            (version, rates.describe(version, merchant.currency))
            for version in MeterPrice.objects.filter(meter=meter).order_by("-version")[:20]
        ],
        "code": _code(meter, connection),
        "zone": merchant.time_zone,
    }


def _counted(quantity: Decimal, unit: str) -> str:
    return rates.plain_count(quantity / 60 if unit == "minutes" else quantity)


def _by_plan(merchant: Any, meter: Meter, *, since: datetime) -> dict[Any, tuple[Decimal, Decimal]]:
    """Quantity and charge of a meter by plan since an instant of the merchant's clock."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT s.plan_id, sum(r.quantity), sum(r.charged) FROM meters_usagerequest r "
            "JOIN billing_subscription s ON s.id = r.subscription_id "
            "WHERE r.merchant_id = %s AND r.meter_id = %s AND r.id >= %s AND r.created_at >= %s "
            "GROUP BY s.plan_id",
            [merchant.pk, meter.pk, ids.first(since - merchant.clock_offset), since],
        )
        return {plan: (quantity, charged) for plan, quantity, charged in cursor.fetchall()}


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


def _filled(meter: Meter, currency: str) -> Builder:
    price = meter.price
    assert price is not None
    kind = "tiers" if len(price.tiers) > 1 else "rate"
    if kind == "rate" and price.rate_type == "percentage":
        kind = "percent"
    values = {"name": meter.name, "slug": meter.slug, "kind": kind}
    values |= {name: getattr(price, name) for name in _CHOICES}
    values["tier_rate_type"] = price.rate_type
    fewest = 0 if price.rate_type == "percentage" else money.minor_units(currency)
    rows = []
    for number, tier in enumerate(price.tiers):
        places = 4 if fewest == 2 and tier.rate < 1 else fewest
        rows.append(Row(number, f"{int(tier.start):,}", typed.plain(tier.rate, places=places)))
    return Builder(typed.Form(values), rows)


def read(request: access.ConsoleRequest) -> Builder:
    """The form as it was posted: tiers in their order, empty ones left out."""
    form = typed.Form.read(request.POST.dict())
    numbers = sorted(
        {
            int(middle)
            for name in form.values
            if name.startswith("tier-") and (middle := name.split("-")[1]).isdecimal()
        }
    )[: pricing.MOST_TIERS + 1]
    rows: list[Row] = []
    for number in numbers:
        start, given = form.text(f"tier-{number}-start"), form.text(f"tier-{number}-rate")
        if not rows or start or given:
            rows.append(Row(len(rows), start or ("0" if not rows else ""), given))
    rest = ("calculator_quantity", "calculator_cost")
    kept = {name: form.text(name) for name in (*_FIELDS, *rest)}
    return Builder(typed.Form(kept), rows or [Row(0, "0", "")])


urls: list[URLPattern] = [
    path("meters/", listing, name="meters"),
    path("meters/new", new, name="meter-new"),
    path("meters/calculate", calculate, name="meter-calculate"),
    path("meters/<str:key>", one, name="meter"),
    path("meters/<str:key>/attach", attach, name="meter-attach"),
]
