"""Notices: what customers are told of their credits and their subscription, by mail.

Each is a row of the outbox in the transaction of its cause; without an address nothing is owed.
Mails about payments are `billing.receipts`'.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from billing import money, outbox, receipts
from billing.models import Connection, Payment, Plan, Subscription


def credits_low(connection: Connection, *, balance: Decimal, now: datetime) -> None:
    """Credits have fallen below the mark of the plan."""
    left = money.display(balance, connection.currency)
    _send(
        connection,
        subject=f"Your credits at {connection.merchant.name} run low: {left} left",
        body=f"You have {left} of credits left at {connection.merchant.name}.\n",
        now=now,
    )


def depleted(connection: Connection, subscription: Subscription, *, now: datetime) -> None:
    """Credits have run out; says what happens now."""
    if subscription.plan.when_depleted == Plan.WhenDepleted.OVERAGE:
        card = connection.card
        then = (
            f"Everything keeps working. What you use from now on is charged to {card}."
            if card is not None
            else "Everything keeps working. What you use from now on is owed."
        )
    else:
        then = "New requests are refused until you add credits."
    _send(
        connection,
        subject=f"Your credits at {connection.merchant.name} have run out",
        body=f"You have used up your credits at {connection.merchant.name}. {then}\n",
        now=now,
    )


def top_up_capped(
    connection: Connection, subscription: Subscription, *, until: datetime, now: datetime
) -> None:
    """The automatic top-up stands at its monthly cap: nothing was bought."""
    assert subscription.top_up_monthly_cap is not None
    cap = money.display(subscription.top_up_monthly_cap, connection.currency)
    day = receipts.local_date(until, connection.merchant.time_zone)
    _send(
        connection,
        subject=f"Your automatic top-up at {connection.merchant.name} has reached its limit",
        body=(
            f"Your credits are below the level you chose, and automatic top-ups stand at your "
            f"limit of {cap} a month. Nothing was charged. They go on {day}; raise the limit or "
            "add credits to go on now.\n"
        ),
        now=now,
    )


def last_warning(subscription: Subscription, payment: Payment, *, now: datetime) -> None:
    """A renewal was declined again, and the next try is the last."""
    merchant = subscription.merchant
    assert subscription.next_attempt_at is not None
    day = receipts.local_date(subscription.next_attempt_at, merchant.time_zone)
    _send(
        subscription.connection,
        subject=f"Last try: your {subscription.plan} plan at {merchant.name} ends on {day}",
        body=(
            f"{receipts.amount(payment)} for {receipts.what(payment)} was declined again. We will "
            f"try once more on {day}; if that is declined too, the plan ends.\n\n"
            "Check that the card is valid and has enough funds, or write to "
            f"{merchant.name} to use another one.\n"
        ),
        now=now,
    )


def ended_unpaid(subscription: Subscription, payment: Payment, *, now: datetime) -> None:
    """The last try was declined: the subscription has ended."""
    merchant = subscription.merchant
    _send(
        subscription.connection,
        subject=f"Your {subscription.plan} plan at {merchant.name} has ended",
        body=(
            f"{receipts.amount(payment)} for {receipts.what(payment)} could not be charged, so the "
            "plan has ended. Nothing more is charged for it. You can subscribe again at any time.\n"
        ),
        now=now,
    )


def _send(connection: Connection, *, subject: str, body: str, now: datetime) -> None:
    customer = connection.customer
    if not customer.email:
        return
    outbox.mail(
        connection.merchant,
        to=customer.email,
        subject=subject,
        body=f"Hello {customer.first_name or 'there'},\n\n{body}",
        now=now,
    )
