"""Refunds: give money of a payment back, the list of what went back, and one refund.

The act says first what moves at the card and in the ledger; above the limit of the business a
second person is asked instead. A form sent twice refunds or asks once, by its key. Calls
`billing.refunds` and `billing.approvals`.
"""

from __future__ import annotations

import secrets
from decimal import Decimal
from typing import Any, cast
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import approvals, credits, errors, ledger, money, receipts
from billing import refunds as verbs
from billing.models import Membership, Payment, Refund
from lava.console import (
    access,
    dry_runs,
    moments,
    payments,
    requests,
    second_person,
    trail,
    typed,
)
from lava.console.rates import symbol

PAGE = 25
FILTERS = ("status", "connection", "flagged")


@access.requires("billing.add_refund")
def give_back(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Refund a payment: how much and why, then what moves, then the refund."""
    payment = payments.find(request.merchant, key)
    form = typed.Form.read(request.POST.dict())
    shown: verbs.Preview | None = None
    lines: list[dry_runs.Line] = []
    second = False
    if request.method == "POST":
        made = _made(payment, form)
        if made is not None:
            return redirect(f"/console/refunds/{made.public_id}")
        amount = _amount(form, payment)
        force = bool(form.text("force"))
        if not form.problems:
            try:
                shown = verbs.preview(payment, amount=amount, force=force)
                wish = _wish(payment, shown, form)
                approvals.check_reach(request.membership, wish, organization=request.organization)
                lines = second_person.lines(
                    wish,
                    actor=str(request.user),
                    now=request.merchant.now(),
                    zone=request.merchant.time_zone,
                )
                second = approvals.needed(request.organization, wish, now=request.merchant.now())
            except errors.LavaError as error:
                form.refuse(error)
                shown = None
        if shown is not None and form.text("step") == "refund":
            answer = _refund(request, payment, form, shown)
            if answer is not None:
                return answer
    now = request.merchant.now()
    balance = credits.balance(payment.connection, now=now) if shown else None
    return render(
        request,
        "console/payments/refund.html",
        {
            "payment": payment,
            "what": payments.what(payment),
            "form": form,
            "offer": _offer(payment),
            "second": second,
            "reach": request.organization.support_refunds_up_to
            if request.membership.role == Membership.Role.SUPPORT
            else None,
            "shown": shown,
            "lines": lines,
            "no_lines": "None: this payment bought no credit.",
            "balance": balance,
            "after": balance.total - shown.credits_taken - shown.debt_made
            if shown and balance
            else None,
            "key": form.text("key") or secrets.token_urlsafe(12),
            "currency": str(payment.amount.currency),
            "symbol": symbol(str(payment.amount.currency)),
            "zone": request.merchant.time_zone,
        },
        status=422 if form.problems else 200,
    )


def _amount(form: typed.Form, payment: Payment) -> Decimal:
    amount = form.amount("amount")
    if not form.text("reason"):
        form.problems["reason"] = "Say why the money goes back."
    elif len(form.text("reason")) > 255:
        form.problems["reason"] = "Use at most 255 characters."
    if len(form.text("key")) > 64:
        form.problems["form"] = "Load the page anew."
    if "amount" not in form.problems and not money.is_whole_minor(
        amount, str(payment.amount.currency)
    ):
        form.problems["amount"] = "A card cannot get so small a part."
    return amount


def _wish(payment: Payment, shown: verbs.Preview, form: typed.Form) -> approvals.Wish:
    return approvals.Wish(
        act=approvals.Act.REFUND,
        connection=payment.connection,
        payment=payment,
        amount=shown.amount,
        reason=form.text("reason"),
        forced=bool(form.text("force")),
    )


def _refund(
    request: access.ConsoleRequest, payment: Payment, form: typed.Form, shown: verbs.Preview
) -> HttpResponse | None:
    """Refund what was shown, or ask a second person. The key of the page makes a second click the
    same refund, or the same request."""
    now = request.merchant.now()
    try:
        with transaction.atomic():
            locked = ledger.lock(payment.connection_id)
            made = _made(payment, form)
            if made is not None:
                return redirect(f"/console/refunds/{made.public_id}")
            wish = _wish(payment, shown, form)
            approvals.check_reach(request.membership, wish, organization=request.organization)
            if approvals.needed(request.organization, wish, now=now):
                return second_person.ask(request, wish, form)
            row = cast(
                Refund,
                approvals.act(
                    locked,
                    wish,
                    actor=str(request.user),
                    key=f"console:{form.text('key')}",
                    now=now,
                ),
            )
            trail.record(
                request,
                "payment.refunded",
                payment,
                name=f"{payment.connection.customer}, {payments.what(payment)}",
                after={
                    "amount": typed.plain(shown.amount, places=2),
                    "reason": form.text("reason"),
                    "forced": bool(form.text("force")),
                },
            )
    except errors.LavaError as error:
        form.refuse(error)
        return None
    row = verbs.send(row, now=now)
    tell(request, row)
    return redirect(f"/console/refunds/{row.public_id}")


def _made(payment: Payment, form: typed.Form) -> Refund | None:
    """The refund this very page made before, where its button was pressed twice."""
    rows = Refund.objects.filter(payment=payment, key=f"console:{form.text('key')}")
    found: Refund | None = rows.first()
    return found


def tell(request: access.ConsoleRequest, row: Refund) -> None:
    """Say what became of a refund that was just asked for."""
    amount = money.show(row.amount)
    if row.status == Refund.Status.FAILED:
        why = row.failure_message or "The card network refused it."
        messages.error(request, f"{amount} could not be paid back: {why} Its credits are back.")
    elif row.status == Refund.Status.SUCCEEDED:
        messages.success(request, f"{amount} is paid back.")
    else:
        messages.info(
            request, f"{amount} is on its way. The card network has not said yet that it arrived."
        )


def _offer(payment: Payment) -> dict[str, Any]:
    """How far a refund can go as things stand, or why there can be none."""
    try:
        reach = verbs.reach(payment)
    except errors.LavaError as error:
        return {"refusal": error.message}
    return {
        "refundable": reach.refundable,
        "most": reach.most,
        "granted": reach.granted,
        "left": reach.left,
    }


@access.requires("billing.view_payment")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/refunds/`: what went back, the newest first."""
    merchant = request.merchant
    query = {name: request.GET.get(name, "").strip() for name in FILTERS}
    rows = filtered(merchant, query)
    before = request.GET.get("before", "")
    if before:
        rows = rows.filter(pk__lt=payments.key_of("ref", before))
    found = list(
        rows.select_related("connection__customer", "payment__plan", "payment__bundle").order_by(
            "-id"
        )[: PAGE + 1]
    )
    kept = {name: value for name, value in query.items() if value}
    return render(
        request,
        "console/payments/refunds.html",
        {
            "bands": moments.bands(
                [
                    (row, payments.what(row.payment), payments.refund_tone(row))
                    for row in found[:PAGE]
                ],
                lambda shown: shown[0].created_at,
                merchant.time_zone,
                now=merchant.now(),
            ),
            "older": urlencode(kept | {"before": found[PAGE - 1].public_id})
            if len(found) > PAGE
            else "",
            "newest": urlencode(kept) if before else None,
            "query": query,
            "export": urlencode(kept),
            "is_filtered": bool(kept),
            "statuses": Refund.Status.choices,
            "zone": merchant.time_zone,
        },
    )


@access.requires("billing.view_payment")
@require_GET
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """One refund: what went back, what it took out of the ledger, what the network said."""
    merchant = request.merchant
    rows = Refund.objects.of(merchant).select_related(
        "merchant__organization", "connection__customer", "payment__plan", "payment__bundle",
        "payment__card",
    )  # fmt: skip
    try:
        found: Refund = rows.by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error
    grants = {
        str(grant.pk): grant
        for grant in found.connection.grants.filter(
            pk__in=[grant for grant, _ in found.taken if grant]
        ).select_related("bundle")
    }
    zone = merchant.time_zone
    return render(
        request,
        "console/payments/refund_detail.html",
        {
            "refund": found,
            "payment": found.payment,
            "what": payments.what(found.payment),
            "tone": payments.refund_tone(found),
            "taken": taken(found, grants, zone=zone),
            "receipt": receipts.address(found) if found.status == Refund.Status.SUCCEEDED else "",
            "currency": str(found.amount.currency),
            "zone": zone,
        },
    )


def taken(row: Refund, grants: dict[str, Any], *, zone: str) -> list[dict[str, Any]]:
    """What a refund took, line by line."""
    return [
        {
            "name": requests.grant_name(grants.get(str(grant)), zone)
            if grant
            else "Spent before: became owed",
            "amount": Decimal(amount),
        }
        for grant, amount in row.taken
    ]


def filtered(merchant: Any, query: dict[str, str]) -> Any:
    """The refunds that fit all of `FILTERS` that are given."""
    rows = Refund.objects.of(merchant)
    if query["status"] in Refund.Status.values:
        rows = rows.filter(status=query["status"])
    if query["connection"]:
        rows = rows.filter(connection_id=payments.key_of("con", query["connection"]))
    if query["flagged"]:
        rows = rows.exclude(flag="")
    return rows


urls: list[URLPattern] = [
    path("refunds/", listing, name="refunds"),
    path("refunds/<str:key>", one, name="refund"),
    path("payments/<str:key>/refund", give_back, name="payment-refund"),
]
