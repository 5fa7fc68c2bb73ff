"""The hosted pages: checkout alone and framed, the links of plans, receipts and our mails, the
customers' portal, and a merchant's colours and logo."""

from __future__ import annotations

from django.urls import URLPattern, path

from checkout import hosted, links, offers, views
from checkout.portal import views as portal

STEPS = {
    "phone": views.phone,
    "code": views.code,
    "resend": views.resend,
    "restart": views.restart,
    "bundle": views.bundle,
    "pay": views.pay,
    "complete": views.complete,
}

PORTAL = {
    "phone": portal.phone,
    "code": portal.code,
    "resend": portal.resend,
    "restart": portal.leave,
    "sign-out": portal.leave,
    "cancel": portal.cancel,
    "resume": portal.resume,
    "switch": portal.switch,
    "top-up": portal.top_up,
    "credits": portal.buy,
    "card": portal.card,
    "activity": portal.lines,
    "csv": portal.download,
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
    path("buy/<str:token>", offers.buy, name="buy"),
    path("receipts/<str:token>", hosted.receipt, name="receipt"),
    path("pay/<str:token>", links.confirm, name="pay"),
    path("pay/<str:token>/begin", links.begin, name="pay-begin"),
    path("pay/<str:token>/finish", links.finish, name="pay-finish"),
    path("card/<str:token>", links.card, name="card"),
    path("portal", portal.door, name="portal-door"),
    path("portal/<str:merchant>", portal.page, name="portal"),
    *(
        path(f"portal/<str:merchant>/{step}", view, name=f"portal-{step}")
        for step, view in PORTAL.items()
    ),
    path(
        "hosted/brand/<uuid:organization>/<str:fingerprint>.css",
        hosted.brand_sheet,
        name="hosted-brand",
    ),
    path("hosted/logo/<uuid:organization>/<str:fingerprint>", hosted.logo, name="hosted-logo"),
]
