"""Mails: every letter customers get, as it looks, in each language, with made-up facts.

Shows what `billing.letters` says and `billing.mails` writes; sends nothing, reads no customer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils.translation import gettext
from django.views.decorators.http import require_GET

from billing import letters, locales, mails, money
from billing.letters import Letter
from lava.console import access

# The preview is a document of its own in a frame of the console: its inline styles are what mail
# readers need, and nothing in it runs.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; sandbox; "
    "frame-ancestors 'self'"
)


@access.requires("billing.view_organization")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/mails`: the list, one mail beside it, its language chosen above."""
    name, language = _chosen(request)
    written = _write(request, name, language)
    return render(
        request,
        "console/mails.html",
        {
            "mails": [(key, label) for key, (label, _) in MAILS.items()],
            "name": name,
            "label": MAILS[name][0],
            "language": language,
            "languages": settings.LANGUAGES,
            "written": written,
        },
    )


@access.requires("billing.view_organization")
@require_GET
def page(request: access.ConsoleRequest) -> HttpResponse:
    """One mail as its page, for the frame."""
    name, language = _chosen(request)
    response = HttpResponse(_write(request, name, language).html)
    response["Content-Security-Policy"] = POLICY
    response["X-Frame-Options"] = "SAMEORIGIN"
    return response


def _chosen(request: access.ConsoleRequest) -> tuple[str, str]:
    name = request.GET.get("mail", "welcome")
    language = request.GET.get("language", "en")
    if name not in MAILS or language not in dict(settings.LANGUAGES):
        raise Http404("No such mail.")
    return name, language


def _write(request: access.ConsoleRequest, name: str, language: str) -> mails.Written:
    merchant = request.merchant
    with locales.speak(language):
        return mails.write(merchant, MAILS[name][1](_Facts(merchant)), first_name="Mara")


class _Facts:
    """Made-up facts, as they are shown in the language of now."""

    def __init__(self, merchant: Any) -> None:
        self.merchant = merchant.name
        self.currency, zone = merchant.currency, merchant.time_zone
        now = merchant.now()
        self.today = locales.day(now, zone, year=True)
        self.later = locales.day(now + timedelta(days=30), zone, year=True)
        self.soon = locales.day(now + timedelta(days=3), zone, year=True)
        self.moment = locales.instant(now + timedelta(hours=23), zone)
        self.url = mails.portal_address(merchant)
        self.card = gettext("{brand} ending {last4}").format(brand="Visa", last4="4242")
        self.what = gettext("{plan} plan").format(plan="Studio")

    def amount(self, text: str) -> str:
        return money.display(Decimal(text), self.currency)

    def price(self, text: str) -> str:
        return gettext("{price} a month").format(price=self.amount(text))

    @property
    def paid(self) -> dict[str, Any]:
        """Facts of a charge."""
        return {
            "merchant": self.merchant,
            "amount": self.amount("25"),
            "what": self.what,
            "url": self.url,
        }


def _receipt(facts: _Facts) -> Letter:
    paid = facts.amount("25")
    return letters.receipt(
        merchant=facts.merchant,
        number="NV-3107",
        amount=paid,
        heading=gettext("{amount} paid").format(amount=paid),
        lead=gettext("{what}, {start} to {end}").format(
            what=facts.what, start=facts.today, end=facts.later
        ),
        facts=(
            (gettext("Billed to"), "Mara Lindqvist"),
            (gettext("Receipt"), "NV-3107"),
            (gettext("Paid"), facts.today),
            (gettext("Card"), facts.card),
        ),
        lines=((facts.what, paid),),
        total=(gettext("Total paid"), paid),
        notes=((gettext("Credits added"), paid),),
        url=facts.url,
        pdf_url=facts.url,
        is_refund=False,
    )


def _refund(facts: _Facts) -> Letter:
    back = facts.amount("10")
    return letters.receipt(
        merchant=facts.merchant,
        number="NV-3108",
        amount=back,
        heading=gettext("{amount} refunded").format(amount=back),
        lead=gettext("{what}. It reaches the card within 5 to 10 days.").format(what=facts.what),
        facts=(
            (gettext("Billed to"), "Mara Lindqvist"),
            (gettext("Receipt"), "NV-3108"),
            (gettext("Refunded"), facts.today),
            (gettext("Of receipt"), "NV-3107"),
            (gettext("To"), facts.card),
        ),
        lines=(
            (
                gettext("{what}, paid {amount}").format(what=facts.what, amount=facts.amount("25")),
                facts.amount("-10"),
            ),
        ),
        total=(gettext("Total refunded"), back),
        notes=((gettext("Credits taken back"), back),),
        url=facts.url,
        pdf_url=facts.url,
        is_refund=True,
    )


MAILS: dict[str, tuple[str, Callable[[_Facts], Letter]]] = {
    "welcome": (
        "Welcome",
        lambda f: letters.welcome(
            merchant=f.merchant,
            plan="Studio",
            gives=f.amount("25"),
            renews=f.later,
            price=f.price("25"),
            url=f.url,
        ),
    ),
    "receipt": ("Receipt", _receipt),
    "refund": ("Refund", _refund),
    "declined": (
        "Payment failed",
        lambda f: letters.declined(**f.paid, card=f.card, day=f.today),
    ),
    "card-disputed": (
        "Card is disputed",
        lambda f: letters.card_disputed(**f.paid, card=f.card),
    ),
    "card-asks": (
        "Card needs the customer",
        lambda f: letters.card_asks(**f.paid, card=f.card, until=f.moment),
    ),
    "last-try": (
        "Last try",
        lambda f: letters.last_try(**f.paid, plan="Studio", day=f.soon),
    ),
    "ended-unpaid": (
        "Ended unpaid",
        lambda f: letters.ended_unpaid(**f.paid, plan="Studio"),
    ),
    "credits-low": (
        "Credits low",
        lambda f: letters.credits_low(merchant=f.merchant, left=f.amount("2.4816"), url=f.url),
    ),
    "depleted": (
        "Out of credits, paused",
        lambda f: letters.depleted(merchant=f.merchant, then=letters.pauses(), url=f.url),
    ),
    "depleted-goes-on": (
        "Out of credits, card charged",
        lambda f: letters.depleted(
            merchant=f.merchant, then=letters.goes_on_by_card(f.card), url=f.url
        ),
    ),
    "top-up-capped": (
        "Auto top-up at its limit",
        lambda f: letters.top_up_capped(
            merchant=f.merchant, cap=f.amount("30"), day=f.later, url=f.url
        ),
    ),
    "changed": (
        "Plan changed",
        lambda f: letters.changed(
            merchant=f.merchant,
            old="Studio",
            new="Pro",
            price=f.price("79"),
            renews=f.later,
            url=f.url,
        ),
    ),
    "change-planned": (
        "Plan change planned",
        lambda f: letters.change_planned(
            merchant=f.merchant,
            old="Studio",
            new="Starter",
            price=f.price("9"),
            day=f.later,
            url=f.url,
        ),
    ),
    "cancelled": (
        "Cancelled",
        lambda f: letters.cancelled(
            merchant=f.merchant, plan="Studio", day=f.later, packs_stay=True, url=f.url
        ),
    ),
}

urls: list[URLPattern] = [
    path("mails", listing, name="mails"),
    path("mails/page", page, name="mail-page"),
]
