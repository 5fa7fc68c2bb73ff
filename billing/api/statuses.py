"""Which HTTP status says what an error of `billing.errors` says; for every place that answers."""

from __future__ import annotations

from billing import errors

STATUS: dict[type[errors.LavaError], int] = {
    errors.Invalid: 400,
    errors.Unauthenticated: 401,
    errors.PaymentRequired: 402,
    errors.CardError: 402,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.Refused: 422,
    errors.Throttled: 429,
    errors.Unavailable: 503,
}


def of(error: errors.LavaError) -> int:
    """The status of an error: that of the nearest class in the table."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 400
