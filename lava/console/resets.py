"""A forgotten password: a link by mail, then a new password, which ends every sign-in.

The answer is the same for addresses we know and those we do not; links are built from the
configured address of the site alone, work once and for an hour (PASSWORD_RESET_TIMEOUT).
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.auth import password_validation
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from billing import outbox, sign_ins
from billing import trail as entries
from billing.models import OutboxMessage, User

SUBJECT = "A new password for your merchant console"
# So many mails to an address in so long, however often somebody asks.
MOST, WINDOW = 3, timedelta(minutes=15)


@never_cache
def forgot(request: HttpRequest) -> HttpResponse:
    """`/console/forgot`: asks for the address, mails a link."""
    asked = request.method == "POST"
    if asked:
        mail(request.POST.get("email", "").strip().lower()[:254])
    return render(request, "console/forgot.html", {"asked": asked})


def mail(email: str) -> None:
    """Owe a link to a person of a team; nothing for anybody else, or too often."""
    user = User.objects.filter(email=email, is_active=True).first()
    membership = user.memberships.select_related("organization").first() if user else None
    if user is None or membership is None:
        return
    merchant, now = membership.organization.live, timezone.now()
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        sent = OutboxMessage.objects.filter(
            merchant=merchant, to=user.email, subject=SUBJECT, created_at__gt=now - WINDOW
        )
        if sent.count() >= MOST:
            return
        place = urlsafe_base64_encode(str(user.pk).encode())
        token = default_token_generator.make_token(user)
        outbox.mail(
            merchant,
            to=user.email,
            subject=SUBJECT,
            body=(
                f"Hello {user.get_short_name()},\n\nchoose a new password here:\n"
                f"{settings.LAVA_BASE_URL}/console/reset/{place}/{token}\n\n"
                "The link works once, for an hour. If you did not ask for it, do nothing: your "
                "password stays as it is.\n"
            ),
            now=now,
        )


@never_cache
@sensitive_post_parameters("password")
def reset(request: HttpRequest, place: str, token: str) -> HttpResponse:
    """`/console/reset/…`: choose the new password; every browser is signed out by it."""
    user = _person(place)
    if user is None or not default_token_generator.check_token(user, token):
        return render(request, "console/reset.html", {"ended": True}, status=404)
    problem = ""
    if request.method == "POST":
        password = request.POST.get("password", "")
        try:
            password_validation.validate_password(password, user)
        except ValidationError as error:
            problem = " ".join(error.messages)
        else:
            with transaction.atomic():
                user.set_password(password)
                user.save(update_fields=["password"])
                sign_ins.end_others(user, but="")
                membership = user.memberships.select_related("organization").first()
                if membership is not None:
                    entries.record(
                        membership.organization,
                        "account.password_changed",
                        by=user,
                        name=user.email,
                    )
            return render(request, "console/reset.html", {"done": True})
    status = 422 if problem else 200
    return render(
        request, "console/reset.html", {"problem": problem, "email": user.email}, status=status
    )


def _person(place: str) -> User | None:
    try:
        key = int(urlsafe_base64_decode(place).decode())
    except (ValueError, UnicodeDecodeError):
        return None
    found: User | None = User.objects.filter(pk=key, is_active=True).first()
    return found


urls: list[URLPattern] = [
    path("forgot", forgot, name="forgot"),
    path("reset/<str:place>/<str:token>", reset, name="reset"),
]
