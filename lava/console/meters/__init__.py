"""The meter builder: the list of meters, one meter's form, its calculator and its versions.

Parses what was typed and calls `meters.prices`; every sum of the calculator comes from
`meters.pricing`, the code that also estimates for the API.
"""

from django.urls import URLPattern, path

from lava.console.meters.builder import Builder, Row, read
from lava.console.meters.calculator import calculate
from lava.console.meters.pages import attach, find, listing, new, one, page

__all__ = ["Builder", "Row", "find", "page", "read", "urls"]

urls: list[URLPattern] = [
    path("meters/", listing, name="meters"),
    path("meters/new", new, name="meter-new"),
    path("meters/calculate", calculate, name="meter-calculate"),
    path("meters/<str:key>", one, name="meter"),
    path("meters/<str:key>/attach", attach, name="meter-attach"),
]
