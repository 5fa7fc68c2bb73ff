"""Safety: above what a second person is needed, and how much support may refund. Owners only.

Parses, calls `billing.approvals.set_limits`, presents.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from billing import approvals, errors, tenancy
from billing.models import Organization
from lava.console import access, trail, typed
from lava.console.rates import symbol

FIELDS = ("second_person_above", "support_refunds_up_to")


@access.requires("billing.view_organization")
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/safety`: the two limits; POST saves both or nothing."""
    if request.method == "POST":
        return save(request)
    organization = request.organization
    values = {name: typed.plain(getattr(organization, name), places=2) for name in FIELDS}
    return _page(request, typed.Form(values))


@access.requires("billing.change_organization")
def save(request: access.ConsoleRequest) -> HttpResponse:
    """Save both limits; an empty field is no limit."""
    form = typed.Form.read(request.POST.dict())
    limits = {name: form.optional(name) for name in FIELDS}
    if form.problems:
        return _page(request, form)
    try:
        with transaction.atomic():
            before = facts(request.organization)
            saved = approvals.set_limits(
                request.organization,
                second_person_above=limits["second_person_above"],
                support_refunds_up_to=limits["support_refunds_up_to"],
            )
            trail.record(
                request, "safety.changed", before=before, after=facts(saved), of_books=False
            )
    except errors.LavaError as error:
        form.refuse(error)
        return _page(request, form)
    messages.success(request, "Saved. It counts from the next refund or gift on.")
    return redirect("/console/safety")


def facts(organization: Organization) -> dict[str, Any]:
    """Both limits, as the audit trail keeps them."""
    return {name: typed.plain(getattr(organization, name), places=2) or "none" for name in FIELDS}


def _page(request: access.ConsoleRequest, form: typed.Form) -> HttpResponse:
    members = tenancy.team(request.organization)
    needed = set(approvals.NEEDS.values())
    deciders = [member for member in members if all(tenancy.may(member, one) for one in needed)]
    context = {
        "form": form,
        "deciders": deciders,
        "currency": request.merchant.currency,
        "symbol": symbol(request.merchant.currency),
    }
    return render(request, "console/safety.html", context, status=422 if form.problems else 200)


urls: list[URLPattern] = [path("safety", page, name="safety")]
