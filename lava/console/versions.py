"""Versions of a plan: make the next one, move customers to it, watch a move.

A move is a job in the database that a worker goes on with: its page may be left and found again.
Calls `meters.prices`, `billing.plans` and `billing.moves`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, moves, plans, tasks
from billing.models import Plan, PlanMove, Subscription
from lava.console import access, moments, trail, typed
from lava.console import plans as pages
from lava.console.rates import PER
from meters import prices

# Customers shown of a move before it begins; its counts are of all.
SHOWN = 25
When = PlanMove.When


@access.requires("billing.change_plan")
def new(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """The next version of a plan, filled in with this one's terms."""
    merchant = request.merchant
    plan = pages.find(merchant, key)
    meters = pages.meters_of(merchant)
    if request.method == "POST":
        builder = pages.read(request)
        terms = builder.terms(plan.currency)
        if builder.is_sound:
            try:
                with transaction.atomic():
                    made = prices.new_plan_version(plan, terms=terms, now=merchant.now())
                    trail.record(
                        request,
                        "plan.versioned",
                        made,
                        before=pages.facts(plan),
                        after=pages.facts(made),
                    )
            except errors.LavaError as error:
                builder.form.refuse(error)
            else:
                messages.success(
                    request,
                    f"Version {made.version} of {made.name} is sold from now on. Version "
                    f"{plan.version} keeps its customers.",
                )
                return redirect(f"/console/plans/{made.public_id}")
    else:
        builder = pages.filled(plan)
    builder.check_bundles(plan.currency)
    return pages.page(request, builder, plan=None, meters=meters, version_of=plan)


@access.requires("billing.change_plan")
def move(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Move the customers of a version to another one: to which, when, whom, then begin."""
    merchant = request.merchant
    plan = pages.find(merchant, key)
    now = merchant.now()
    running = PlanMove.objects.of(merchant).filter(from_plan=plan, state=PlanMove.State.RUNNING)
    job = running.first()
    if job is not None:
        return redirect(f"/console/moves/{job.public_id}")
    others = [one for one in plans.versions(plan) if one.pk != plan.pk and one.archived_at is None]
    form = typed.Form.read(request.POST.dict() or request.GET.dict())
    target = next((one for one in others if one.public_id == form.text("to")), None)
    when = form.text("when") or When.NEXT_CYCLE
    changes: list[moves.Change] = []
    if form.text("to") and target is None:
        form.problems["to"] = "Choose a version of the list."
    if target is not None:
        try:
            changes = moves.preview(plan, to_plan=target, when=when, now=now, most=SHOWN)
            if request.method == "POST":
                return _start(request, plan, target, when, now=now)
        except errors.LavaError as error:
            form.refuse(error)
    return render(
        request,
        "console/plans/move.html",
        {
            "plan": plan,
            "others": others,
            "target": target,
            "when": when,
            "whens": [(value, label) for value, label in When.choices],
            "form": form,
            "changes": changes,
            "sums": _sums(plan) if target is not None else {},
            "per": PER,
            "zone": merchant.time_zone,
        },
        status=422 if form.problems else 200,
    )


def _sums(plan: Plan) -> dict[str, int]:
    """How many are on a version, and how many stay as they are: a change of theirs is pending."""
    found: dict[str, int] = (
        Subscription.objects.current()
        .filter(plan=plan)
        .aggregate(
            all=Count("id"),
            stay=Count("id", filter=Q(pending_change__isnull=False)),
        )
    )
    return found | {"move": found["all"] - found["stay"]}


def _start(
    request: access.ConsoleRequest, plan: Plan, target: Plan, when: str, *, now: datetime
) -> HttpResponse:
    """Begin the job and wake a worker; with the broker away the sweep finds it."""
    with transaction.atomic():
        job = moves.start(plan, to_plan=target, when=when, actor=str(request.user), now=now)
        trail.record(
            request,
            "plan.moved",
            plan,
            before={"version": plan.version},
            after={"version": target.version, "when": When(when).label},
        )
    tasks.hint_move(job.pk)
    return redirect(f"/console/moves/{job.public_id}")


@access.requires("billing.view_plan")
@require_GET
def progress(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """`/console/moves/<id>`: how far a move is; looks again by itself until it is done."""
    merchant = request.merchant
    try:
        job: PlanMove = (
            PlanMove.objects.of(merchant).select_related("from_plan", "to_plan").by_public_id(key)
        )
    except errors.NotFound as error:
        raise Http404 from error
    rows = Subscription.objects.current().filter(plan=job.from_plan)
    if job.cursor is not None:
        rows = rows.filter(pk__gt=job.cursor)
    waiting = rows.count() if job.state == PlanMove.State.RUNNING else 0
    passed = job.moved + job.left
    return render(
        request,
        "console/plans/progress.html",
        {
            "job": job,
            "waiting": waiting,
            "passed": passed,
            "all": passed + waiting,
            "took": moments.span(job.finished_at - job.created_at) if job.finished_at else "",
            "zone": merchant.time_zone,
        },
    )


@access.requires("billing.view_plan")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/moves/`: every move, those under way first."""
    rows = PlanMove.objects.of(request.merchant).select_related("from_plan", "to_plan")
    found: list[Any] = list(rows.order_by("-state", "-id")[:100])
    return render(
        request,
        "console/plans/moves.html",
        {"moves": found, "zone": request.merchant.time_zone},
    )


urls: list[URLPattern] = [
    path("plans/<str:key>/version", new, name="plan-version"),
    path("plans/<str:key>/move", move, name="plan-move"),
    path("moves/", listing, name="moves"),
    path("moves/<str:key>", progress, name="move"),
]
