"""How a session is paid, and whether its customer can have what it offers. Asks, never writes."""

from __future__ import annotations

from enum import StrEnum

from billing import changes, errors
from billing.models import Connection, Subscription
from checkout.models import CheckoutSession

Mode = CheckoutSession.Mode


class Means(StrEnum):
    """How a session is paid."""

    PAYMENT = "payment"
    # A card is saved, nothing is charged now.
    SETUP = "setup"
    # Nothing can ever be charged.
    NONE = "none"


class Standing(StrEnum):
    """Why a confirmed customer cannot buy what the session offers; CLEAR: they can."""

    CLEAR = "clear"
    SAME_PLAN = "same_plan"
    OTHER_PLAN = "other_plan"
    NO_PLAN = "no_plan"
    NO_PACKS = "no_packs"
    PAUSED = "paused"
    NEW_TERMS = "new_terms"


class Change(StrEnum):
    """What a subscription checkout is to the customer it turned out to be for."""

    # They are on no plan: it starts one.
    NONE = ""
    # They are on another plan: it takes its place at once, for the difference.
    UPGRADE = "upgrade"
    # It takes its place at the end of the cycle.
    LATER = "later"


def change(session: CheckoutSession) -> Change:
    """Whether the session moves its customer from another plan (money.md, Who is who)."""
    if session.plan is None or session.connection is None:
        return Change.NONE
    current = session.connection.subscription
    if current is None or current.plan_id == session.plan_id:
        return Change.NONE
    upgrade = changes.is_upgrade(current.plan, session.plan)
    return Change.UPGRADE if upgrade else Change.LATER


def means(session: CheckoutSession) -> Means:
    """How the session is paid: by the terms it offers, nothing the page says."""
    if session.mode == Mode.ONBOARDING:
        return Means.SETUP
    moves = change(session)
    if moves != Change.NONE:
        return Means.PAYMENT if moves == Change.UPGRADE else Means.NONE
    if session.plan is not None and session.plan.is_free:
        return Means.SETUP if session.plan.needs_card else Means.NONE
    return Means.PAYMENT


def standing(session: CheckoutSession) -> Standing:
    """Whether the confirmed customer can buy what is offered (money.md, Who is who)."""
    connection = session.buyer
    if connection.status in (Connection.Status.DISABLED, Connection.Status.DELETED):
        return Standing.PAUSED
    current: Subscription | None = connection.subscription
    if session.plan is not None:
        if current is not None and current.plan_id == session.plan_id:
            return Standing.SAME_PLAN
        if current is not None and not _can_move(connection, current, session):
            return Standing.OTHER_PLAN
        return Standing.CLEAR if session.amount == session.plan.price else Standing.NEW_TERMS
    if session.mode in (Mode.CREDIT_BUNDLE, Mode.TOPUP):
        if current is None or (session.bundle and session.bundle.plan_id != current.plan_id):
            return Standing.NO_PLAN
        if session.bundle is None:
            sold = current.plan.live_bundles.filter(cost__gt=0).exists()
            return Standing.CLEAR if sold else Standing.NO_PACKS
        offered = session.bundle.deleted_at is None and session.amount == session.bundle.cost
        return Standing.CLEAR if offered and session.amount.amount else Standing.NEW_TERMS
    return Standing.CLEAR


def _can_move(connection: Connection, current: Subscription, session: CheckoutSession) -> bool:
    assert session.plan is not None
    try:
        changes.check(connection, current, plan=session.plan)
    except (errors.Conflict, errors.NotFound):
        return False
    return True
