"""Who is at the portal: the browser's cookie and the token in each form.

The cookie holds a random secret, signed and bound to one merchant; it is HttpOnly, SameSite=Lax and
sent to `/portal` alone. Django's sessions belong to the console and play no part. Each POST carries
a token made from that secret, so that no other site can send one.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac

from billing.models import Merchant
from checkout.models import PortalVisit
from checkout.portal import visits

SALT = "checkout.portal"
PATH = "/portal"


@dataclass(slots=True)
class Browser:
    """A browser at a merchant's portal: its secret, and its visit where one goes on."""

    merchant: Merchant
    secret: str
    visit: PortalVisit | None
    # It must be told its secret: it is new.
    is_new: bool

    @property
    def token(self) -> str:
        """What each of its forms carries."""
        said = f"{self.merchant.pk.hex}:{self.secret}"
        return salted_hmac("checkout.portal.form", said, algorithm="sha256").hexdigest()

    def sent(self, request: HttpRequest) -> bool:
        """Whether a POST comes from a form that this browser was shown."""
        return hmac.compare_digest(self.token.encode(), request.POST.get("nonce", "").encode())

    def begin_again(self) -> None:
        """Another secret, and nobody known."""
        self.secret, self.visit, self.is_new = visits.new_secret(), None, True


def browser(request: HttpRequest, merchant: Merchant, *, now: datetime) -> Browser:
    """The browser of a request; without a cookie of ours, or after its visit, a new one."""
    held = _read(request, merchant)
    visit = visits.find(merchant, held, now=now) if held else None
    if held is None or (visit is None and visits.is_used(held)):
        return Browser(merchant, visits.new_secret(), None, is_new=True)
    return Browser(merchant, held, visit, is_new=False)


def remember(response: HttpResponse, who: Browser) -> HttpResponse:
    """Give the browser its secret."""
    if who.is_new:
        response.set_cookie(
            _name(who.merchant),
            signing.Signer(salt=SALT).sign(f"{who.merchant.pk.hex}.{who.secret}"),
            path=PATH,
            httponly=True,
            samesite="Lax",
            secure=bool(settings.SESSION_COOKIE_SECURE),
        )
    return response


def _read(request: HttpRequest, merchant: Merchant) -> str | None:
    try:
        said = signing.Signer(salt=SALT).unsign(request.COOKIES.get(_name(merchant), ""))
    except signing.BadSignature:
        return None
    whose, _, secret = said.partition(".")
    return secret if whose == merchant.pk.hex else None


def _name(merchant: Merchant) -> str:
    """One a merchant, so that two portals in one browser leave each other alone."""
    return f"lava_portal_{merchant.public_id}"
