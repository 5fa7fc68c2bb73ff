"""`/v1/openapi.json`, and `/docs` to read it: Swagger UI from our own address, nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.generators import SchemaGenerator

# Swagger UI sets styles on its elements; it needs no script in the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@lru_cache(maxsize=1)
def document() -> bytes:
    """The description, made once in a process: the code does not change under it."""
    generator: Any = SchemaGenerator
    found = generator().get_schema(request=None, public=True)
    found["servers"] = [{"url": settings.LAVA_BASE_URL}]
    return orjson.dumps(found)


def schema(request: HttpRequest) -> HttpResponse:
    """`GET /v1/openapi.json`: open to all, it holds no secret."""
    return HttpResponse(document(), content_type="application/json")


def docs(request: HttpRequest) -> HttpResponse:
    """`GET /docs`"""
    response = render(request, "docs/docs.html")
    response["Content-Security-Policy"] = _POLICY
    response["X-Frame-Options"] = "DENY"
    return response
