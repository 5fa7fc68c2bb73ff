"""The error envelope: one shape on every /v1 path whatever goes wrong (api.md, Errors).

`handler` is named by settings for DRF's views; `not_found` and `server_error` are Django's handlers
in `lava/urls.py` and answer JSON under /v1, a page elsewhere.
"""

from __future__ import annotations

from typing import Any

import orjson
import structlog
from django.core.exceptions import RequestDataTooBig
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.template.loader import render_to_string
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from billing import errors
from billing.api import statuses
from lava.console import refusals

log = structlog.get_logger(__name__)


def envelope(
    message: str, *, code: str, status: int, request_id: str, param: str | None = None
) -> dict[str, Any]:
    """The body of an error answer."""
    body: dict[str, Any] = {"message": message, "code": code, "status": status}
    if param:
        body["param"] = param
    body["request_id"] = request_id
    return {"error": body}


def translate(error: BaseException) -> tuple[int, str, str, str | None, float | None]:
    """Status, code, message, param and Retry-After (seconds) of whatever was raised."""
    if isinstance(error, errors.LavaError):
        retry = getattr(error, "retry_after_s", None)
        return statuses.of(error), error.code, error.message, error.param, retry
    if isinstance(error, Http404 | exceptions.NotFound):
        return 404, "not_found", "There is nothing at this address.", None, None
    if isinstance(error, exceptions.MethodNotAllowed):
        return 405, "method_not_allowed", "This address does not take that method.", None, None
    if isinstance(error, exceptions.UnsupportedMediaType):
        return (
            415,
            "unsupported_media_type",
            "Send JSON: Content-Type: application/json.",
            None,
            None,
        )
    if isinstance(error, RequestDataTooBig):
        return 413, "too_large", "The body is too large.", None, None
    if isinstance(error, UnreadablePostError):
        return 400, "body_cut", "The body ended before it was whole.", None, None
    if isinstance(error, IntegrityError):
        return (
            409,
            "conflict",
            "It met another change at the same moment. Nothing was written; try again.",
            None,
            1,
        )
    if isinstance(error, OperationalError | InterfaceError):
        # Where the database went away as it answered, nobody knows whether it had written.
        return (
            503,
            "unavailable",
            "The service is busy. Send it again with the same id: it is done once.",
            None,
            1,
        )
    if isinstance(error, exceptions.APIException):
        return error.status_code, "invalid_request", "The request was not understood.", None, None
    return 500, "internal_error", "Something broke on our side. Nothing was written.", None, None


def handler(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: always our envelope, never a trace."""
    status, code, message, param, retry = translate(error)
    request = context["request"]
    if status >= 500:
        log.error("api_error", code=code, path=request.path, exc_info=error)
    set_rollback()
    headers = {"Retry-After": str(int(retry or 1))} if retry is not None else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="lava"'
    if status == 405:
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    body = envelope(message, code=code, status=status, param=param, request_id=_request_id(request))
    return Response(body, status=status, headers=headers)


def answer(request: HttpRequest, error: BaseException) -> HttpResponse:
    """The envelope as a plain Django answer, for errors outside DRF's views."""
    status, code, message, param, retry = translate(error)
    body = envelope(message, code=code, status=status, param=param, request_id=_request_id(request))
    response = HttpResponse(orjson.dumps(body), status=status, content_type="application/json")
    if retry is not None:
        response["Retry-After"] = str(int(retry or 1))
    return response


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    if request.path.startswith("/v1"):
        return answer(request, Http404())
    if request.path.startswith("/console"):
        return refusals.page(request, 404)
    return HttpResponse(render_to_string("hosted/not_found.html", request=request), status=404)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: hosts, headers or forms that are refused before any view."""
    if request.path.startswith("/v1"):
        return answer(request, errors.Invalid("The request is malformed."))
    if request.path.startswith("/console"):
        return refusals.page(request, 400)
    return HttpResponse("The request is malformed.", status=400, content_type="text/plain")


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500."""
    if request.path.startswith("/v1"):
        return answer(request, RuntimeError())
    if request.path.startswith("/console"):
        return refusals.page(request, 500)
    return HttpResponse(
        "Something broke on our side. Nothing was charged.", status=500, content_type="text/plain"
    )


def _request_id(request: Any) -> str:
    inner = getattr(request, "_request", request)
    return str(getattr(inner, "request_id", ""))
