"""What a page says when something does not go through: what happened, what did not, what to do.

Turns `billing.errors`, outcomes and standings into alerts and pages; called by `checkout.views`.
"""

from __future__ import annotations

import structlog
from django.utils.translation import gettext, gettext_noop

from billing import errors
from billing.models import Dispute
from checkout import languages, pages, sessions
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

_DECLINED = gettext_noop("Your bank declined this card")
_USE_ANOTHER = gettext_noop("Use another card, or ask your bank to allow {merchant} and try again.")
# The card network's decline codes that have a mend of their own: title, what to do.
_DECLINES = {
    "insufficient_funds": (
        gettext_noop("This card has too little money on it"),
        gettext_noop("Use another card, or try again once there is enough on this one."),
    ),
    "expired_card": (gettext_noop("This card has expired"), gettext_noop("Use another card.")),
    "incorrect_cvc": (
        gettext_noop("The security code does not match the card"),
        gettext_noop("Check the three or four digits and try again."),
    ),
    "incorrect_number": (
        gettext_noop("The card number is not right"),
        gettext_noop("Check the digits and try again."),
    ),
    "processing_error": (
        gettext_noop("The payment did not go through"),
        gettext_noop("Try again in a minute."),
    ),
    "authentication_required": (
        gettext_noop("Your bank could not confirm that it was you"),
        gettext_noop("Try again and approve the payment, or use another card."),
    ),
}
_DECLINES[Dispute.FAILURE_CODE] = (
    gettext_noop("A payment of this card is disputed"),
    gettext_noop("Use another card, or ask your bank to take the dispute back."),
)
_DECLINES["payment_intent_authentication_failure"] = _DECLINES["authentication_required"]
_DECLINES["setup_intent_authentication_failure"] = _DECLINES["authentication_required"]


def status_of(error: errors.LavaError) -> int:
    """The HTTP status of a refusal."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 400)


def alert_of(session: CheckoutSession, error: errors.LavaError) -> Alert:
    """The box on the page for an error. What the card network said of our call is for the log."""
    if isinstance(error, errors.Throttled):
        return Alert(gettext("Wait a moment"), error.message)
    if isinstance(error, errors.Unavailable | errors.CardUnknown):
        return of_silence()
    if isinstance(error, errors.Conflict):
        return Alert(
            gettext("This page had moved on"),
            gettext("Nothing was charged. You are now where you left off."),
            kind="notice",
        )
    if isinstance(error, errors.Refused):
        log.error("checkout_refused", session=str(session.pk), code=error.code, why=error.message)
        return Alert(
            gettext("The payment could not be started"),
            gettext("Nothing was charged. Try again; if it happens again, tell {merchant}.").format(
                merchant=session.merchant.name
            ),
        )
    return Alert(gettext("That was not understood"), f"{error.message} {nothing_charged()}")


def of_silence() -> Alert:
    """The box while the card network is away."""
    return Alert(
        gettext("The card network does not answer"),
        gettext("Nothing was charged. Try again in a minute; you are never charged twice."),
    )


def nothing_charged() -> str:
    """What did not happen."""
    return gettext("Nothing was charged.")


def of_decline(code: str, merchant: str, *, not_had: str = "") -> Alert:
    """The box for a decline: what happened, what did not (`not_had`; empty: no charge), and the
    mend."""
    title, mend = _DECLINES.get(code, (_DECLINED, _USE_ANOTHER))
    mended = gettext(mend).format(merchant=merchant)
    return Alert(gettext(title), f"{not_had or nothing_charged()} {mended}")


def of_outcome(session: CheckoutSession, outcome: sessions.Outcome) -> Alert | None:
    """The box for a press on the pay button that did not end in a payment; None: no box."""
    if outcome == sessions.Outcome.UNPAID:
        return Alert(
            gettext("The payment was not finished"),
            gettext("Nothing was charged. Check the card details and try again."),
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
        return gettext("Nothing was charged and your plan has not started.")
    if session.mode == CheckoutSession.Mode.ONBOARDING:
        return gettext("Nothing was charged and the card was not saved.")
    return gettext("Nothing was charged and no credits were added.")


def expired(session: CheckoutSession, embedded: bool) -> Page:
    """The session's day is over."""
    return pages.notice(
        session,
        embedded=embedded,
        kind="warn",
        heading=gettext("This checkout has expired"),
        lead=gettext(
            "A checkout is open for 24 hours. Nothing was charged. Go back to {merchant} to start "
            "a new one."
        ).format(merchant=session.merchant.name),
        status=410,
    )


def already_done(session: CheckoutSession, embedded: bool) -> Page:
    """A step posted again after the session was completed."""
    page = pages.notice(
        session,
        embedded=embedded,
        kind="ok",
        heading=gettext("This checkout is done"),
        lead=gettext("It was completed before, and nothing was charged again."),
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
            heading=gettext("Your bank is checking the payment"),
            lead=gettext("This page looks again every five seconds. You need not pay again."),
            again=5,
        )
    return pages.notice(
        session,
        embedded=embedded,
        kind="warn",
        heading=gettext("A newer checkout took over"),
        lead=gettext(
            "You opened another checkout for the same plan, so this one was closed. Nothing was "
            "charged here."
        ),
        status=409,
    )


def page_of_standing(session: CheckoutSession, standing: sessions.Standing, embedded: bool) -> Page:
    """Why this customer cannot buy what is offered. Nothing is charged on any of these."""
    current = session.connection.subscription if session.connection else None
    offered = session.plan.name if session.plan else session.bundle.name if session.bundle else ""
    said = {
        "merchant": session.merchant.name,
        "plan": current.plan.name if current else "",
        "offered": offered or gettext("a pack"),
    }
    kind, heading, lead = {
        sessions.Standing.SAME_PLAN: (
            "ok",
            gettext("You already have {plan}"),
            gettext("It is active for this phone number. Nothing was charged."),
        ),
        sessions.Standing.OTHER_PLAN: (
            "warn",
            gettext("You already have {plan}"),
            gettext(
                "{offered} was not started and nothing was charged. To move to {offered}, tell "
                "{merchant}."
            ),
        ),
        sessions.Standing.NO_PLAN: (
            "warn",
            gettext("Packs come with a plan"),
            gettext(
                "This phone number has no plan at {merchant} that {offered} belongs to. Nothing "
                "was charged."
            ),
        ),
        sessions.Standing.NO_PACKS: (
            "warn",
            gettext("{plan} has no packs"),
            gettext(
                "There are no credits to add to this plan. Nothing was charged. Tell {merchant} "
                "if you need more."
            ),
        ),
        sessions.Standing.PAUSED: (
            "warn",
            gettext("Billing is paused for this number"),
            gettext("{merchant} paused it. Nothing was charged. Write to them to go on."),
        ),
    }.get(
        standing,
        (
            "warn",
            gettext("The price has changed"),
            gettext(
                "It changed since this page was made, so nothing was charged. Go back to "
                "{merchant} to see the new one."
            ),
        ),
    )
    return pages.notice(
        session,
        embedded=embedded,
        kind=kind,
        heading=heading.format(**said),
        lead=lead.format(**said),
        # Whoever has a plan sees there what they have.
        portal_url=languages.address("portal", session.merchant.public_id) if current else "",
    )
