"""Hosted pages beside the checkout: a merchant's colours and logo, and receipts."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from billing import errors, money, receipts
from billing.models import Cycle, Organization, Payment
from checkout import brand, pages, policy, summary

FOREVER = "public, max-age=31536000, immutable"


@require_safe
def brand_sheet(request: HttpRequest, organization: UUID, fingerprint: str) -> HttpResponse:
    """A merchant's accent colours as a stylesheet, cached for ever under its own name."""
    row = Organization.objects.filter(pk=organization).only("brand_color").first()
    if row is None or brand.fingerprint(row.brand_color) != fingerprint:
        return HttpResponse("Not found.", status=404, content_type="text/plain")
    response = HttpResponse(brand.stylesheet(row.brand_color), content_type="text/css")
    response["Cache-Control"] = FOREVER
    return response


@require_safe
def logo(request: HttpRequest, organization: UUID, fingerprint: str) -> HttpResponse:
    """A merchant's logo."""
    row = Organization.objects.filter(pk=organization).first()
    if row is None or not row.logo or pages.logo_fingerprint(row) != fingerprint:
        return HttpResponse("Not found.", status=404, content_type="text/plain")
    response = HttpResponse(bytes(row.logo), content_type=row.logo_type)
    response["Cache-Control"] = FOREVER
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


@require_safe
def receipt(request: HttpRequest, token: str) -> HttpResponse:
    """A payment's receipt; whoever has its address may read it."""
    try:
        shown = _receipt(receipts.find(token))
    except errors.NotFound:
        shown = pages.missing()
    response = render(request, shown.template, shown.context, status=shown.status)
    return policy.seal(response, "'none'")


def _receipt(payment: Payment) -> pages.Page:
    zone = payment.merchant.time_zone
    settled = payment.settled_at
    assert settled is not None
    paid = receipts.amount(payment)
    facts = [
        ("Billed to", payment.connection.customer.name or payment.connection.customer.masked_phone),
        ("Receipt", payment.receipt_number),
        ("Paid", summary.day(settled, zone, year=True)),
    ]
    if payment.card is not None:
        facts.append(("Card", str(payment.card)))
    granted = sum((grant.amount for grant in payment.grants.all()), start=Decimal(0))
    currency = str(payment.amount.currency)
    cycle = Cycle.objects.filter(payment=payment).first()
    what = receipts.what(payment)
    if cycle is not None:
        what += f", {summary.day(cycle.start, zone)} to {summary.day(cycle.end, zone)}"
    context = {
        "title": f"Receipt {payment.receipt_number} \u2013 {payment.merchant.name}",
        "brand": pages.brand_of(payment.merchant),
        "heading": f"{paid} paid",
        "lead": what,
        "facts": [{"label": label, "text": text} for label, text in facts],
        "what": receipts.what(payment),
        "paid": paid,
        "support": payment.merchant.organization.support_email,
        "granted": money.display(granted, currency) if granted else "",
    }
    return pages.Page("checkout/receipt.html", context)
