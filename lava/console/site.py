"""The console's addresses: Django's admin site with our own pages in place of its lists.

`manage.py` and settings know it as the default admin site; `lava/urls.py` mounts it at /console/.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path
from unfold.sites import UnfoldAdminSite

from lava.console import (
    account,
    acts,
    adjustments,
    approvals,
    books,
    brand,
    calendar,
    clock,
    connections,
    doors,
    endpoints,
    exports,
    gateway,
    imports,
    keys,
    mails,
    margins,
    meters,
    outbox,
    overview,
    payments,
    plans,
    reconcile,
    refunds,
    requests,
    resets,
    safety,
    search,
    switches,
    team,
    trail,
    versions,
    webhooks,
    whatif,
    whatif_plans,
)


class Console(UnfoldAdminSite):  # type: ignore[misc]
    """The merchant's console."""

    def get_urls(self) -> list[Any]:
        return [
            path("", overview.front, name="index"),
            *doors.urls,
            *resets.urls,
            *account.urls,
            *connections.urls,
            *imports.urls,
            *acts.urls,
            *adjustments.urls,
            *switches.urls,
            *requests.urls,
            *payments.urls,
            *refunds.urls,
            *approvals.urls,
            *plans.urls,
            *versions.urls,
            *meters.urls,
            *whatif.urls,
            *whatif_plans.urls,
            *books.urls,
            *reconcile.urls,
            *calendar.urls,
            *margins.urls,
            *keys.urls,
            *gateway.urls,
            *webhooks.urls,
            *endpoints.urls,
            *clock.urls,
            *outbox.urls,
            *mails.urls,
            *brand.urls,
            *team.urls,
            *safety.urls,
            *search.urls,
            *trail.urls,
            *exports.urls,
        ]

    def has_permission(self, request: HttpRequest) -> bool:
        return getattr(request, "membership", None) is not None

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return doors.sign_in(request)
