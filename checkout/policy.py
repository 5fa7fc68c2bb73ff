"""What every hosted page's answer carries, and whose request it is. Called by the views alone."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse

_STRIPE = "https://js.stripe.com https://*.js.stripe.com"


def seal(response: HttpResponse, ancestors: str) -> HttpResponse:
    """The headers of every page of a session."""
    script = urlsplit(settings.STRIPE_JS_URL)
    network = f"{script.scheme}://{script.netloc}"
    if script.hostname == "js.stripe.com":
        scripts, connects = _STRIPE, "https://api.stripe.com"
        frames = f"{_STRIPE} https://hooks.stripe.com"
    else:
        scripts = connects = frames = network
    response["Content-Security-Policy"] = "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' {scripts}",
            f"connect-src 'self' {connects}",
            f"frame-src {frames}",
            "img-src 'self' data:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            f"frame-ancestors {ancestors}",
        )
    )
    if ancestors == "'none'":
        response["X-Frame-Options"] = "DENY"
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response


def address_of(request: HttpRequest) -> str:
    """The network address that asks, for the limits. Behind proxies: as the outermost trusted one
    (`LAVA_PROXIES`, how many there are) saw it."""
    proxies = int(getattr(settings, "LAVA_PROXIES", 0))
    seen = [request.META.get("REMOTE_ADDR", "")]
    if proxies:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
        seen = [part.strip() for part in forwarded[-proxies:]][:1] + seen
    for text in seen:
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            continue
    # A socket without addresses: all of it counts as one.
    return str(ipaddress.IPv4Address(0))
