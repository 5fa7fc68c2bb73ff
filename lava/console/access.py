"""Who may enter a page of the console."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import add_never_cache_headers

from billing import errors, tenancy
from billing.models import Membership, Merchant, Organization, User

View = Callable[..., HttpResponse]


class ConsoleRequest(HttpRequest):
    """A request as a guarded page gets it: the middleware has set whose books are open."""

    user: User
    membership: Membership
    memberships: list[Membership]
    organization: Organization
    merchant: Merchant


def requires(permission: str) -> Callable[[View], View]:
    """Let members in who may do `permission`; others sign in first, or are told why not."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            membership = getattr(request, "membership", None)
            if membership is None:
                where = urlencode({"next": request.get_full_path()})
                return redirect(f"/console/login/?{where}")
            if not tenancy.may(membership, permission):
                return render(request, "console/forbidden.html", status=403)
            try:
                response = view(request, *args, **kwargs)
            except errors.NotFound as error:
                raise Http404(str(error)) from error
            add_never_cache_headers(response)
            return response

        guarded.permission = permission  # type: ignore[attr-defined]
        return guarded

    return decorate
