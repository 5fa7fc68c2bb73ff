"""`manage.py demo`: two merchants and sixty days of what their customers did, in the sandboxes.

Told once, by the product's own verbs, on the local card network; every later run says the same
logins again. Called by `manage.py up` at each start, which reads the last line.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from lava.demo.story import cast, crowd, facts, forwarding, stage
from lava.demo.story.telling import Telling


class Command(BaseCommand):
    help = (
        "Seed two merchants with sixty days of plausible usage, renewals and charges, once; then "
        "say their logins, as JSON in the last line. Needs the local card network (`manage.py up` "
        "runs it); with Stripe's keys nothing is seeded. --scale adds a crowd to the first "
        "merchant's sandbox, for measuring the console: with 1000000 ten thousand customers and a "
        "million requests, written in bulk, in some minutes; each run adds as many again."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--scale", type=int, default=1, metavar="N", help="so many requests more (1: none)"
        )

        parser.add_argument(
            "--ai-provider", default="", metavar="URL",
            help="let the merchants' gateways reach this local AI provider",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        if not _can_be_told():
            self.stdout.write("{}")
            return
        found = logins(
            scale=options["scale"], say=self.stderr.write, ai_provider=options["ai_provider"]
        )
        self.stdout.write(json.dumps(found))


def _can_be_told() -> bool:
    return bool(settings.STRIPE_KEYS["test"][0] == "sk_test_local")


def is_told() -> bool:
    """Whether nothing is left to tell: `up` then needs neither the card network nor a process."""
    return not _can_be_told() or stage.all_told()


def logins(*, say: Callable[[str], Any], scale: int = 1, ai_provider: str = "") -> dict[str, Any]:
    """The story's logins as `up.json` shows them, told first where it is not; empty where Stripe's
    own keys are set."""
    if not _can_be_told():
        return {}
    kept_in = Path(settings.STATE_DIR) / "demo.json"
    return perform(kept_in, scale=scale, say=say, ai_provider=ai_provider)


def perform(
    kept_in: Path, *, scale: int, say: Callable[[str], Any], ai_provider: str = ""
) -> dict[str, Any]:
    """Tell what is not told yet; give the logins."""
    kept = facts.Kept(kept_in)
    who, password = kept.password()
    merchants = []
    for business in cast.BUSINESSES:
        built = stage.build(business, who)
        key = kept.key(built.merchant, who)
        if not built.is_told:
            Telling(built, key=key).tell()
        if scale > 1 and business is cast.BUSINESSES[0]:
            crowd.fill(built, requests=scale, now=built.merchant.now(), say=say)
        told = facts.of(built, key=key)
        if ai_provider:
            told["forward_token"] = forwarding.open_gateway(
                built,
                facts.shown(built),
                provider_url=ai_provider,
                kept=kept.token(built.merchant),
            )
            kept.keep_token(built.merchant, told["forward_token"])
        merchants.append(told)
    return {"console": {"email": who.email, "password": password}, "merchants": merchants}
