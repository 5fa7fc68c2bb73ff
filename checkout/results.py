"""What a completed checkout says: what they have now, what was paid, how to leave."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from billing import credits, money, receipts
from billing.models import Subscription
from checkout import summary
from checkout.models import CheckoutSession

Mode = CheckoutSession.Mode


def of(session: CheckoutSession, *, now: datetime) -> dict[str, Any]:
    """Heading, sentence and facts of a completed session."""
    connection, payment = session.connection, session.payment
    assert connection is not None
    merchant = session.merchant
    if payment is not None and payment.flag:
        return {
            "heading": "We have your payment",
            "lead": f"{merchant.name} has to look at it before anything is added, and may give it "
            "back. You need not pay again.",
            "facts": _facts(session),
        }
    if session.mode == Mode.ONBOARDING:
        return {
            "heading": "Your card is saved",
            "lead": "Nothing was charged.",
            "facts": [{"label": "Card", "text": str(connection.card)}] if connection.card else [],
        }
    current = connection.subscription
    if session.plan is not None and current is not None and current.plan_id != session.plan_id:
        return _planned(session, current)
    balance = credits.balance(connection, now=now)
    what = session.bundle if session.bundle is not None else session.plan
    state = "is added and ready to use" if session.bundle else "is active and ready to use"
    has_credits = balance.total > 0
    amount = money.display(balance.total, balance.currency)
    facts = _facts(session)
    email = connection.customer.email
    sent = f"We sent the receipt to {email}. " if payment is not None and email else ""
    return {
        "heading": f"You have {amount} of credits" if has_credits else f"{what} is yours",
        "lead": f"{what} {state}.",
        "facts": facts,
        "after": f"{sent}{cancelling(session)}" if session.plan is not None else sent,
    }


def _planned(session: CheckoutSession, current: Subscription) -> dict[str, Any]:
    """A switch that waits for the end of the cycle, or was taken back or made since."""
    if current.pending_plan_id != session.plan_id:
        return {
            "heading": f"You are on {current.plan.name}",
            "lead": "This checkout is done; your plan has changed since.",
            "facts": _facts(session),
        }
    date = summary.day(current.cycle_end, session.merchant.time_zone, year=True)
    return {
        "heading": f"You switch to {session.plan} on {date}",
        "lead": f"Until then you stay on {current.plan.name}. Nothing was charged, and you can "
        "take it back.",
        "facts": [],
        "after": "",
    }


def _facts(session: CheckoutSession) -> list[dict[str, str]]:
    payment, connection = session.payment, session.connection
    assert connection is not None
    zone = session.merchant.time_zone
    facts: list[dict[str, str]] = []
    if payment is not None:
        facts.append({"label": "Paid today", "text": receipts.amount(payment)})
        if payment.card is not None:
            facts.append({"label": "Card", "text": str(payment.card)})
    current = connection.subscription
    if session.plan is not None and current is not None and current.plan_id == session.plan_id:
        date = summary.day(current.cycle_end, zone, year=True)
        if current.plan.is_free:
            facts.append({"label": "Renews", "text": date})
        else:
            price = summary.show(current.plan.price)
            facts.append({"label": "Next payment", "text": f"{price} on {date}"})
    if payment is not None:
        number = {"label": "Receipt", "text": payment.receipt_number}
        facts.append(number | {"url": receipts.address(payment)})
    return facts


def cancelling(session: CheckoutSession) -> str:
    """How a plan is left."""
    support = session.merchant.organization.support_email
    where = f", or write to {support}" if support else ""
    return f"Cancel at any time on {session.merchant.name}\u2019s billing page{where}."
