"""Stripe's error answers, as exceptions. Raised by every module of the network, turned into HTTP by
`pipeline`.

Shapes and codes follow docs.stripe.com/api/errors and docs.stripe.com/error-codes.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """One error answer.

    `executed` says that work had begun when it was raised: what was written stays (a declined
    charge), and the answer is remembered under the idempotency key. Without it the call leaves no
    trace.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        executed: bool = False,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.executed = executed
        error: Json = {"message": message, "type": type}
        if code is not None:
            error["code"] = code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param is not None:
            error["param"] = param
        error.update({name: value for name, value in extra.items() if value is not None})
        self.error = error

    @property
    def body(self) -> Json:
        """The JSON answer."""
        return {"error": self.error}


def missing_parameter(param: str) -> ApiError:
    """A required parameter is not there."""
    return ApiError(400, f"Missing required param: {param}.", code="parameter_missing", param=param)


def empty_parameter(param: str) -> ApiError:
    """A required parameter is the empty string, which for Stripe means "unset it"."""
    return ApiError(
        400,
        f"You passed an empty string for '{param}'. We assume empty values are an attempt to "
        f"unset a parameter; however '{param}' cannot be unset. You should remove '{param}' from "
        "your request or supply a non-empty value.",
        code="parameter_invalid_empty",
        param=param,
    )


def unknown_parameter(param: str) -> ApiError:
    """A parameter that Stripe does not know, or that this network does not model."""
    return ApiError(
        400,
        f"Received unknown parameter: {param}",
        code="parameter_unknown",
        param=param,
    )


def no_such(
    kind: str, id: str, *, param: str, status: int, other_mode: str | None = None
) -> ApiError:
    """An object that is not there: 404 when the path names it, 400 when a parameter does.

    `other_mode` is the mode ("test" or "live") in which an object of this id does exist.
    """
    message = f"No such {kind}: '{id}'"
    if other_mode is not None:
        here = "live" if other_mode == "test" else "test"
        message += (
            f"; a similar object exists in {other_mode} mode, "
            f"but a {here} mode key was used to make this request."
        )
    return ApiError(status, message, code="resource_missing", param=param)


def unexpected_state(kind: str, message: str, **intent: Any) -> ApiError:
    """An intent asked to do what its status does not allow; the answer carries the intent
    itself."""
    return ApiError(400, message, code=f"{kind}_unexpected_state", executed=True, **intent)


def key_in_use(key: str) -> ApiError:
    """Another call with this idempotency key is still running."""
    return ApiError(
        409,
        "There is currently another in-progress request using this Idempotent Key (that probably "
        f"means you submitted twice, and the other request is still going through): {key}. Please "
        "try your request again in a bit.",
        type="idempotency_error",
        code="idempotency_key_in_use",
    )


def forced(status: int) -> ApiError:
    """The answer of a fault that was ordered through the control endpoint."""
    if status == 429:
        return ApiError(status, "Request rate limit exceeded.", code="rate_limit")
    return ApiError(status, "An error occurred with our connection to Stripe.", type="api_error")
