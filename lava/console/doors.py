"""The doors: sign in, sign out, the first run, and which books are open."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth import authenticate, login, logout, password_validation
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from billing import errors, merchants, money, second_factors, sign_ins
from billing.models import Membership, User
from checkout import policy
from lava.console import sessions
from lava.console.access import requires
from lava.console.middleware import MODE, ORGANIZATION

HOME = "/console/"
BACKEND = "billing.tenancy.RoleBackend"
# In the session of whoever gave the right password and no code yet; it is no sign-in.
HALF_IN = "half_in"
HALF_IN_FOR = timedelta(minutes=10)


def _next(request: HttpRequest) -> str:
    """Where to go afterwards: an address of the console, whatever was asked."""
    wanted = request.POST.get("next") or request.GET.get("next") or HOME
    safe = url_has_allowed_host_and_scheme(wanted, allowed_hosts=None)
    return wanted if safe and wanted.startswith(HOME) else HOME


@never_cache
@sensitive_post_parameters("password")
def sign_in(request: HttpRequest) -> HttpResponse:
    """`/console/login/`: e-mail and password; ten wrong tries in 15 minutes lock the pair."""
    if request.method != "POST" and not User.objects.exists():
        return redirect("/console/first-run")
    problem = ""
    if request.method == "POST":
        user = authenticate(
            request,
            username=request.POST.get("username", "").strip().lower(),
            password=request.POST.get("password", ""),
        )
        if isinstance(user, User):
            if second_factors.has(user):
                # The password was right; nobody is signed in before the code is.
                request.session.cycle_key()
                request.session[HALF_IN] = {"user": user.pk, "at": timezone.now().isoformat()}
                where = urlencode({"next": _next(request)})
                return redirect(f"/console/login/code?{where}")
            enter(request, user)
            return redirect(_next(request))
        problem = "That e-mail and password do not belong together."
        if getattr(request, "axes_locked_out", False):
            problem = "Too many tries. Wait 15 minutes, then try again."
    return render(
        request,
        "console/login.html",
        {"problem": problem, "email": request.POST.get("username", ""), "next": _next(request)},
        status=403 if problem.startswith("Too many") else 200,
    )


@never_cache
@sensitive_post_parameters("code")
def second_step(request: HttpRequest) -> HttpResponse:
    """`/console/login/code`: the code of the app, or a recovery code, after the password."""
    user = _half_in(request)
    if user is None:
        return redirect("/console/login/")
    problem = ""
    if request.method == "POST":
        try:
            if second_factors.check(user, request.POST.get("code", ""), now=timezone.now()):
                request.session.pop(HALF_IN, None)
                enter(request, user)
                return redirect(_next(request))
            problem = "That code is not right. Codes of the app change every 30 seconds."
        except errors.Refused as error:
            problem = error.message
    return render(
        request,
        "console/second_step.html",
        {"problem": problem, "next": _next(request)},
        status=403 if problem else 200,
    )


def _half_in(request: HttpRequest) -> User | None:
    """Who gave the right password with this browser a moment ago, and no code yet."""
    kept = request.session.get(HALF_IN)
    if not isinstance(kept, dict):
        return None
    at = parse_datetime(str(kept.get("at", "")))
    if at is None or timezone.now() - at > HALF_IN_FOR:
        request.session.pop(HALF_IN, None)
        return None
    found: User | None = User.objects.filter(pk=str(kept.get("user", "0")), is_active=True).first()
    return found


def enter(request: HttpRequest, user: User) -> None:
    """Sign a person in with this browser, and note where."""
    login(request, user, backend=BACKEND)
    sign_ins.note(
        user,
        session_key=sessions.stored(str(request.session.session_key)),
        address=policy.address_of(request),
        browser=request.headers.get("User-Agent", ""),
        now=timezone.now(),
    )


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """`/console/logout/`"""
    logout(request)
    return redirect("/console/login/")


@requires("billing.view_any")
@require_POST
def environment(request: HttpRequest) -> HttpResponse:
    """Open other books: live or sandbox, or those of another organization of the reader's."""
    mode = request.POST.get("mode")
    if mode in ("live", "sandbox"):
        request.session[MODE] = mode
    chosen = request.POST.get("organization")
    if chosen:
        request.session[ORGANIZATION] = chosen
    return redirect(_next(request))


def open_books(request: HttpRequest, membership: Membership) -> None:
    """Open the books of one of the reader's organizations."""
    request.session[ORGANIZATION] = str(membership.organization_id)


@dataclass(slots=True)
class Field:
    """One field of the first-run form."""

    name: str
    label: str
    kind: str = "text"
    value: str = ""
    help: str = ""
    autocomplete: str = "off"
    options: tuple[str, ...] = ()
    problem: str = ""


def _fields() -> dict[str, Field]:
    zones = tuple(sorted(zoneinfo.available_timezones()))
    fields = [
        Field("business", "Business", help="Customers see this name.", autocomplete="organization"),
        Field("name", "Your name", autocomplete="name"),
        Field("email", "Your e-mail", kind="email", autocomplete="email"),
        Field("password", "Password", kind="password", help="At least 10 characters.",
              autocomplete="new-password"),
        Field("currency", "Currency", value="USD", help="What your plans are priced in."),
        Field("time_zone", "Time zone", value="UTC", options=zones,
              help="Cycles begin and end in its local time."),
    ]  # fmt: skip
    return {field.name: field for field in fields}


@never_cache
@sensitive_post_parameters("password")
def first_run(request: HttpRequest) -> HttpResponse:
    """`/console/first-run`: makes the first person, their business and its books; then is gone."""
    if User.objects.exists():
        raise Http404
    fields = _fields()
    if request.method == "POST":
        for field in fields.values():
            typed = request.POST.get(field.name, "")
            # A password is kept to the letter, as signing in reads it.
            field.value = typed if field.kind == "password" else typed.strip()
        user = _start(fields)
        if user is not None:
            enter(request, user)
            return redirect(HOME)
        fields["password"].value = ""
    wrong = (field.name for field in fields.values() if field.problem)
    context: dict[str, Any] = {
        "fields": list(fields.values()),
        "first_wrong": next(wrong, ""),
    }
    return render(request, "console/first_run.html", context)


def _start(fields: dict[str, Field]) -> User | None:
    """Make all of it, or say at each field what is wrong and make nothing."""
    for field in fields.values():
        if not field.value:
            field.problem = f"Fill in: {field.label.lower()}."
    email = fields["email"]
    try:
        validate_email(email.value)
    except ValidationError:
        email.problem = "Write an e-mail address, such as ana@example.com."
    password = fields["password"]
    try:
        draft = User(email=email.value, name=fields["name"].value)
        password_validation.validate_password(password.value, draft)
    except ValidationError as error:
        password.problem = " ".join(error.messages)
    if fields["time_zone"].value not in fields["time_zone"].options:
        fields["time_zone"].problem = "Choose a zone of the list."
    try:
        currency = money.known_currency(fields["currency"].value.upper())
    except errors.Invalid as error:
        fields["currency"].problem = error.message
    if any(field.problem for field in fields.values()):
        return None
    with transaction.atomic():
        user = User.objects.create_user(
            email.value, password.value, name=fields["name"].value, is_operator=True
        )
        merchants.create(
            name=fields["business"].value,
            owner=user,
            currency=currency,
            time_zone=fields["time_zone"].value,
        )
    return user


urls = [
    path("login/", sign_in, name="login"),
    path("login/code", second_step, name="second-step"),
    path("logout/", sign_out, name="logout"),
    path("first-run", first_run, name="first-run"),
    path("environment", environment, name="environment"),
]
