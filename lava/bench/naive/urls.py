"""The two addresses the bench asks."""

from __future__ import annotations

from django.urls import path

from lava import health
from lava.bench.naive.views import RequestsView

urlpatterns = [
    path("v1/requests", RequestsView.as_view()),
    path("readyz", health.ready),
]
