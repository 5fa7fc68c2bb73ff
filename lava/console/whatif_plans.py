"""What if: a draft plan, billed over what its customers really used. Nothing is charged or saved.

The draft is the plan builder's own form; the sums come from `meters.replay_plans`.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST

from billing import errors
from billing.models import Connection, Merchant, Plan
from billing.plans import Terms
from lava.console import access, charts, plans, typed
from meters import replay_plans
from meters.models import Meter
from meters.replay_plans import Bill, Comparison, Offer, Side

MONTHS = (1, 3, 12)
# Rows of the list of who pays more, and customers that can be named.
SHOWN = 50
MOST_NAMED = 200


@access.requires("billing.view_plan")
@require_POST
def try_plan(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """`/console/plans/<id or new>/what-if`: the typed draft, replayed over the last months."""
    merchant = request.merchant
    plan = None if key == "new" else plans.find(merchant, key)
    versioned = plan is not None and bool(request.POST.get("version_of"))
    meters = plans.meters_of(merchant)
    builder = _typed(request, plan, versioned=versioned)
    terms = builder.terms(merchant.currency)
    builder.check_bundles(merchant.currency)
    if not builder.is_sound:
        return plans.page(
            request,
            builder,
            plan=None if versioned else plan,
            meters=meters,
            version_of=plan if versioned else None,
        )
    text = request.POST.get("months", "1")
    months = int(text) if text in map(str, MONTHS) else 1
    named, problem = _named(merchant, request.POST.get("people", ""))
    too_much = ""
    result: dict[str, Any] = {}
    try:
        found = replay_plans.compare(
            merchant,
            _offer(builder, terms, plan, meters),
            months=months,
            now=merchant.now(),
            plan=plan,
            people=named,
        )
        result = _result(merchant, found)
    except errors.Invalid as error:
        too_much = error.message
    return render(
        request,
        "console/whatif/plan.html",
        {
            "plan": plan,
            "name": terms.name,
            "start": _start(plan, versioned=versioned),
            "save": "Make the version" if versioned else ("Save" if plan else "Make plan"),
            "months": months,
            "choices": MONTHS,
            "posted": [
                (name, value)
                for name, values in request.POST.lists()
                for value in values
                if name not in ("csrfmiddlewaretoken", "months", "people")
            ],
            "named": request.POST.get("people", "").strip(),
            "problem": problem,
            "too_much": too_much,
            "currency": merchant.currency,
        }
        | result,
        status=422 if too_much else 200,
    )


def _result(merchant: Merchant, found: Comparison) -> dict[str, Any]:
    """What the page shows of a draft that was billed."""
    rises = found.rises
    return {
        "since": found.since,
        "until": found.until,
        "count": len(found.pairs),
        "joined": found.joined,
        "left_out": found.left_out,
        "today": found.today,
        "draft": found.draft,
        "change": found.draft.revenue - found.today.revenue,
        "points": _points(found.today, found.draft),
        "more": len(rises),
        "less": found.falls,
        "rows": _rows(merchant, rises[:SHOWN]),
        "hidden": max(len(rises) - SHOWN, 0),
        "worst": _person(merchant, found.draft.worst),
        "lines": _lines(found.today, found.draft),
        "chart": charts.bills(
            [(today.total, draft.total) for today, draft in found.pairs],
            currency=merchant.currency,
        ),
    }


def _typed(request: access.ConsoleRequest, plan: Plan | None, *, versioned: bool) -> plans.Builder:
    """The builder as it was sent, with what it never sends of a plan that is there."""
    builder = plans.read(request)
    if plan is not None and not versioned and not builder.form.text("price"):
        # Of a plan that was sold the builder sends neither; what customers agreed to stays.
        builder.form.values.setdefault("price", typed.plain(plan.price.amount))
        builder.form.values.setdefault("billing_interval", plan.billing_interval)
    if plan is not None and versioned:
        # A version brings the bundles of the one before.
        builder.bundles = plans.filled(plan).bundles
    return builder


def _start(plan: Plan | None, *, versioned: bool) -> str:
    """Where the draft's form is, to begin again and to save."""
    if plan is None:
        return "/console/plans/new"
    return f"/console/plans/{plan.public_id}{'/version' if versioned else ''}"


def _offer(builder: plans.Builder, terms: Terms, plan: Plan | None, meters: list[Meter]) -> Offer:
    """What is typed. A bundle that is new was bought by nobody, so only known ones count."""
    known = {row.public_id: row.pk for row in plan.live_bundles} if plan is not None else {}
    return Offer(
        terms=terms,
        meters=frozenset(meter.pk for meter in meters if meter.public_id in builder.meters),
        bundles={
            known[row.key]: row.amounts
            for row in builder.bundles
            if row.key in known and row.amounts is not None and not row.removed
        },
    )


def _named(merchant: Any, text: str) -> tuple[list[UUID] | None, str]:
    """The customers that were named by id, and what is wrong with it; None: all."""
    keys = [key for key in re.split(r"[\s,;]+", text) if key]
    if not keys:
        return None, ""
    if len(keys) > MOST_NAMED:
        return None, f"Name at most {MOST_NAMED} connections."
    found = []
    for key in keys:
        try:
            found.append(Connection.objects.of(merchant).by_public_id(key).pk)
        except errors.NotFound:
            return None, f"There is no connection {key}, so all customers are shown."
    return found, ""


def _points(today: Side, draft: Side) -> Any:
    if today.margin is None or draft.margin is None:
        return None
    return draft.margin - today.margin


def _lines(today: Side, draft: Side) -> list[tuple[str, Any, Any]]:
    """Where the revenue comes from, and what it costs."""
    return [
        ("Plan", today.price, draft.price),
        ("Past the credit", today.overage, draft.overage),
        ("Bundles", today.bundles, draft.bundles),
        ("Provider cost", today.cost, draft.cost),
    ]


def _people(merchant: Any, keys: list[UUID]) -> dict[UUID, Connection]:
    rows = Connection.objects.of(merchant).filter(pk__in=keys).select_related("customer")
    return {row.pk: row for row in rows}


def _rows(merchant: Any, rises: list[tuple[Bill, Bill]]) -> list[dict[str, Any]]:
    people = _people(merchant, [today.connection_id for today, _ in rises])
    return [
        {
            "connection": people[today.connection_id],
            "used": draft.served,
            "today": today.total,
            "draft": draft.total,
            "change": draft.total - today.total,
            "share": f"+{(draft.total - today.total) * 100 / today.total:.1f} %"
            if today.total
            else "new",
        }
        for today, draft in rises
    ]


def _person(merchant: Any, bill: Bill | None) -> Connection | None:
    return _people(merchant, [bill.connection_id])[bill.connection_id] if bill else None


urls: list[URLPattern] = [path("plans/<str:key>/what-if", try_plan, name="plan-what-if")]
