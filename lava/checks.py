"""System checks with ids: what an operator must mend before real money moves."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register


@register(Tags.security, deploy=True)
def production_is_complete(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What `check --deploy` wants of a production installation."""
    found: list[CheckMessage] = []
    if urlsplit(settings.LAVA_BASE_URL).scheme != "https":
        found.append(
            Error(
                "LAVA_BASE_URL is not an https address.",
                hint="Set it to the public address, e.g. https://billing.example.com.",
                id="lava.E001",
            )
        )
    if not settings.STRIPE_KEYS["live"][0]:
        found.append(
            Warning(
                "Live cards are not set up.",
                hint="Set STRIPE_SECRET_KEY and STRIPE_PUBLISHABLE_KEY.",
                id="lava.W001",
            )
        )
    elif not settings.STRIPE_WEBHOOK_SECRETS:
        found.append(
            Warning(
                "The card network's events cannot be verified.",
                hint="Set STRIPE_WEBHOOK_SECRET to the endpoint's signing secret.",
                id="lava.W002",
            )
        )
    return found
