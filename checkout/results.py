"""What a completed checkout says: what they have now, what was paid, how to leave."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils.translation import gettext

from billing import credits, money, receipts
from billing.models import Subscription
from checkout import languages, summary
from checkout.models import CheckoutSession

Mode = CheckoutSession.Mode


def of(session: CheckoutSession, *, now: datetime) -> dict[str, Any]:
    """Heading, sentence and facts of a completed session."""
    connection, payment = session.connection, session.payment
    assert connection is not None
    merchant = session.merchant
    if payment is not None and payment.flag:
        return {
            "heading": gettext("We have your payment"),
            "lead": gettext(
                "{merchant} has to look at it before anything is added, and may give it back. You "
                "need not pay again."
            ).format(merchant=merchant.name),
            "facts": _facts(session),
        }
    if session.mode == Mode.ONBOARDING:
        return {
            "heading": gettext("Your card is saved"),
            "lead": gettext("Nothing was charged."),
            "facts": [{"label": gettext("Card"), "text": str(connection.card)}]
            if connection.card
            else [],
        }
    current = connection.subscription
    if session.plan is not None and current is not None and current.plan_id != session.plan_id:
        return _planned(session, current)
    balance = credits.balance(connection, now=now)
    what = session.bundle if session.bundle is not None else session.plan
    ready = (
        gettext("{what} is added and ready to use.")
        if session.bundle
        else gettext("{what} is active and ready to use.")
    )
    heading = (
        gettext("You have {amount} of credits") if balance.total > 0 else gettext("{what} is yours")
    )
    amount = money.display(balance.total, balance.currency)
    email = connection.customer.email
    sent = ""
    if payment is not None and email:
        sent = gettext("We sent the receipt to {email}.").format(email=email)
    return {
        "heading": heading.format(amount=amount, what=what),
        "lead": ready.format(what=what),
        "facts": _facts(session),
        "after": f"{sent} {cancelling(session)}".strip() if session.plan is not None else sent,
    }


def _planned(session: CheckoutSession, current: Subscription) -> dict[str, Any]:
    """A switch that waits for the end of the cycle, or was taken back or made since."""
    if current.pending_plan_id != session.plan_id:
        return {
            "heading": gettext("You are on {plan}").format(plan=current.plan.name),
            "lead": gettext("This checkout is done; your plan has changed since."),
            "facts": _facts(session),
        }
    date = summary.day(current.cycle_end, session.merchant.time_zone, year=True)
    return {
        "heading": gettext("You switch to {plan} on {date}").format(plan=session.plan, date=date),
        "lead": gettext(
            "Until then you stay on {plan}. Nothing was charged, and you can take it back."
        ).format(plan=current.plan.name),
        "facts": [],
        "after": "",
    }


def _facts(session: CheckoutSession) -> list[dict[str, str]]:
    payment, connection = session.payment, session.connection
    assert connection is not None
    zone = session.merchant.time_zone
    facts: list[dict[str, str]] = []
    if payment is not None:
        facts.append({"label": gettext("Paid today"), "text": receipts.amount(payment)})
        if payment.card is not None:
            facts.append({"label": gettext("Card"), "text": str(payment.card)})
    current = connection.subscription
    if session.plan is not None and current is not None and current.plan_id == session.plan_id:
        date = summary.day(current.cycle_end, zone, year=True)
        if current.plan.is_free:
            facts.append({"label": gettext("Renews"), "text": date})
        else:
            due = gettext("{price} on {date}").format(
                price=summary.show(current.plan.price), date=date
            )
            facts.append({"label": gettext("Next payment"), "text": due})
    if payment is not None:
        number = {"label": gettext("Receipt"), "text": payment.receipt_number}
        facts.append(number | {"url": languages.with_language(receipts.address(payment))})
    return facts


def cancelling(session: CheckoutSession) -> str:
    """How a plan is left."""
    support = session.merchant.organization.support_email
    said = (
        gettext("Cancel at any time on {merchant}’s billing page, or write to {support}.")
        if support
        else gettext("Cancel at any time on {merchant}’s billing page.")
    )
    return said.format(merchant=session.merchant.name, support=support)
