"""The portal's addresses: parse what a page posts, call one verb, present.

Each POST carries the token of its browser (`checkout.portal.access`); everything but the sign-in is
for a browser that is signed in, and about the connection it signed in to, whatever it names. Pages
are framed by nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from billing import errors, ids, locales, money, receipts, subscriptions, topups, upgrades
from billing.models import (
    Connection,
    CreditBundle,
    Merchant,
    Organization,
    Payment,
    Plan,
    Subscription,
)
from checkout import dialing, forms, languages, policy, refusals, sessions, summary
from checkout import pages as hosted
from checkout.models import CheckoutSession
from checkout.pages import Alert, Page
from checkout.portal import access, activity, pages, switching, visits
from checkout.portal.access import Browser

Step = Callable[..., HttpResponse]
Mode = CheckoutSession.Mode


def found(step: Step) -> Step:
    """Find the merchant of the address and who is there; seal the answer, keep the cookie."""

    # The token of `access` stands in for Django's, whose cookie is the console's.
    @csrf_exempt
    @require_http_methods(["GET", "HEAD", "POST"])
    @languages.spoken
    @wraps(step)
    def view(request: HttpRequest, merchant: str) -> HttpResponse:
        row = _merchant(merchant)
        if row is None:
            return _missing(request)
        who = access.browser(request, row, now=row.now())
        if request.method == "POST" and not who.sent(request):
            response = _refuse_form(request, who)
        else:
            response = step(request, who)
        return policy.seal(access.remember(response, who), "'none'")

    return view


def posted(step: Step) -> Step:
    """A step of the sign-in, which is posted; looked at with GET, it leads to the page."""

    @wraps(step)
    def view(request: HttpRequest, who: Browser) -> HttpResponse:
        if request.method != "POST":
            return _to(who)
        try:
            return step(request, who)
        except errors.LavaError as error:
            return _refuse_sign_in(request, who, error)

    return found(view)


def theirs(step: Step) -> Step:
    """For a browser that is signed in as a customer; any other is led to the sign-in."""

    @wraps(step)
    def view(request: HttpRequest, who: Browser) -> HttpResponse:
        if who.visit is None or who.visit.connection is None:
            return _to(who)
        connection = who.visit.connection
        try:
            return step(request, who, connection)
        except errors.LavaError as error:
            alert = _alert(who, error)
            shown = pages.home(who, connection, now=who.merchant.now(), alert=alert)
            return _answer(request, shown, refusals.status_of(error))

    return found(view)


@require_http_methods(["GET", "HEAD"])
@languages.spoken
def door(request: HttpRequest) -> HttpResponse:
    """`/portal`: leads on where one business is at home; else each has its own address."""
    names = Organization.objects.values_list("pk", flat=True)[:2]
    if len(names) != 1:
        return _missing(request)
    live = Merchant.objects.filter(organization=names[0], mode=Merchant.Mode.LIVE).first()
    return (
        HttpResponseRedirect(languages.address("portal", live.public_id))
        if live
        else _missing(request)
    )


@found
def page(request: HttpRequest, who: Browser) -> HttpResponse:
    """The portal, or the step of the sign-in."""
    return _show(request, who)


@posted
def phone(request: HttpRequest, who: Browser) -> HttpResponse:
    """Text a code."""
    form = forms.PhoneForm(request.POST)
    form.full_clean()
    region = dialing.country(form.cleaned_data.get("country", "")).region
    number = dialing.e164(
        form.cleaned_data.get("phone", ""), region=region, strict=not who.merchant.is_sandbox
    )
    return _send(request, who, number)


@posted
def resend(request: HttpRequest, who: Browser) -> HttpResponse:
    """Text another code to the same phone."""
    return _to(who) if who.visit is None else _send(request, who, who.visit.phone)


@posted
def code(request: HttpRequest, who: Browser) -> HttpResponse:
    """Try a code."""
    if who.visit is None:
        return _to(who)
    form = forms.CodeForm(request.POST)
    form.full_clean()
    digits = form.cleaned_data.get("code", "")
    if not (len(digits) == 6 and digits.isascii() and digits.isdigit()):
        raise errors.Refused(
            gettext("Enter the six digits we sent."), code="malformed_code", param="code"
        )
    who.secret = visits.verify_code(who.visit, code=digits, now=who.merchant.now())
    who.is_new = True
    return _to(who)


@posted
def leave(request: HttpRequest, who: Browser) -> HttpResponse:
    """Sign out, or begin again with another number."""
    if who.visit is not None:
        visits.end(who.visit, now=who.merchant.now())
    who.begin_again()
    return _to(who)


@theirs
def cancel(request: HttpRequest, who: Browser, connection: Connection) -> HttpResponse:
    """Cancel at the end of the cycle."""
    current = _current(connection)
    if request.method != "POST":
        return _answer(request, pages.cancel(who, current))
    subscriptions.cancel(current, now=who.merchant.now())
    return _to(who, "cancelled")


@theirs
def resume(request: HttpRequest, who: Browser, connection: Connection) -> HttpResponse:
    """Take back what is planned for the end of the cycle."""
    if request.method == "POST":
        current = _current(connection)
        # Pressed twice it is taken back once, and that is what both wanted.
        if current.pending_change is not None:
            subscriptions.resume(current, now=who.merchant.now())
        return _to(who, "resumed")
    return _to(who)


@theirs
def switch(request: HttpRequest, who: Browser, connection: Connection) -> HttpResponse:
    """The other plans; one of them; the switch."""
    current, now = _current(connection), who.merchant.now()
    asked = request.POST if request.method == "POST" else request.GET
    if "plan" not in asked:
        return _answer(request, pages.choose(who, current))
    plan = _plan(current, asked["plan"])
    if plan.pk == current.plan_id:
        # Pressed twice: the second finds it done.
        return _to(who, "switched")
    if request.method != "POST":
        return _answer(request, pages.switch(who, current, plan, now=now))
    if request.POST.get("price") != money.wire(plan.price.amount):
        alert = Alert(
            gettext("The price has changed"),
            gettext("Nothing was charged. Look at the new one."),
            kind="notice",
        )
        return _answer(request, pages.switch(who, current, plan, now=now, alert=alert), 409)
    switched = upgrades.switch(current, plan=plan, now=now)
    payment = switched.payment
    if payment is None:
        moved = switched.subscription.plan_id == plan.pk
        return _to(who, "switched" if moved else "scheduled")
    if payment.status == Payment.Status.SUCCEEDED:
        return _to(who, "switched")
    if payment.status == Payment.Status.REQUIRES_ACTION:
        # The bank wants the customer, who is here.
        path = urlsplit(receipts.pay_address(payment)).path
        return HttpResponseRedirect(languages.with_language(path), status=303)
    if payment.is_open:
        return _to(who, "checking")
    alert = refusals.of_decline(
        payment.failure_code,
        who.merchant.name,
        not_had=gettext("Nothing was charged and your plan is as it was."),
    )
    return _answer(request, pages.switch(who, current, plan, now=now, alert=alert), 402)


@theirs
def top_up(request: HttpRequest, who: Browser, connection: Connection) -> HttpResponse:
    """Switch the automatic top-up on, change it, switch it off."""
    current, now = _current(connection), who.merchant.now()
    if request.method != "POST":
        return _answer(request, pages.top_up(who, current))
    if "off" in request.POST:
        topups.configure(current, bundle=None, now=now)
        return _to(who, "top-up-off")
    typed = {name: request.POST.get(name, "")[:64] for name in ("bundle", "cap")}
    try:
        cap = money.parse_amount(locales.typed_amount(typed["cap"]), param="top_up_monthly_cap")
        bundle = _bundle(current, typed["bundle"])
        topups.configure(
            current,
            bundle=bundle,
            threshold=current.top_up_threshold,
            monthly_cap=cap,
            now=now,
        )
    except errors.Invalid as error:
        shown = pages.top_up(who, current, typed=typed, problem=_cap_problem(current, typed, error))
        return _answer(request, shown, 422)
    return _to(who, "top-up-on")


def _cap_problem(current: Subscription, typed: dict[str, str], error: errors.Invalid) -> str:
    """What is wrong with a monthly limit, in the customer's words."""
    if error.param != "top_up_monthly_cap" or not typed["cap"].strip():
        return gettext("Enter a limit.")
    try:
        money.parse_amount(locales.typed_amount(typed["cap"]), param="cap")
    except errors.Invalid:
        example = locales.plain_amount(Decimal(30), current.plan.currency)
        return gettext("Enter an amount such as {example}.").format(example=example)
    bundle = _bundle(current, typed["bundle"])
    return gettext("One pack costs {price}: allow at least that much a month.").format(
        price=summary.show(bundle.cost)
    )


@theirs
def buy(request: HttpRequest, who: Browser, connection: Connection) -> HttpResponse:
    """Buy credits: a checkout of its own, which knows who comes."""
    if request.method != "POST":
        return _to(who)
    _current(connection)
    return _to_checkout(who, connection, mode=Mode.TOPUP)


@theirs
def card(request: HttpRequest, who: Browser, connection: Connection) -> HttpResponse:
    """Save or replace the card: a checkout of its own."""
    if request.method != "POST":
        return _to(who)
    return _to_checkout(who, connection, mode=Mode.ONBOARDING)


@theirs
def lines(request: HttpRequest, who: Browser, connection: Connection) -> HttpResponse:
    """All lines of the credits."""
    below = request.GET.get("before", "")
    shown = pages.older(
        who,
        connection,
        now=who.merchant.now(),
        below=int(below) if below.isascii() and below.isdigit() and len(below) < 18 else None,
    )
    return _answer(request, shown)


@theirs
def download(request: HttpRequest, who: Browser, connection: Connection) -> HttpResponse:
    """All lines as a file."""
    response: Any = StreamingHttpResponse(
        locales.aloud(activity.csv_lines(connection)), content_type="text/csv; charset=utf-8"
    )
    response["Content-Disposition"] = 'attachment; filename="credits.csv"'
    return response  # type: ignore[no-any-return]


def _show(
    request: HttpRequest, who: Browser, *, alert: Alert | None = None, status: int = 200
) -> HttpResponse:
    now, visit = who.merchant.now(), who.visit
    if visit is None:
        country = dialing.country(dialing.region_of(request.headers.get("Accept-Language", "")))
        return _answer(request, pages.start(who, country=country, alert=alert), status)
    if visit.verified_at is None:
        return _answer(request, pages.code(who, visit, now=now, alert=alert), status)
    if visit.connection is None:
        return _answer(request, pages.nobody(who), status)
    shown = pages.home(
        who, visit.connection, now=now, done=request.GET.get("done", ""), alert=alert
    )
    return _answer(request, shown, status)


def _send(request: HttpRequest, who: Browser, number: str) -> HttpResponse:
    visits.send_code(
        who.merchant,
        who.secret,
        phone=number,
        address=policy.address_of(request),
        now=who.merchant.now(),
    )
    return _to(who)


def _refuse_form(request: HttpRequest, who: Browser) -> HttpResponse:
    """A form of another browser, or of a visit that is over."""
    alert = Alert(
        gettext("This page had moved on"),
        gettext("Nothing was changed and nothing was charged. You are now where you left off."),
        kind="notice",
    )
    return _show(request, who, alert=alert, status=403)


def _refuse_sign_in(request: HttpRequest, who: Browser, error: errors.LavaError) -> HttpResponse:
    status = refusals.status_of(error)
    if error.param == "phone":
        shown = pages.start(
            who,
            country=dialing.country(request.POST.get("country", "")),
            phone=request.POST.get("phone", "")[:32],
            problem=error.message,
        )
        return _answer(request, shown, 422)
    if error.param == "code" and who.visit is not None:
        now = who.merchant.now()
        shown = pages.code(who, who.visit, now=now, problem=error.message)
        return _answer(request, shown, 422)
    response = _show(request, who, alert=_alert(who, error), status=status)
    if isinstance(error, errors.Throttled | errors.Unavailable):
        response["Retry-After"] = str(int(error.retry_after_s) or 1)
    return response


def _alert(who: Browser, error: errors.LavaError) -> Alert:
    """What was refused, in the customer's words."""
    if isinstance(error, errors.Throttled):
        return Alert(gettext("Wait a moment"), error.message)
    if isinstance(error, errors.Unavailable | errors.CardUnknown):
        return refusals.of_silence()
    said = switching.REFUSALS.get(error.code, "")
    if said:
        said = gettext(said)
    elif error.code != "stale_page":
        said = gettext("It cannot be done now. Ask {merchant}.").format(merchant=who.merchant.name)
    text = f"{said} {refusals.nothing_charged()}".strip()
    return Alert(gettext("Nothing was changed"), text, kind="notice")


def _current(connection: Connection) -> Subscription:
    current = connection.subscription
    if current is None:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    return current


def _plan(current: Subscription, text: str) -> Plan:
    """A plan of this merchant that is offered, or the one they are on."""
    key = ids.parse("sc", text)
    if key == current.plan_id:
        return current.plan
    plan: Plan | None = switching.offered(current).filter(pk=key).first()
    if plan is None:
        raise errors.NotFound("No such plan.")
    return plan


def _bundle(current: Subscription, text: str) -> CreditBundle:
    bundle: CreditBundle | None = current.plan.live_bundles.filter(
        pk=ids.parse("cb", text), cost__gt=0
    ).first()
    if bundle is None:
        raise errors.NotFound("No such pack.")
    return bundle


def _to_checkout(who: Browser, connection: Connection, *, mode: str) -> HttpResponse:
    base = urlsplit(settings.LAVA_BASE_URL)
    session = sessions.create_confirmed(
        connection,
        mode=mode,
        origin_url=f"{base.scheme}://{base.netloc}",
        return_url=languages.with_language(pages.address(who.merchant)),
        now=who.merchant.now(),
    )
    return HttpResponseRedirect(languages.address("checkout", session.secret), status=303)


def _merchant(text: str) -> Merchant | None:
    try:
        key = ids.parse("mer", text)
    except errors.NotFound:
        return None
    return Merchant.objects.select_related("organization").filter(pk=key).first()


def _to(who: Browser, done: str = "") -> HttpResponse:
    """See Other: a reload never posts again."""
    said = {"done": done} if done else {}
    target = languages.address("portal", who.merchant.public_id, **said)
    return HttpResponseRedirect(target, status=303)


def _missing(request: HttpRequest) -> HttpResponse:
    return policy.seal(_answer(request, hosted.missing()), "'none'")


def _answer(request: HttpRequest, shown: Page, status: int = 200) -> HttpResponse:
    """`status` counts where the page has none of its own."""
    return render(
        request,
        shown.template,
        shown.context,
        status=shown.status if shown.status != 200 else status,
    )
