"""How a session is paid, and whether its customer can have what it offers. Asks, never writes."""

from __future__ import annotations

from enum import StrEnum

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


def means(session: CheckoutSession) -> Means:
    """How the session is paid: by the terms it offers, nothing the page says."""
    if session.mode == Mode.ONBOARDING:
        return Means.SETUP
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
        if current is not None:
            same = current.plan_id == session.plan_id
            return Standing.SAME_PLAN if same else Standing.OTHER_PLAN
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
