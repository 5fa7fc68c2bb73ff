"""Middleware of our own: request ids, the content security policy, and a wall around sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from billing import errors, ids
from lava import clocks
from lava.api import errors as answers

log = structlog.get_logger(__name__)

Answer = Callable[[HttpRequest], HttpResponse]


class RequestIds:
    """Every answer carries `x-lava-request-id`; errors repeat it in their body."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.request_id = ids.public("rid", ids.new(sandbox=False))  # type: ignore[attr-defined]
        # Whatever is logged on the way carries it.
        structlog.contextvars.bind_contextvars(request_id=request.request_id)  # type: ignore[attr-defined]
        try:
            response = self.get_response(request)
        finally:
            structlog.contextvars.clear_contextvars()
        response["x-lava-request-id"] = request.request_id  # type: ignore[attr-defined]
        return response


class RightTime:
    """While this machine's clock is wrong it answers nothing but that it is alive: 503, elsewhere
    or later."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if clocks.is_right() or request.path == "/healthz":
            return self.get_response(request)
        log.error("clock_differs", path=request.path)
        return answers.answer(request, errors.Unavailable(clocks.WRONG))


class ContentSecurityPolicy:
    """A strict policy on every page that set none itself: its own origin, nothing inline.

    The API answers no pages: nothing may be loaded by what it sends.
    """

    POLICY = (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path.startswith("/v1/"):
            response = self.get_response(request)
            response["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
            return response
        response = self.get_response(request)
        if "Content-Security-Policy" not in response:
            response["Content-Security-Policy"] = self.POLICY
            response.setdefault("X-Frame-Options", "DENY")
        return response


class ConsoleOnly:
    """Runs `settings.CONSOLE_MIDDLEWARE` for the console's paths and for no others."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response
        chain: Any = get_response
        self.views: list[Callable[..., Any]] = []
        for name in reversed(settings.CONSOLE_MIDDLEWARE):
            middleware = import_string(name)(chain)
            if hasattr(middleware, "process_view"):
                self.views.insert(0, middleware.process_view)
            chain = convert_exception_to_response(middleware)
        self.console: Answer = chain

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path.startswith("/console"):
            return self.console(request)
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        """Hand the view to the console's middleware, which checks forms here."""
        if request.path.startswith("/console"):
            for process in self.views:
                answer = process(request, view, args, kwargs)
                if answer is not None:
                    return answer  # type: ignore[no-any-return]
        return None
