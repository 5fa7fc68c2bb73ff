"""Hosted pages beside the checkout: a merchant's colours and logo, and receipts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from billing import brand, errors, receipts
from billing.models import Organization
from checkout import languages, pages, policy

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
@languages.spoken
def receipt(request: HttpRequest, token: str) -> HttpResponse:
    """The receipt of a payment or refund; whoever has its address may read it. `.pdf` after the
    address is the same as a file."""
    try:
        document = receipts.document(receipts.find(token.removesuffix(".pdf")))
    except errors.NotFound:
        shown = pages.missing()
        return policy.seal(render(request, shown.template, shown.context, status=404), "'none'")
    if token.endswith(".pdf"):
        # With its library and fonts 23 MB: for who serves a PDF, not for every process.
        from billing import receipt_pdf

        response = HttpResponse(receipt_pdf.render(document), content_type="application/pdf")
        name = f"{document.title.lower().replace(' ', '-')}-{document.number}.pdf"
        response["Content-Disposition"] = f'inline; filename="{name}"'
        return policy.seal(response, "'none'")
    address = languages.address("receipt", f"{token}.pdf")
    return policy.seal(
        render(request, "checkout/receipt.html", _receipt(document) | {"pdf_url": address}),
        "'none'",
    )


def _receipt(document: receipts.Document) -> dict[str, Any]:
    merchant = document.merchant
    return {
        "title": f"{document.title} {document.number} \u2013 {merchant.name}",
        "brand": pages.brand_of(merchant),
        "receipt": document,
        "support": merchant.organization.support_email,
        "portal_url": languages.address("portal", merchant.public_id),
    }
