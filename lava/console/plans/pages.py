"""The plan builder's pages: the list of plans, one plan's form, saving, archiving."""

from __future__ import annotations

import segno
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Prefetch, Q
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_GET

from billing import errors, plans
from billing.models import Plan, Subscription
from checkout import offers
from lava.console import access, trail, typed
from lava.console.plans.builder import Builder, BundleRow, empty, facts, filled, read
from lava.console.plans.finding import find, meters_of
from lava.console.plans.preview import shown
from lava.console.rates import PER, symbol
from meters import prices
from meters.models import Meter


@access.requires("billing.view_plan")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """Every plan with how many customers are on it."""
    merchant = request.merchant
    rows = (
        Plan.objects.of(merchant)
        .annotate(
            customers=Count(
                "subscriptions", filter=Q(subscriptions__status__in=Subscription.CURRENT)
            )
        )
        .prefetch_related(
            Prefetch("meters", Meter.objects.filter(archived_at=None).order_by("name"))
        )
        .order_by("archived_at", "price", "id")
    )
    found = list(rows)
    return render(
        request,
        "console/plans/list.html",
        {
            "plans": [row for row in found if row.archived_at is None],
            "archived": [row for row in found if row.archived_at is not None],
            "total": sum(row.customers for row in found if row.archived_at is None),
            "per": PER,
        },
    )


@access.requires("billing.change_plan")
def new(request: access.ConsoleRequest) -> HttpResponse:
    """Make a plan."""
    merchant = request.merchant
    meters = meters_of(merchant)
    if request.method == "POST":
        builder = read(request)
        terms = builder.terms(merchant.currency)
        builder.check_bundles(merchant.currency)
        if builder.is_sound:
            with transaction.atomic():
                plan = plans.create(merchant, terms=terms, now=merchant.now())
                _save_parts(plan, builder, meters)
                trail.record(request, "plan.made", plan, after=facts(plan))
            messages.success(request, f"{plan.name} is ready to sell.")
            return redirect(f"/console/plans/{plan.public_id}")
    else:
        builder = empty(merchant.currency, meters)
        builder.check_bundles(merchant.currency)
    return page(request, builder, plan=None, meters=meters)


@access.requires("billing.view_plan")
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """A plan's form; posting saves it, or archives it."""
    merchant = request.merchant
    plan = find(merchant, key)
    meters = meters_of(merchant)
    if request.method == "POST":
        return _save(request, plan, meters)
    builder = filled(plan)
    builder.check_bundles(plan.currency)
    return page(request, builder, plan=plan, meters=meters)


@access.requires("billing.change_plan")
def _save(request: access.ConsoleRequest, plan: Plan, meters: list[Meter]) -> HttpResponse:
    builder = read(request)
    if plans.was_sold(plan):
        # Locked fields are not sent; what a customer agreed to stays.
        builder.form.values.setdefault("price", typed.plain(plan.price.amount))
        builder.form.values.setdefault("billing_interval", plan.billing_interval)
    terms = builder.terms(plan.currency)
    builder.check_bundles(plan.currency)
    if builder.is_sound:
        try:
            with transaction.atomic():
                before = facts(plan)
                plan = plans.update(plan, terms=terms)
                _save_parts(plan, builder, meters)
                trail.record(request, "plan.changed", plan, before=before, after=facts(plan))
        except errors.LavaError as error:
            builder.form.refuse(error)
        else:
            messages.success(request, "Saved.")
            return redirect(f"/console/plans/{plan.public_id}")
    return page(request, builder, plan=plan, meters=meters)


@access.requires("billing.change_plan")
def archive(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say who keeps the plan and who can no longer buy it; then archive it."""
    merchant = request.merchant
    plan = find(merchant, key)
    if request.method == "POST":
        with transaction.atomic():
            before = {"archived": plan.archived_at is not None}
            plan = plans.archive(plan, now=merchant.now())
            trail.record(request, "plan.archived", plan, before=before, after={"archived": True})
        messages.success(request, f"{plan.name} is archived.")
        return redirect("/console/plans/")
    customers = Subscription.objects.of(merchant).current().filter(plan=plan).count()
    return render(request, "console/plans/archive.html", {"plan": plan, "customers": customers})


def page(
    request: access.ConsoleRequest,
    builder: Builder,
    *,
    plan: Plan | None,
    meters: list[Meter],
    version_of: Plan | None = None,
) -> HttpResponse:
    """The builder's page: for a new plan, for one that is, or for the next version of one."""
    merchant = request.merchant
    counts = {"now": 0, "ever": 0}
    if plan is not None:
        counts = Subscription.objects.filter(plan=plan).aggregate(
            now=Count("id", filter=Q(status__in=Subscription.CURRENT)), ever=Count("id")
        )
    context = shown(merchant, builder, meters) | {
        "plan": plan,
        "builder": builder,
        "form": builder.form,
        "meters": [(meter, meter.public_id in builder.meters) for meter in meters],
        "version_of": version_of,
        "customers": counts["now"],
        "locked": counts["ever"] > 0,
        "versions": plans.versions(plan) if plan is not None else [],
        "per": PER,
        "symbol": symbol(merchant.currency),
        "intervals": Plan.Interval.choices,
        "blank": BundleRow(number=len(builder.bundles)),
        "template_row": BundleRow(number=-1),
        "base_url": settings.LAVA_BASE_URL,
        "offer_url": offers.address(plan) if plan is not None else "",
        "offer_code": _qr_code(offers.address(plan)) if plan is not None else "",
        "sandbox": merchant.is_sandbox,
    }
    status = 200 if builder.is_sound or request.method == "GET" else 422
    return render(request, "console/plans/form.html", context, status=status)


def _qr_code(url: str) -> SafeString:
    """An address to scan, dark on light in every theme; scanners want it so."""
    drawn = segno.make(url, error="m", micro=False).svg_inline(
        scale=3, border=4, dark="#15191e", light="#ffffff", omitsize=True, title="QR code"
    )
    # segno writes shapes alone, and the address is ours.
    return mark_safe(drawn)  # noqa: S308


def _save_parts(plan: Plan, builder: Builder, meters: list[Meter]) -> None:
    """Write the bundles and the meters of a plan, in the transaction that saved it."""
    now = plan.merchant.now()
    for position, row in enumerate(builder.bundles):
        key = plan.live_bundles.by_public_id(row.key).pk if row.key else None
        if row.removed:
            plans.remove_bundle(plan.live_bundles.get(pk=key), now=now)
        elif row.amounts is not None:
            plans.put_bundle(
                plan,
                bundle_id=key,
                name=row.name,
                cost=row.amounts[0],
                credit=row.amounts[1],
                position=position,
                now=now,
            )
    attached = set(plan.meters.values_list("pk", flat=True))
    for meter in meters:
        wanted = meter.public_id in builder.meters
        if wanted and meter.pk not in attached:
            prices.attach(meter, plan)
        elif not wanted and meter.pk in attached:
            prices.detach(meter, plan)
