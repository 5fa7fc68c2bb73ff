"""A plan's own link: `/buy/{token}`, to be sent, printed or scanned. It is good for as long as the
plan is sold, and for everybody.

Its page is step 1 of a checkout. Looking at it writes nothing; the phone that is posted makes the
checkout and is texted its code, in one transaction, and the way goes on there.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.core import signing
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from billing import errors, receipts
from billing.models import Plan
from checkout import dialing, forms, languages, pages, policy, refusals, sessions, summary
from checkout.models import CheckoutSession
from checkout.pages import Alert, Page

SALT = "checkout.offer"


def address(plan: Plan) -> str:
    """The absolute address of a plan's link."""
    token = signing.Signer(salt=SALT).sign(plan.pk.hex)
    return f"{settings.LAVA_BASE_URL}{reverse('buy', args=[token])}"


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
@languages.spoken
def buy(request: HttpRequest, token: str) -> HttpResponse:
    """The offer and the phone; POST goes on to a checkout of its own."""
    try:
        plan = _find(token)
    except errors.NotFound:
        return _answer(request, pages.missing())
    if plan.archived_at is not None:
        return _answer(request, _gone(plan))
    if request.method != "POST":
        region = dialing.region_of(request.headers.get("Accept-Language", ""))
        return _answer(request, _start(plan, token, country=dialing.country(region)))
    try:
        return _begin(request, plan)
    except errors.LavaError as error:
        return _refuse(request, plan, token, error)


def _begin(request: HttpRequest, plan: Plan) -> HttpResponse:
    form = forms.PhoneForm(request.POST)
    form.full_clean()
    merchant, now = plan.merchant, plan.merchant.now()
    phone = dialing.e164(
        form.cleaned_data.get("phone", ""),
        region=dialing.country(form.cleaned_data.get("country", "")).region,
        strict=not merchant.is_sandbox,
    )
    base = urlsplit(settings.LAVA_BASE_URL)
    # What is throttled leaves no checkout behind.
    with transaction.atomic():
        session = sessions.create(
            merchant,
            mode=CheckoutSession.Mode.SUBSCRIPTION,
            origin_url=f"{base.scheme}://{base.netloc}",
            plan=plan,
            now=now,
        )
        sessions.send_code(
            session,
            phone=phone,
            nonce=session.nonce,
            address=policy.address_of(request),
            now=now,
        )
    return HttpResponseRedirect(languages.address("checkout", session.secret), status=303)


def _refuse(request: HttpRequest, plan: Plan, token: str, error: errors.LavaError) -> HttpResponse:
    is_phone = error.param == "phone"
    shown = _start(
        plan,
        token,
        country=dialing.country(request.POST.get("country", "")),
        phone=request.POST.get("phone", "")[:32],
        problem=error.message if is_phone else "",
        alert=None if is_phone else _alert(plan, error),
    )
    shown.status = 422 if is_phone else refusals.status_of(error)
    response = _answer(request, shown)
    if isinstance(error, errors.Throttled | errors.Unavailable):
        response["Retry-After"] = str(int(error.retry_after_s) or 1)
    return response


def _alert(plan: Plan, error: errors.LavaError) -> Alert:
    if isinstance(error, errors.Throttled):
        return Alert(gettext("Wait a moment"), error.message)
    return Alert(
        gettext("The payment could not be started"),
        gettext("Nothing was charged. Try again; if it happens again, tell {merchant}.").format(
            merchant=plan.merchant.name
        ),
    )


def _start(
    plan: Plan,
    token: str,
    *,
    country: dialing.Country,
    phone: str = "",
    problem: str = "",
    alert: Alert | None = None,
) -> Page:
    merchant = plan.merchant
    return Page(
        "checkout/start.html",
        {
            "title": f"{plan.name} \u2013 {merchant.name}",
            "brand": pages.brand_of(merchant),
            "urls": {"phone": languages.address("buy", token)},
            "summary": summary.of_plan(plan, now=merchant.now(), zone=merchant.time_zone),
            "step": gettext("Step {number} of 3").format(number=1),
            "heading": gettext("Confirm your phone"),
            "countries": dialing.countries(),
            "chosen": country,
            "phone": phone,
            "problem": problem,
            "alert": alert,
        },
    )


def _gone(plan: Plan) -> Page:
    return Page(
        "checkout/notice.html",
        {
            "title": f"{plan.name} \u2013 {plan.merchant.name}",
            "brand": pages.brand_of(plan.merchant),
            "kind": "warn",
            "heading": gettext("{plan} is offered no more").format(plan=plan.name),
            "lead": gettext("Nothing was charged. Ask {merchant} for another plan.").format(
                merchant=plan.merchant.name
            ),
        },
        410,
    )


def _find(token: str) -> Plan:
    plan: Plan | None = (
        Plan.objects.filter(pk=receipts.unsign(SALT, token))
        .select_related("merchant__organization")
        .first()
    )
    if plan is None:
        raise errors.NotFound("There is no such plan.")
    return plan


def _answer(request: HttpRequest, page: Page) -> HttpResponse:
    response = render(request, page.template, page.context, status=page.status)
    return policy.seal(response, "'none'")
