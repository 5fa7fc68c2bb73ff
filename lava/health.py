"""Health for load balancers and the supervisor: alive says the process answers, ready that the
database does too."""

from __future__ import annotations

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse


def alive(request: HttpRequest) -> HttpResponse:
    """`GET /healthz`"""
    return JsonResponse({"status": "ok"})


def ready(request: HttpRequest) -> HttpResponse:
    """`GET /readyz`: 503 with `Retry-After` while the database is away."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        response = JsonResponse({"status": "database away"}, status=503)
        response["Retry-After"] = "1"
        return response
    return JsonResponse({"status": "ok"})
