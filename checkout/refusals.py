"""What a page says when something does not go through: what happened, what did not, what to do.

Turns `billing.errors`, outcomes and standings into alerts and pages; called by `checkout.views`.
"""

from __future__ import annotations

import structlog

from billing import errors
from checkout import pages, sessions
from checkout.models import CheckoutSession
from checkout.pages import Alert, Page

log = structlog.get_logger(__name__)

_STATUS: tuple[tuple[type[errors.LavaError], int], ...] = (
    (errors.Gone, 410),
    (errors.Conflict, 409),
    (errors.NotFound, 404),
    (errors.Throttled, 429),
    (errors.Unavailable, 503),
    (errors.CardUnknown, 503),
    (errors.CardError, 402),
    (errors.Refused, 422),
)

_USE_ANOTHER = "Use another card, or ask your bank to allow {merchant} and try again."
# The card network's decline codes that have a mend of their own: title, what to do.
_DECLINES = {
    "insufficient_funds": (
        "This card has too little money on it",
        "Use another card, or try again once there is enough on this one.",
    ),
    "expired_card": ("This card has expired", "Use another card."),
    "incorrect_cvc": (
        "The security code does not match the card",
        "Check the three or four digits and try again.",
    ),
    "incorrect_number": ("The card number is not right", "Check the digits and try again."),
    "processing_error": ("The payment did not go through", "Try again in a minute."),
    "authentication_required": (
        "Your bank could not confirm that it was you",
        "Try again and approve the payment, or use another card.",
    ),
}
_DECLINES["payment_intent_authentication_failure"] = _DECLINES["authentication_required"]
_DECLINES["setup_intent_authentication_failure"] = _DECLINES["authentication_required"]


def status_of(error: errors.LavaError) -> int:
    """The HTTP status of a refusal."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 400)


def alert_of(session: CheckoutSession, error: errors.LavaError) -> Alert:
    """The box on the page for an error. What the card network said of our call is for the log."""
    if isinstance(error, errors.Throttled):
        return Alert("Wait a moment", error.message)
    if isinstance(error, errors.Unavailable | errors.CardUnknown):
        return of_silence()
    if isinstance(error, errors.Conflict):
        return Alert(
            "This page had moved on",
            "Nothing was charged. You are now where you left off.",
            kind="notice",
        )
    if isinstance(error, errors.Refused):
        log.error("checkout_refused", session=str(session.pk), code=error.code, why=error.message)
        return Alert(
            "The payment could not be started",
            f"Nothing was charged. Try again; if it happens again, tell {session.merchant.name}.",
        )
    return Alert("That was not understood", f"{error.message} Nothing was charged.")


def of_silence() -> Alert:
    """The box while the card network is away."""
    return Alert(
        "The card network does not answer",
        "Nothing was charged. Try again in a minute; you are never charged twice.",
    )


def of_decline(code: str, merchant: str, *, not_had: str = "") -> Alert:
    """The box for a decline: what happened, what did not, and the mend."""
    title, mend = _DECLINES.get(code, ("Your bank declined this card", _USE_ANOTHER))
    return Alert(title, f"Nothing was charged{not_had}. {mend.format(merchant=merchant)}")


def of_outcome(session: CheckoutSession, outcome: sessions.Outcome) -> Alert | None:
    """The box for a press on the pay button that did not end in a payment; None: no box."""
    if outcome == sessions.Outcome.UNPAID:
        return Alert(
            "The payment was not finished",
            "Nothing was charged. Check the card details and try again.",
        )
    if outcome != sessions.Outcome.DECLINED:
        return None
    payment = session.payment
    if payment is not None:
        payment.refresh_from_db(fields=["failure_code"])
    code = payment.failure_code if payment else ""
    return of_decline(code, session.merchant.name, not_had=_not_had(session))


def _not_had(session: CheckoutSession) -> str:
    if session.mode == CheckoutSession.Mode.SUBSCRIPTION:
        return " and your plan has not started"
    if session.mode == CheckoutSession.Mode.ONBOARDING:
        return " and the card was not saved"
    return " and no credits were added"


def expired(session: CheckoutSession, embedded: bool) -> Page:
    """The session's day is over."""
    return pages.notice(
        session,
        embedded=embedded,
        kind="warn",
        heading="This checkout has expired",
        lead="A checkout is open for 24 hours. Nothing was charged. "
        f"Go back to {session.merchant.name} to start a new one.",
        status=410,
    )


def already_done(session: CheckoutSession, embedded: bool) -> Page:
    """A step posted again after the session was completed."""
    page = pages.notice(
        session,
        embedded=embedded,
        kind="ok",
        heading="This checkout is done",
        lead="It was completed before, and nothing was charged again.",
        status=410,
    )
    if session.connection is not None:
        page.context |= {"completed": True, "connection_id": session.connection.public_id}
    return page


def page_of_outcome(session: CheckoutSession, outcome: sessions.Outcome, embedded: bool) -> Page:
    """The bank is still at it, or a newer checkout took over."""
    if outcome == sessions.Outcome.WAITING:
        return pages.notice(
            session,
            embedded=embedded,
            kind="wait",
            heading="Your bank is checking the payment",
            lead="This page looks again every five seconds. You need not pay again.",
            again=5,
        )
    return pages.notice(
        session,
        embedded=embedded,
        kind="warn",
        heading="A newer checkout took over",
        lead="You opened another checkout for the same plan, so this one was closed. "
        "Nothing was charged here.",
        status=409,
    )


def page_of_standing(session: CheckoutSession, standing: sessions.Standing, embedded: bool) -> Page:
    """Why this customer cannot buy what is offered. Nothing is charged on any of these."""
    merchant = session.merchant.name
    current = session.connection.subscription if session.connection else None
    plan = current.plan.name if current else ""
    offered = session.plan.name if session.plan else session.bundle.name if session.bundle else ""
    kind, heading, lead = {
        sessions.Standing.SAME_PLAN: (
            "ok",
            f"You already have {plan}",
            "It is active for this phone number. Nothing was charged.",
        ),
        sessions.Standing.OTHER_PLAN: (
            "warn",
            f"You already have {plan}",
            f"{offered} was not started and nothing was charged. "
            f"To move to {offered}, tell {merchant}.",
        ),
        sessions.Standing.NO_PLAN: (
            "warn",
            "Packs come with a plan",
            f"This phone number has no plan at {merchant} that {offered or 'a pack'} belongs to. "
            "Nothing was charged.",
        ),
        sessions.Standing.NO_PACKS: (
            "warn",
            f"{plan} has no packs",
            f"There are no credits to add to this plan. Nothing was charged. Tell {merchant} if "
            "you need more.",
        ),
        sessions.Standing.PAUSED: (
            "warn",
            "Billing is paused for this number",
            f"{merchant} paused it. Nothing was charged. Write to them to go on.",
        ),
    }.get(
        standing,
        (
            "warn",
            "The price has changed",
            f"It changed since this page was made, so nothing was charged. Go back to {merchant} "
            "to see the new one.",
        ),
    )
    return pages.notice(session, embedded=embedded, kind=kind, heading=heading, lead=lead)
