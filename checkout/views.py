"""The hosted pages: parse what a page posts, call one step of `checkout.sessions`, present.

No cookie, no session, no CSRF token: a cross-site frame gets none of them. State hangs on the
secret in the address and on the nonce in each form. Every answer carries its own content security
policy: framed by the session's origin alone, or by nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from billing import errors, ids
from checkout import dialing, forms, languages, pages, policy, refusals, sessions
from checkout.models import CheckoutSession
from checkout.pages import Alert, Page

State = CheckoutSession.State
Step = Callable[..., HttpResponse]


def found(step: Step) -> Step:
    """Find the session of the address; hand it to the step; seal the answer."""

    @csrf_exempt
    @require_http_methods(["GET", "HEAD", "POST"])
    @languages.spoken
    @wraps(step)
    def view(request: HttpRequest, secret: str, embedded: bool = False) -> HttpResponse:
        try:
            session = sessions.by_secret(secret)
        except errors.NotFound:
            page = pages.missing()
            return policy.seal(
                render(request, page.template, page.context, status=page.status), "'none'"
            )
        ancestors = session.origin_url if embedded else "'none'"
        return policy.seal(step(request, session, embedded), ancestors)

    return view


def posted(step: Step) -> Step:
    """A step that is posted. Looked at with GET (a reload), it leads to the page."""

    @wraps(step)
    def view(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
        if request.method != "POST":
            return to_page(session, embedded)
        try:
            return step(request, session, embedded)
        except errors.LavaError as error:
            return refuse(request, session, embedded, error)

    return found(view)


@found
def page(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
    """The page of the step the session stands at."""
    if request.method == "POST":
        return to_page(session, embedded)
    return show(request, session, embedded)


@posted
def phone(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
    """Step 1: text a code."""
    form = forms.PhoneForm(request.POST)
    form.full_clean()
    typed = form.cleaned_data.get("phone", "")
    number = None
    if not session.connection_is_given:
        region = dialing.country(form.cleaned_data.get("country", "")).region
        strict = not session.merchant.is_sandbox
        number = dialing.e164(typed, region=region, strict=strict)
    sessions.send_code(
        session,
        phone=number,
        nonce=form.cleaned_data.get("nonce", ""),
        address=policy.address_of(request),
        now=session.merchant.now(),
    )
    return to_page(session, embedded)


@posted
def resend(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
    """Step 2: text another code to the same phone."""
    sessions.send_code(
        session,
        nonce=nonce_of(request),
        address=policy.address_of(request),
        now=session.merchant.now(),
    )
    return to_page(session, embedded)


@posted
def code(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
    """Step 2: try a code."""
    form = forms.CodeForm(request.POST)
    form.full_clean()
    digits = form.cleaned_data.get("code", "")
    if not (len(digits) == 6 and digits.isascii() and digits.isdigit()):
        raise errors.Refused(
            gettext("Enter the six digits we sent."), code="malformed_code", param="code"
        )
    sessions.verify_code(
        session, code=digits, nonce=form.cleaned_data["nonce"], now=session.merchant.now()
    )
    return to_page(session, embedded)


@posted
def restart(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
    """Change the number."""
    sessions.restart(session, nonce=nonce_of(request), now=session.merchant.now())
    return to_page(session, embedded)


@posted
def bundle(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
    """A top-up's choice, or (empty) the wish to choose again."""
    form = forms.BundleForm(request.POST)
    form.full_clean()
    chosen: UUID | None = None
    if form.cleaned_data.get("bundle"):
        chosen = ids.parse("cb", form.cleaned_data["bundle"])
    sessions.choose_bundle(
        session,
        bundle_id=chosen,
        nonce=form.cleaned_data.get("nonce", ""),
        now=session.merchant.now(),
    )
    return to_page(session, embedded)


@found
def pay(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
    """Step 3, from the page's script: begin the payment, and give it what it confirms."""
    if request.method != "POST":
        return to_page(session, embedded)
    body = forms.json_strings(request.body)
    if body is None:
        return JsonResponse({"reload": True}, status=400)
    name, email, problems = _payer(session, body)
    if problems:
        return JsonResponse({"problems": problems}, status=422)
    try:
        intent = sessions.begin_payment(
            session,
            nonce=body.get("nonce", ""),
            name=name,
            email=email,
            now=session.merchant.now(),
        )
    except errors.LavaError as error:
        return _refuse_json(session, error)
    if intent is None:
        return JsonResponse({"reload": True})
    return JsonResponse(
        pages.intent_json(
            intent, session.connection, card=body.get("card", ""), name=name, email=email
        )
    )


@posted
def complete(request: HttpRequest, session: CheckoutSession, embedded: bool) -> HttpResponse:
    """Step 3, after the card was confirmed: ask what became of it. A free plan starts here."""
    now = session.merchant.now()
    wants_json = "application/json" in request.headers.get("Accept", "")
    if session.state == State.COMPLETED:
        return JsonResponse({"status": "done"}) if wants_json else to_page(session, embedded)
    if session.state == State.VERIFIED and sessions.means(session) == sessions.Means.NONE:
        name, email, problems = _payer(session, request.POST.dict())
        if problems:
            typed = {"name": request.POST.get("name", ""), "email": request.POST.get("email", "")}
            shown = pages.pay(session, embedded=embedded, now=now, typed=typed, problems=problems)
            return answer(request, shown, 422)
        sessions.begin_free(session, nonce=nonce_of(request), name=name, email=email, now=now)
        return to_page(session, embedded)
    try:
        outcome = sessions.finish_payment(session, now=now)
    except errors.LavaError as error:
        if wants_json:
            return _refuse_json(session, error)
        raise
    if wants_json:
        alert = refusals.of_outcome(session, outcome)
        if alert is not None:
            return JsonResponse({"status": outcome, "title": alert.title, "text": alert.text})
        return JsonResponse({"status": outcome})
    if outcome == sessions.Outcome.DONE:
        return to_page(session, embedded)
    return show(request, sessions.by_secret(session.secret), embedded, outcome=outcome)


def show(
    request: HttpRequest,
    session: CheckoutSession,
    embedded: bool,
    *,
    alert: Alert | None = None,
    status: int = 200,
    outcome: sessions.Outcome | None = None,
) -> HttpResponse:
    """The page of where the session stands, with `alert` on it."""
    if session.payment_id is not None and session.state in (State.PAYING, State.EXPIRED):
        if outcome is None:
            outcome = _look(session)
        session = sessions.by_secret(session.secret)
    # Not before: what was settled just now is in force from that instant on.
    now = session.merchant.now()
    if session.state == State.COMPLETED:
        return answer(request, pages.done(session, embedded=embedded, now=now), status)
    if outcome in (sessions.Outcome.WAITING, sessions.Outcome.WITHDRAWN):
        return answer(request, refusals.page_of_outcome(session, outcome, embedded), status)
    if session.state == State.EXPIRED:
        return answer(request, refusals.expired(session, embedded), 410)
    if session.state in (State.VERIFIED, State.PAYING):
        standing = sessions.standing(session)
        if standing != sessions.Standing.CLEAR:
            return answer(request, refusals.page_of_standing(session, standing, embedded), status)
        if session.mode == CheckoutSession.Mode.TOPUP and session.bundle is None:
            shown = pages.choose(session, embedded=embedded, now=now, alert=alert)
        else:
            if alert is None and outcome == sessions.Outcome.DECLINED:
                alert = refusals.of_outcome(session, outcome)
            shown = pages.pay(session, embedded=embedded, now=now, alert=alert)
    elif session.state == State.PHONE_SENT:
        shown = pages.code(session, embedded=embedded, now=now, alert=alert)
    else:
        country = dialing.country(dialing.region_of(request.headers.get("Accept-Language", "")))
        shown = pages.start(session, embedded=embedded, now=now, country=country, alert=alert)
    return answer(request, shown, status)


def refuse(
    request: HttpRequest, session: CheckoutSession, embedded: bool, error: errors.LavaError
) -> HttpResponse:
    """The page that says what was refused and how to go on."""
    session = sessions.by_secret(session.secret)
    now = session.merchant.now()
    status = refusals.status_of(error)
    if error.code == "already_completed":
        return answer(request, refusals.already_done(session, embedded), status)
    if error.param == "phone" and session.state in (State.OPEN, State.PHONE_SENT):
        shown = pages.start(
            session,
            embedded=embedded,
            now=now,
            country=dialing.country(request.POST.get("country", "")),
            phone=request.POST.get("phone", "")[:32],
            problem=error.message,
        )
        return answer(request, shown, 422)
    if error.param == "code" and session.state == State.PHONE_SENT:
        shown = pages.code(session, embedded=embedded, now=now, problem=error.message)
        return answer(request, shown, 422)
    response = show(
        request, session, embedded, alert=refusals.alert_of(session, error), status=status
    )
    if isinstance(error, errors.Throttled | errors.Unavailable):
        response["Retry-After"] = str(int(error.retry_after_s) or 1)
    return response


def to_page(session: CheckoutSession, embedded: bool) -> HttpResponseRedirect:
    """See Other: a reload never posts again."""
    name = "embed-checkout" if embedded else "checkout"
    response = HttpResponseRedirect(languages.address(name, session.secret))
    response.status_code = 303
    return response


def nonce_of(request: HttpRequest) -> str:
    form = forms.StepForm(request.POST)
    form.full_clean()
    return str(form.cleaned_data.get("nonce", ""))


def answer(request: HttpRequest, shown: Page, status: int) -> HttpResponse:
    """`status` counts where the page has none of its own."""
    return render(
        request,
        shown.template,
        shown.context,
        status=shown.status if shown.status != 200 else status,
    )


def _look(session: CheckoutSession) -> sessions.Outcome | None:
    """Ask about a payment under way before its page is shown; None: nobody knows now."""
    try:
        return sessions.finish_payment(session, now=session.merchant.now())
    except errors.LavaError:
        return None


def _payer(session: CheckoutSession, body: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Name, e-mail and what is wrong with them; a returning customer need not say them again."""
    customer = session.connection.customer if session.connection else None
    form = forms.PayerForm(body)
    if form.is_valid():
        return form.cleaned_data["name"], form.cleaned_data["email"], {}
    said = body.get("name") or body.get("email")
    if customer and customer.name and customer.email and not said:
        return "", "", {}
    return "", "", form.problems


def _refuse_json(session: CheckoutSession, error: errors.LavaError) -> JsonResponse:
    status = refusals.status_of(error)
    if isinstance(error, errors.Gone | errors.Conflict):
        # The page shows where things stand.
        return JsonResponse({"reload": True, "code": error.code}, status=status)
    alert = refusals.alert_of(session, error)
    return JsonResponse({"title": alert.title, "text": alert.text}, status=status)
