"""Approvals: what waits for a second person, what became of the rest, and one request to decide.

The page of a request runs its preview anew, so that who approves sees the lines as they would be
written now. Parses, calls one verb of `billing.approvals`, presents.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from billing import approvals as verbs
from billing import credits, errors, money
from billing import refunds as refund_verbs
from billing.models import Approval
from lava.console import (
    access,
    adjustments,
    moments,
    payments,
    refunds,
    second_person,
    trail,
    typed,
)

PAGE = 25
State = Approval.State
_TONES = {
    State.WAITING: "warn",
    State.APPROVED: "ok",
    State.REFUSED: "bad",
    State.WITHDRAWN: "",
}
# The entry of the audit trail for an act that was approved.
_ACTIONS: dict[str, str] = {
    Approval.Act.GIVE: adjustments.GIVE.action,
    Approval.Act.TAKE: adjustments.TAKE.action,
    Approval.Act.REFUND: "payment.refunded",
}


@access.requires("billing.view_approval")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/approvals/`: what waits, the oldest first, or what is decided, the newest first."""
    merchant, at = request.merchant, timezone.now()
    decided = request.GET.get("show") == "decided"
    rows = Approval.objects.of(merchant).select_related("connection__customer")
    open_rows = rows.filter(state=State.WAITING, expires_at__gt=at)
    before = request.GET.get("before", "")
    if not decided:
        found = list(open_rows.order_by("id")[: PAGE + 1])
    else:
        rows = rows.exclude(state=State.WAITING, expires_at__gt=at)
        if before:
            rows = rows.filter(pk__lt=payments.key_of("apr", before))
        found = list(rows.order_by("-id")[: PAGE + 1])
    older = ""
    if decided and len(found) > PAGE:
        older = urlencode({"show": "decided", "before": found[PAGE - 1].public_id})
    return render(
        request,
        "console/approvals/list.html",
        {
            "bands": moments.bands(
                [(row, *status(row, at)) for row in found[:PAGE]],
                lambda shown: shown[0].asked_at,
                merchant.time_zone,
                now=at,
            ),
            "decided": decided,
            "more": not decided and len(found) > PAGE,
            "older": older,
            "newest": bool(before),
            "limit": request.organization.second_person_above,
            "currency": merchant.currency,
            "zone": merchant.time_zone,
        },
    )


@access.requires("billing.view_approval")
@require_GET
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """One request: what, why, who; while it waits, what would change if it were done now."""
    return _page(request, _find(request, key), typed.Form())


@access.requires("billing.change_approval")
@require_POST
def decide(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Approve, refuse with a reason, or take one's own request back."""
    row = _find(request, key)
    form = typed.Form.read(request.POST.dict())
    now, at = request.merchant.now(), timezone.now()
    try:
        with transaction.atomic():
            row = _decide(request, row, form, now=now, at=at)
    except errors.LavaError as error:
        form.refuse(error)
        form.problems.setdefault("form", error.message)
        return _page(request, _find(request, key), form)
    if row.state == State.APPROVED and row.refund is not None:
        refunds.tell(request, refund_verbs.send(row.refund, now=now))
    elif row.state == State.APPROVED:
        done = "given" if row.act == Approval.Act.GIVE else "taken"
        amount = money.display(row.amount, row.connection.currency)
        messages.success(request, f"Approved: {amount} {done}.")
    elif row.state == State.REFUSED:
        messages.success(request, f"Refused. {row.asked_name} sees your reason here.")
    else:
        messages.success(request, "Taken back. Nothing moved.")
    return redirect(f"/console/approvals/{row.public_id}")


def _decide(
    request: access.ConsoleRequest, row: Approval, form: typed.Form, *, now: Any, at: Any
) -> Approval:
    """Call the verb of the button, with its entry in the audit trail."""
    step = form.text("step")
    if step == "approve":
        row = verbs.approve(row, by=request.membership, now=now, at=at)
        payment = row.payment
        trail.record(
            request,
            _ACTIONS[row.act],
            payment or row.connection,
            name=f"{row.connection}, {payments.what(payment)}" if payment else str(row.connection),
            after={
                "amount": typed.plain(row.amount, places=2),
                "reason": row.reason,
                "asked_by": row.asked_name,
                "approved_by": row.decided_name,
                "request": row.public_id,
            }
            | ({"forced": row.forced} if payment else {}),
        )
    elif step == "refuse":
        row = verbs.refuse(row, by=request.membership, reason=form.text("answer"), at=at)
        trail.record(request, "approval.refused", row, after={"reason": row.answer})
    elif step == "withdraw":
        row = verbs.withdraw(row, by=request.user, at=at)
        trail.record(request, "approval.withdrawn", row)
    else:
        raise errors.Invalid("Approve the request or refuse it.")
    return row


def status(row: Approval, at: Any) -> tuple[str, str]:
    """The word and the tone of a request's tag."""
    if row.state == State.WAITING and not row.is_open(at):
        return "Ended", ""
    return str(row.get_state_display()), _TONES[State(row.state)]


def _find(request: access.ConsoleRequest, key: str) -> Approval:
    rows = Approval.objects.of(request.merchant).select_related(
        "merchant__organization", "connection__customer", "payment__merchant__organization",
        "payment__connection__customer", "payment__plan", "payment__bundle", "payment__card",
        "refund",
    )  # fmt: skip
    try:
        found: Approval = rows.by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error
    # The rows the middleware holds: what hangs on them is not asked for again.
    found.merchant = found.connection.merchant = request.merchant
    return found


def _page(request: access.ConsoleRequest, row: Approval, form: typed.Form) -> HttpResponse:
    at = timezone.now()
    word, tone = status(row, at)
    is_mine = row.asked_by_id == request.user.pk
    refusal = ""
    if not is_mine:
        try:
            verbs.check_reach(request.membership, verbs.wish(row))
        except errors.Forbidden as error:
            refusal = error.message
    context: dict[str, Any] = {
        "row": row,
        "word": word,
        "tone": tone,
        "open": row.is_open(at),
        "is_mine": is_mine,
        "refusal": refusal,
        "form": form,
        "what": payments.what(row.payment) if row.payment else "",
        "currency": row.connection.currency,
        "zone": request.merchant.time_zone,
    }
    if context["open"]:
        context |= _preview(request, row)
        if is_mine:
            context["others"] = verbs.who_may(request.merchant, row)
    return render(
        request,
        "console/approvals/detail.html",
        context,
        status=422 if form.problems else 200,
    )


def _preview(request: access.ConsoleRequest, row: Approval) -> dict[str, Any]:
    """What would change if it were done now, or why it could not be."""
    merchant, now = request.merchant, request.merchant.now()
    wish = verbs.wish(row)
    try:
        lines = second_person.lines(wish, actor=row.asked_name, now=now, zone=merchant.time_zone)
    except errors.LavaError as error:
        return {"cannot": error.message}
    balance = credits.balance(row.connection, now=now)
    found: dict[str, Any] = {"lines": lines, "balance": balance}
    if row.payment is None:
        after = adjustments.after(balance, row.connection, row.amount, word=row.act, now=now)
        return found | {"after": after}
    moved = sum((line.amount for line in lines), start=balance.total)
    return found | {
        "after": {"total": moved},
        "no_lines": "None: this payment bought no credit.",
    }


urls: list[URLPattern] = [
    path("approvals/", listing, name="approvals"),
    path("approvals/<str:key>", one, name="approval"),
    path("approvals/<str:key>/decide", decide, name="approval-decide"),
]
