"""A person's own account: two-step sign-in, its recovery codes, where they are signed in."""

from __future__ import annotations

import segno
from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_POST

from billing import errors, second_factors, sign_ins
from lava.console import access, resets, sessions, trail

HOME = "/console/account"
# By a word of what a browser says of itself, the telling ones first: most of them name others too.
BROWSERS = {
    "Edg": "Edge", "OPR/": "Opera", "Opera": "Opera", "SamsungBrowser": "Samsung Internet",
    "Firefox": "Firefox", "FxiOS": "Firefox", "CriOS": "Chrome", "Chrome": "Chrome",
    "Safari": "Safari",
}  # fmt: skip
SYSTEMS = {
    "iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Windows": "Windows",
    "Mac OS X": "macOS", "CrOS": "ChromeOS", "Linux": "Linux",
}  # fmt: skip


def browser_name(said: str) -> str:
    """A browser as people call it, of its User-Agent: `Firefox on Windows`."""
    browser = next((name for word, name in BROWSERS.items() if word in said), "")
    system = next((name for word, name in SYSTEMS.items() if word in said), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or said[:40] or "Unknown browser"


@access.requires("billing.view_any")
@require_GET
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/account`"""
    user = request.user
    is_on = second_factors.has(user)
    return render(
        request,
        "console/account/page.html",
        {
            "two_step": is_on,
            "codes_left": second_factors.codes_left(user) if is_on else 0,
            "sign_ins": [(row, browser_name(row.browser)) for row in sign_ins.open_ones(user)],
            "here": sessions.stored(str(request.session.session_key)),
            "zone": request.merchant.time_zone,
        },
    )


@access.requires("billing.view_any")
@require_POST
def password(request: access.ConsoleRequest) -> HttpResponse:
    """Mail the link with which one chooses a new password, as who forgot it gets."""
    resets.mail(request.user.email)
    messages.success(
        request, f"A link is on its way to {request.user.email}. It works once, for an hour."
    )
    return redirect(HOME)


@sensitive_post_parameters("code")
@access.requires("billing.view_any")
def two_step(request: access.ConsoleRequest) -> HttpResponse:
    """Scan, type a code, read the recovery codes: the only page that shows them."""
    user, now, problem = request.user, timezone.now(), ""
    if request.method == "POST" and not request.POST.get("code"):
        try:
            second_factors.begin(user, now=now)
        except errors.Conflict as error:
            messages.info(request, error.message)
            return redirect(HOME)
        return redirect(f"{HOME}/two-step")
    if request.method == "POST":
        try:
            with transaction.atomic():
                codes = second_factors.confirm(user, request.POST["code"], now=now)
                _note(request, "account.two_step_on")
        except errors.NotFound:
            return redirect(HOME)
        except errors.Invalid as error:
            problem = error.message
        else:
            return render(request, "console/account/codes.html", {"codes": codes, "fresh": True})
    secret = second_factors.pending(user)
    issuer = f"Lava, {request.organization.name}"
    return render(
        request,
        "console/account/two_step.html",
        {
            "secret": " ".join(secret[place : place + 4] for place in range(0, len(secret), 4)),
            "picture": _picture(second_factors.address(user, secret, issuer=issuer))
            if secret
            else "",
            "is_on": second_factors.has(user),
            "problem": problem,
        },
        status=422 if problem else 200,
    )


@sensitive_post_parameters("password")
@access.requires("billing.view_any")
def two_step_off(request: access.ConsoleRequest) -> HttpResponse:
    """Turn it off, with the password."""
    user, problem = request.user, ""
    if not second_factors.has(user):
        return (
            render(request, "console/account/off.html", {"is_on": False})
            if (request.method == "GET")
            else redirect(HOME)
        )
    if request.method == "POST":
        if user.check_password(request.POST.get("password", "")):
            with transaction.atomic():
                second_factors.remove(user)
                _note(request, "account.two_step_off")
            messages.success(request, "Two-step sign-in is off.")
            return redirect(HOME)
        problem = "That is not your password."
    context = {"is_on": True, "problem": problem}
    return render(request, "console/account/off.html", context, status=422 if problem else 200)


@access.requires("billing.view_any")
@require_POST
def codes(request: access.ConsoleRequest) -> HttpResponse:
    """Make new recovery codes in the place of the old ones."""
    if not second_factors.has(request.user):
        return redirect(HOME)
    with transaction.atomic():
        made = second_factors.renew_codes(request.user)
        _note(request, "account.codes_made")
    return render(request, "console/account/codes.html", {"codes": made, "fresh": False})


@access.requires("billing.view_any")
@require_POST
def sign_out(request: access.ConsoleRequest) -> HttpResponse:
    """Sign out one other browser, or all others."""
    asked = request.POST.get("sign_in", "")
    here = sessions.stored(str(request.session.session_key))
    try:
        with transaction.atomic():
            if asked == "others":
                count = sign_ins.end_others(request.user, but=here)
                said = f"{count} other browser{'' if count == 1 else 's'} signed out."
            else:
                key = int(asked) if asked.isdecimal() and len(asked) < 19 else 0
                sign_ins.end(request.user, key)
                said = "That browser is signed out."
            _note(request, "account.signed_out")
    except errors.NotFound:
        said = "That browser was signed out already."
    messages.success(request, said)
    return redirect(HOME)


def _note(request: access.ConsoleRequest, action: str) -> None:
    trail.record(request, action, name=request.user.email, of_books=False)


def _picture(text: str) -> SafeString:
    """A QR code as SVG, drawn here: no service sees the secret."""
    drawn = segno.make(text, error="m").svg_inline(scale=4, border=2, dark="#000", light="#fff")
    return mark_safe(drawn)  # noqa: S308 - digits and letters of our own drawing


urls: list[URLPattern] = [
    path("account", page, name="account"),
    path("account/password", password, name="account-password"),
    path("account/two-step", two_step, name="account-two-step"),
    path("account/two-step/off", two_step_off, name="account-two-step-off"),
    path("account/recovery-codes", codes, name="account-codes"),
    path("account/sign-out", sign_out, name="account-sign-out"),
]
