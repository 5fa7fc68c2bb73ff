"""Whose books are open: the organization and the mode a person has chosen.

Sets `request.membership`, `request.organization` and `request.merchant` (None for strangers), and
the membership on the user, where `billing.tenancy` reads it.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from billing import tenancy

ORGANIZATION, MODE = "organization", "mode"


class Environment:
    """Named by settings in CONSOLE_MIDDLEWARE, after authentication."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        membership = merchant = None
        mine = []
        if request.user.is_authenticated:
            mine = tenancy.memberships(request.user)
            membership, merchant = tenancy.books(
                mine,
                organization=request.session.get(ORGANIZATION),
                mode=request.session.get(MODE),
            )
            request.user.membership = membership  # type: ignore[attr-defined]
        request.memberships = mine  # type: ignore[attr-defined]
        request.membership = membership  # type: ignore[attr-defined]
        request.merchant = merchant  # type: ignore[attr-defined]
        request.organization = merchant.organization if merchant else None  # type: ignore[attr-defined]
        return self.get_response(request)
