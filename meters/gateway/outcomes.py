"""The errors for what the gateway's functions of the database refuse. Used by `store`."""

from __future__ import annotations

from decimal import Decimal

from billing import errors


def refusal(outcome: str, detail: str, meter: str) -> errors.LavaError:
    """The error for an outcome of `meters_caller` or `meters_hold`; nothing was written."""
    if outcome == "insufficient_credits":
        return errors.PaymentRequired(
            f"The credits left ({Decimal(detail):f}) do not cover this call.", available=detail
        )
    if outcome == "meter_not_found":
        words = f"There is no meter {meter!r}." if meter else "This token's meter was archived."
        return errors.NotFound(words, code=outcome, param="meter_slug")
    if outcome == "meter_not_on_plan":
        return errors.Forbidden(
            f"The meter {detail!r} is not active for this connection: attach it to the "
            "connection's plan, or subscribe the customer to a plan that has it.",
            code=outcome,
        )
    if outcome == "rate_limited":
        return errors.Throttled(
            "This token's limit of calls a minute is reached.",
            code=outcome,
            retry_after_s=float(detail),
        )
    kind, words = WORDS[outcome]
    return kind(words, code="invalid_key" if outcome == "unauthenticated" else outcome)


WORDS: dict[str, tuple[type[errors.LavaError], str]] = {
    "unauthenticated": (errors.Unauthenticated, "The key is not valid."),
    "token_expired": (errors.Unauthenticated, "This token has expired."),
    "token_paused": (errors.Forbidden, "This token is paused."),
    "connection_not_found": (errors.NotFound, "No such connection."),
    "connection_disabled": (errors.Forbidden, "This connection is disabled."),
    "past_due": (
        errors.PaymentRequired,
        "The subscription is past due and its grace period is over.",
    ),
    "cost_unknown": (
        errors.Refused,
        "This meter takes a share of the provider's cost, and the price of this model is not "
        "known: add it under Gateway, Prices.",
    ),
    "amount_too_large": (errors.Refused, "The fee would pass 12 digits; check the limits."),
    "spend_limit_reached": (errors.PaymentRequired, "This token's spend limit is reached."),
    "request_limit_reached": (errors.PaymentRequired, "This token's limit of calls is reached."),
}
