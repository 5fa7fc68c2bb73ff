"""Payments: the list, and one payment with its tries, its card, its receipt and what went back.

Reads only; giving money back is `refunds`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, ids, receipts
from billing.models import Payment, Refund
from lava.console import access, moments

PAGE = 25
FILTERS = ("status", "connection", "day", "from", "to", "flagged")
_TONES = {
    Payment.Status.SUCCEEDED: "ok",
    Payment.Status.FAILED: "bad",
    Payment.Status.REQUIRES_ACTION: "warn",
    Payment.Status.UNKNOWN: "warn",
}
_REFUND_TONES = {
    Refund.Status.SUCCEEDED: "ok",
    Refund.Status.FAILED: "bad",
    Refund.Status.PENDING: "warn",
    Refund.Status.SENT: "accent",
    Refund.Status.UNKNOWN: "warn",
}


@access.requires("billing.view_payment")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """The latest payments, filtered by status, customer and day."""
    merchant = request.merchant
    query = {name: request.GET.get(name, "").strip() for name in FILTERS}
    rows = filtered(merchant, query)
    page = request.GET.get("page", "")
    number = max(int(page), 1) if page.isdecimal() and len(page) < 6 else 1
    first = (number - 1) * PAGE
    found = list(
        rows.select_related("connection__customer", "plan", "bundle", "card").order_by(
            "-created_at", "-id"
        )[first : first + PAGE + 1]
    )
    kept = {name: value for name, value in query.items() if value}
    return render(
        request,
        "console/payments/list.html",
        {
            "bands": moments.bands(
                [(row, what(row), tone(row)) for row in found[:PAGE]],
                lambda shown: shown[0].created_at,
                merchant.time_zone,
                now=merchant.now(),
            ),
            "first": first + 1,
            "last": first + len(found[:PAGE]),
            "older": urlencode(kept | {"page": number + 1}) if len(found) > PAGE else "",
            "newer": urlencode(kept | {"page": number - 1}) if number > 1 else "",
            "query": query,
            "times": {name: query[name] for name in ("from", "to")},
            "export": urlencode(kept),
            "is_filtered": bool(kept),
            "statuses": Payment.Status.choices,
            "zone": merchant.time_zone,
        },
    )


@access.requires("billing.view_payment")
@require_GET
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """One payment: what for, the card, every try of the same charge, what it granted."""
    merchant = request.merchant
    found = find(merchant, key)
    refunds = list(Refund.objects.filter(payment=found).order_by("created_at", "id"))
    return render(
        request,
        "console/payments/detail.html",
        {
            "payment": found,
            "what": what(found),
            "tone": tone(found),
            "alerts": [words for words in (found.flag, found.alarm, found.dispute_flag) if words],
            "attempts": [(row, tone(row)) for row in _attempts(merchant, found)],
            "tries": list(found.tries.order_by("at", "id")),
            "refunds": [(row, refund_tone(row)) for row in refunds],
            "disputes": list(found.disputes.order_by("created_at", "id")),
            "can_go_back": found.status == Payment.Status.SUCCEEDED
            and found.refunded < found.amount.amount,
            "grants": list(found.grants.all()),
            "receipt": receipts.address(found) if found.status == Payment.Status.SUCCEEDED else "",
            "at_stripe": _at_stripe(found),
            "zone": merchant.time_zone,
            "currency": str(found.amount.currency),
        },
    )


def find(merchant: Any, key: str) -> Payment:
    """A payment of the open books by its public id; another's is not found."""
    rows = Payment.objects.of(merchant).select_related(
        "merchant__organization", "connection__customer", "plan", "bundle", "card"
    )
    try:
        found: Payment = rows.by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error
    return found


def what(payment: Payment) -> str:
    """What a payment was for, as a merchant reads it: a receipt speaks to the customer."""
    if payment.purpose == Payment.Purpose.OVERAGE:
        return str(payment.get_purpose_display())
    return receipts.what(payment)


def filtered(merchant: Any, query: dict[str, str]) -> Any:
    """The payments that fit all of `FILTERS` that are given."""
    rows = Payment.objects.of(merchant)
    if query["status"] in Payment.Status.values:
        rows = rows.filter(status=query["status"])
    if query["flagged"]:
        rows = rows.exclude(flag="", alarm="", dispute_flag="")
    if query["connection"]:
        rows = rows.filter(connection_id=key_of("con", query["connection"]))
    span = moments.between(query, merchant.time_zone)
    if span is not None:
        # What was paid counts when it was settled, as the overview's revenue does.
        paid = query["status"] == Payment.Status.SUCCEEDED
        at = "settled_at" if paid else "created_at"
        rows = rows.filter(**{f"{at}__gte": span[0], f"{at}__lt": span[1]})
    return rows


def tone(row: Payment) -> str:
    """The colour of a payment's tag; empty is grey."""
    return _TONES.get(Payment.Status(row.status), "")


def refund_tone(row: Refund) -> str:
    """The colour of a refund's tag."""
    return _REFUND_TONES[Refund.Status(row.status)]


def _attempts(merchant: Any, found: Payment) -> list[Payment]:
    """Every try of one charge, the first first: a renewal's tries share the cycle they open."""
    if found.subscription_id is None or found.cycle_index is None:
        return [found]
    same = Payment.objects.of(merchant).filter(
        subscription_id=found.subscription_id,
        cycle_index=found.cycle_index,
        purpose=found.purpose,
    )
    return list(same.select_related("card").order_by("created_at", "id"))


def _at_stripe(found: Payment) -> str:
    """The payment's page in Stripe's dashboard; empty before the network has answered."""
    if not found.intent_id:
        return ""
    middle = "test/" if found.merchant.is_sandbox else ""
    return f"https://dashboard.stripe.com/{middle}payments/{found.intent_id}"


def key_of(prefix: str, text: str) -> UUID:
    """The key of a public id; one that is not well formed finds nothing."""
    try:
        return ids.parse(prefix, text)
    except errors.NotFound:
        return UUID(int=0)


urls: list[URLPattern] = [
    path("payments/", listing, name="payments"),
    path("payments/<str:key>", one, name="payment"),
]
