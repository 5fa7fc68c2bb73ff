"""Whose books are open: the organization and the mode a person has chosen.

Sets `request.membership`, `request.organization` and `request.merchant` (None for strangers), and
the membership on the user, where `billing.tenancy` reads it.
"""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse

from billing import tenancy
from billing.models import User

ORGANIZATION, MODE = "organization", "mode"


class Environment:
    """Named by settings in CONSOLE_MIDDLEWARE, after authentication."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if _has_nul(request):
            # PostgreSQL keeps no such text: refused at the door, not in the middle of a page.
            raise BadRequest("NUL")
        membership = merchant = None
        mine: list[tenancy.Place] = []
        if isinstance(request.user, User):
            mine = tenancy.places(request.user)
            membership, merchant = tenancy.open_place(
                mine,
                organization=request.session.get(ORGANIZATION),
                mode=request.session.get(MODE),
            )
            request.user.membership = membership  # type: ignore[attr-defined]
        request.memberships = [place.membership for place in mine]  # type: ignore[attr-defined]
        request.membership = membership  # type: ignore[attr-defined]
        request.merchant = merchant  # type: ignore[attr-defined]
        request.organization = merchant.organization if merchant else None  # type: ignore[attr-defined]
        return self.get_response(request)


def _has_nul(request: HttpRequest) -> bool:
    return "\0" in request.path or any(
        "\0" in text
        for data in (request.GET, request.POST)
        for name, texts in data.lists()
        for text in (name, *texts)
    )
