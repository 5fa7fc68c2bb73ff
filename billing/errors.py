"""The one error tree of the product, without HTTP. Any module may raise these.

`lava/api/errors.py` turns them into answers; pages turn them into sentences. Each has a stable
`code` for programs, a `message` for people, and `param`, the field that is wrong, where one is.
"""

from __future__ import annotations

from typing import Any, ClassVar


class LavaError(Exception):
    """Something was refused, and nothing was changed.

    `message` says what happened and the mend; `details` is JSON-ready and optional.
    """

    default_code: ClassVar[str] = "error"

    def __init__(
        self, message: str, *, code: str | None = None, param: str | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.details = details


class Invalid(LavaError):
    """Malformed: the same call can never work."""

    default_code = "invalid_request"


class Unauthenticated(LavaError):
    """No key, or one that is not valid."""

    default_code = "unauthenticated"


class PaymentRequired(LavaError):
    """Credits do not cover it."""

    default_code = "insufficient_credits"


class Forbidden(LavaError):
    """Known, but not theirs to do."""

    default_code = "forbidden"


class NotFound(LavaError):
    """No such thing; another merchant's thing is not found either."""

    default_code = "not_found"


class Conflict(LavaError):
    """It does not fit what is there already."""

    default_code = "conflict"


class Gone(LavaError):
    """It was there and has ended, e.g. an expired checkout."""

    default_code = "gone"


class TooLarge(LavaError):
    """More bytes or items than are taken at once."""

    default_code = "too_large"


class UnsupportedMedia(LavaError):
    """A body of another kind than JSON."""

    default_code = "unsupported_media_type"


class Refused(LavaError):
    """Understood, and refused by a rule."""

    default_code = "refused"


class Throttled(LavaError):
    """Too often; `retry_after_s` says when to come back."""

    default_code = "too_many_requests"

    def __init__(self, message: str, *, retry_after_s: float = 30, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.retry_after_s = retry_after_s


class Unavailable(LavaError):
    """Something we need is away; nothing was written. `retry_after_s` says when to come back."""

    default_code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float = 5, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.retry_after_s = retry_after_s


class CardError(LavaError):
    """What the card network said of a card."""

    default_code = "card_error"


class CardDeclined(CardError):
    """The card was refused; nothing was charged. `code` is the network's reason."""

    default_code = "card_declined"


class CardNeedsAction(CardError):
    """The card wants its owner (3-D Secure); nothing was charged yet."""

    default_code = "authentication_required"


class CardUnknown(CardError):
    """The network was asked and gave no answer: ask about it, never charge anew."""

    default_code = "card_network_silent"


def invalid_key() -> Unauthenticated:
    """What is said of a text that is no key, and of a key that is unknown or revoked."""
    return Unauthenticated("The key is not valid.", code="invalid_key")
