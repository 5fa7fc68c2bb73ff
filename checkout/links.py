"""The pages behind the links of our mails: confirm an off-session charge, replace a saved card.

Whoever has a link may open its page: the first can only pay what its card's own bank confirms,
the second asks for a phone code before anything is saved. No cookie, as on every hosted page.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from billing import errors, locales, payments, receipts
from billing.models import Connection, Payment
from checkout import dialing, forms, languages, pages, policy, refusals, sessions
from checkout.models import CheckoutSession
from checkout.pages import Alert, Page


@require_http_methods(["GET", "HEAD"])
@languages.spoken
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    """`/pay/{token}`: what is to be confirmed, with the saved card or another one."""
    try:
        payment = _look(receipts.find_action(token))
    except errors.NotFound:
        return _answer(request, pages.missing())
    return _answer(request, _page(payment, token))


@csrf_exempt
@require_POST
@languages.spoken
def begin(request: HttpRequest, token: str) -> HttpResponse:
    """From the page's script: give it the intent that it confirms."""
    try:
        payment = receipts.find_action(token)
        intent = payments.present_action(payment, now=payment.merchant.now())
    except (errors.Gone, errors.Conflict, errors.NotFound) as error:
        return _json({"reload": True}, refusals.status_of(error))
    except errors.LavaError as error:
        alert = refusals.of_silence()
        return _json({"title": alert.title, "text": alert.text}, refusals.status_of(error))
    card = (forms.json_strings(request.body) or {}).get("card", "")
    return _json(pages.intent_json(intent, payment.connection, card=card))


@csrf_exempt
@require_POST
@languages.spoken
def finish(request: HttpRequest, token: str) -> HttpResponse:
    """After the card was confirmed: ask what became of it."""
    try:
        payment = receipts.find_action(token)
        payment = payments.refresh(payment, now=payment.merchant.now())
    except errors.NotFound:
        return _answer(request, pages.missing())
    except errors.LavaError as error:
        alert = refusals.of_silence()
        return _json({"title": alert.title, "text": alert.text}, refusals.status_of(error))
    if "application/json" not in request.headers.get("Accept", ""):
        return _to("pay", token)
    alert_now = _alert(payment) if _is_open(payment) else None
    if alert_now is not None:
        return _json({"status": "declined", "title": alert_now.title, "text": alert_now.text})
    return _json({"status": "done"})


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
@languages.spoken
def card(request: HttpRequest, token: str) -> HttpResponse:
    """`/card/{token}`: leads on to a checkout that saves a card, behind a phone code."""
    try:
        connection = receipts.find_connection(token)
    except errors.NotFound:
        return _answer(request, pages.missing())
    if request.method == "POST":
        session = _card_session(connection)
        return _to("checkout", session.secret)
    merchant = connection.merchant
    saved = connection.card
    return _answer(
        request,
        Page(
            "checkout/card.html",
            {
                "title": f"{gettext('Your card')} \u2013 {merchant.name}",
                "brand": pages.brand_of(merchant),
                "saved_card": pages.shown_card(saved),
                "masked_phone": dialing.masked(connection.customer.phone),
            },
        ),
    )


def _look(payment: Payment) -> Payment:
    """The payment as the network has it, where it answers."""
    if not payment.is_open:
        return payment
    try:
        return payments.refresh(payment, now=payment.merchant.now())
    except errors.LavaError:
        return payment


def _is_open(payment: Payment) -> bool:
    until = payment.action_until
    waits = payment.status == Payment.Status.REQUIRES_ACTION
    return waits and until is not None and until > payment.merchant.now()


def _page(payment: Payment, token: str) -> Page:
    merchant, paid = payment.merchant, receipts.amount(payment)
    what = receipts.what(payment)
    context: dict[str, Any] = {
        "title": f"{gettext('Confirm your payment')} \u2013 {merchant.name}",
        "brand": pages.brand_of(merchant),
    }
    if payment.status == Payment.Status.SUCCEEDED:
        return Page(
            "checkout/link.html",
            context
            | {
                "kind": "ok",
                "heading": gettext("{amount} paid").format(amount=paid),
                "lead": gettext("{what}. Thank you: there is nothing left to confirm.").format(
                    what=what
                ),
                "url": languages.with_language(receipts.address(payment)),
                "action": gettext("Open receipt {number}").format(number=payment.receipt_number),
            },
        )
    if not _is_open(payment):
        return Page(
            "checkout/link.html",
            context
            | {
                "kind": "warn",
                "heading": gettext("There is nothing to confirm here any more"),
                "lead": gettext(
                    "Nothing was charged. If {merchant} still waits for {amount}, you get a new "
                    "link; with another card it may go through without."
                ).format(merchant=merchant.name, amount=paid),
                "url": languages.with_language(receipts.card_address(payment.connection)),
                "action": gettext("Use another card"),
            },
            410,
        )
    saved = payment.connection.card
    phone = payment.connection.customer.phone
    alert = _alert(payment)
    return Page(
        "checkout/confirm.html",
        context
        | {
            "heading": gettext("Confirm {amount}").format(amount=paid),
            "lead": gettext(
                "{what}. Your bank wants to know that it is you; nothing was charged yet."
            ).format(what=what),
            "card": pages.card_fields(merchant, charge=payment.amount, phone=phone),
            "saved_card": pages.shown_card(saved),
            "urls": {
                "begin": languages.address("pay-begin", token),
                "finish": languages.address("pay-finish", token),
                "page": languages.address("pay", token),
            },
            "until": locales.instant(payment.action_until, merchant.time_zone)
            if payment.action_until
            else "",
            "alert": alert,
            "action": gettext("Confirm {amount}").format(amount=paid),
            "busy": gettext("Confirming..."),
        },
    )


def _alert(payment: Payment) -> Alert | None:
    """What went wrong at the page; none before the customer tried."""
    if payment.failure_code in ("", "authentication_required"):
        return None
    return refusals.of_decline(payment.failure_code, payment.merchant.name)


def _card_session(connection: Connection) -> CheckoutSession:
    """The open checkout that saves a card for this customer, or a new one."""
    merchant = connection.merchant
    now = merchant.now()
    found: CheckoutSession | None = (
        CheckoutSession.objects.of(merchant)
        .filter(
            connection=connection,
            mode=CheckoutSession.Mode.ONBOARDING,
            state__in=CheckoutSession.UNDER_WAY,
            expires_at__gt=now,
        )
        .order_by("-created_at")
        .first()
    )
    if found is not None:
        return found
    base = urlsplit(settings.LAVA_BASE_URL)
    return sessions.create(
        merchant,
        mode=CheckoutSession.Mode.ONBOARDING,
        origin_url=f"{base.scheme}://{base.netloc}",
        connection=connection,
        now=now,
    )


def _to(name: str, token: str) -> HttpResponse:
    """See Other: a reload never posts again."""
    return HttpResponseRedirect(languages.address(name, token), status=303)


def _answer(request: HttpRequest, page: Page) -> HttpResponse:
    response = render(request, page.template, page.context, status=page.status)
    return policy.seal(response, "'none'")


def _json(body: dict[str, Any], status: int = 200) -> HttpResponse:
    return policy.seal(JsonResponse(body, status=status), "'none'")
