"""The product on one screen: console, API, hosted pages, the card network's webhook, health."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from django.views.generic import RedirectView

import billing.api.endpoints
import billing.api.test_helpers
import checkout.api
import checkout.urls
import meters.api
from lava import health, webhooks
from lava.api import errors
from lava.api.openapi import views as openapi
from lava.console import keys
from lava.operations import metrics


def nothing_here(request: HttpRequest) -> HttpResponse:
    """Any other path under /v1: JSON, never a page."""
    return errors.not_found(request, Exception())


# Tried in turn: what is asked most stands first.
v1 = [
    *meters.api.urlpatterns,
    *billing.api.endpoints.urlpatterns,
    *billing.api.test_helpers.urlpatterns,
    *checkout.api.urlpatterns,
    re_path(r"^openapi\.json/?$", openapi.schema, name="openapi"),
    re_path(r"", nothing_here),
]

urlpatterns = [
    path("v1/", include((v1, "v1"))),
    path("v1", nothing_here),
    path("console/", admin.site.urls),
    path("auth/connect", keys.ask, name="auth-connect"),
    path("docs", openapi.docs, name="docs"),
    path("webhooks/stripe", webhooks.receive, name="stripe-webhook"),
    path("webhooks/stripe/<str:merchant>", webhooks.receive, name="stripe-webhook-of-merchant"),
    path("healthz", health.alive, name="alive"),
    path("readyz", health.ready, name="ready"),
    path("metrics", metrics.view, name="metrics"),
    path("", include(checkout.urls.urlpatterns)),
    path("", RedirectView.as_view(url="/console/", permanent=False), name="home"),
]

handler400 = "lava.api.errors.bad_request"
handler404 = "lava.api.errors.not_found"
handler500 = "lava.api.errors.server_error"
