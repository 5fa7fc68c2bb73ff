"""The plan builder: the list of plans, one plan's form, and the live preview beside it.

Parses what was typed, calls the verbs of `billing.plans` and `meters.prices`, and shows the offer
with the very words of the checkout (`checkout.summary`).
"""

from django.urls import URLPattern, path

from lava.console.plans.builder import Builder, facts, filled, read
from lava.console.plans.finding import find, meters_of
from lava.console.plans.pages import archive, listing, new, one, page
from lava.console.plans.preview import example, preview

__all__ = ["Builder", "example", "facts", "filled", "find", "meters_of", "page", "read", "urls"]

urls: list[URLPattern] = [
    path("plans/", listing, name="plans"),
    path("plans/new", new, name="plan-new"),
    path("plans/preview", preview, name="plan-preview"),
    path("plans/<str:key>", one, name="plan"),
    path("plans/<str:key>/archive", archive, name="plan-archive"),
]
