"""How a refusal is worded: the status and the body that the caller's SDK understands. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from billing import errors

STATUS: dict[type[errors.LavaError], int] = {
    errors.Invalid: 400,
    errors.Unauthenticated: 401,
    errors.PaymentRequired: 402,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.Refused: 422,
    errors.Throttled: 429,
    errors.Unavailable: 503,
}

_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
    403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    422: "invalid_request_error", 429: "rate_limit_error", 504: "timeout_error",
}  # fmt: skip
_GOOGLE = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED", 413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_OPENAI = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error",
           429: "rate_limit_error"}  # fmt: skip


class Upstream(errors.LavaError):
    """The provider could not be reached, or did not answer as HTTP. `status` is 502 or 504."""

    default_code = "provider_unreachable"

    def __init__(self, message: str, *, status: int = 502, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.status = status


def status_of(error: errors.LavaError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Upstream):
        return error.status
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 400)


def answer(
    error: errors.LavaError, *, dialect: str, request_id: str
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of a refusal in a dialect; any but Anthropic's and Google's is
    OpenAI's, which is also the API's own."""
    status = status_of(error)
    if dialect == "anthropic":
        body: dict[str, Any] = {
            "type": "error",
            "error": {"type": _ANTHROPIC.get(status, "api_error"), "message": error.message,
                      "code": error.code},
            "request_id": request_id,
        }  # fmt: skip
    elif dialect == "google":
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.code.upper(),
                "domain": "lava"}  # fmt: skip
        body = {
            "error": {
                "code": status,
                "message": error.message,
                "status": _GOOGLE.get(status, "INTERNAL"),
                "details": [info],
            }
        }
    else:
        body = {
            "error": {
                "message": error.message,
                "type": _OPENAI.get(
                    status, "server_error" if status >= 500 else "invalid_request_error"
                ),
                "param": error.param,
                "code": error.code,
                "status": status,
                "request_id": request_id,
            }
        }
    headers = [(b"content-type", b"application/json")]
    if isinstance(error, (errors.Throttled, errors.Unavailable)):
        headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    if status == 402:
        # Said in words to SDKs that would try again: credits do not come by waiting.
        headers.append((b"x-should-retry", b"false"))
    return status, headers, orjson.dumps(body)


def dialect_of_headers(headers: dict[bytes, bytes]) -> str:
    """The dialect of a caller whose target is not known yet, by what its SDK sends."""
    if b"anthropic-version" in headers:
        return "anthropic"
    if b"x-goog-api-key" in headers or b"x-goog-api-client" in headers:
        return "google"
    return "openai"
