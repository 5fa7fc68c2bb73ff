"""The hosted pages: checkout alone and framed, receipts, the links of our mails, and a
merchant's colours and logo."""

from __future__ import annotations

from django.urls import URLPattern, path

from checkout import hosted, links, views

STEPS = {
    "phone": views.phone,
    "code": views.code,
    "resend": views.resend,
    "restart": views.restart,
    "bundle": views.bundle,
    "pay": views.pay,
    "complete": views.complete,
}


def _pages(prefix: str, name: str, *, embedded: bool) -> list[URLPattern]:
    fixed = {"embedded": embedded}
    return [
        path(f"{prefix}/<str:secret>", views.page, fixed, name=name),
        *(
            path(f"{prefix}/<str:secret>/{step}", view, fixed, name=f"{name}-{step}")
            for step, view in STEPS.items()
        ),
    ]


urlpatterns = [
    *_pages("checkout", "checkout", embedded=False),
    *_pages("embed/checkout", "embed-checkout", embedded=True),
    path("receipts/<str:token>", hosted.receipt, name="receipt"),
    path("pay/<str:token>", links.confirm, name="pay"),
    path("pay/<str:token>/begin", links.begin, name="pay-begin"),
    path("pay/<str:token>/finish", links.finish, name="pay-finish"),
    path("card/<str:token>", links.card, name="card"),
    path(
        "hosted/brand/<uuid:organization>/<str:fingerprint>.css",
        hosted.brand_sheet,
        name="hosted-brand",
    ),
    path("hosted/logo/<uuid:organization>/<str:fingerprint>", hosted.logo, name="hosted-logo"),
]
