"""Notices: what customers are told of their credits and their plan, by mail.

Each is owed in the transaction of its cause (`billing.mails`). Mails about payments are
`billing.receipts`'.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.utils.translation import gettext

from billing import letters, locales, mails, money, receipts
from billing.models import Connection, Payment, Plan, Subscription

_PER = {
    "day": lambda: gettext("{price} a day"),
    "week": lambda: gettext("{price} a week"),
    "month": lambda: gettext("{price} a month"),
    "year": lambda: gettext("{price} a year"),
}


def welcome(subscription: Subscription, *, now: datetime) -> None:
    """A plan has begun."""
    connection, plan = subscription.connection, subscription.plan
    mails.owe(
        connection,
        lambda: letters.welcome(
            merchant=connection.merchant.name,
            plan=plan.name,
            gives=money.display(plan.included_credit, plan.currency)
            if plan.included_credit
            else "",
            renews=_end(subscription),
            price=price(plan),
            url=mails.portal_address(connection.merchant),
        ),
        now=now,
    )


def changed(subscription: Subscription, *, left: Plan, now: datetime) -> None:
    """The subscription is on another plan than before."""
    connection = subscription.connection
    mails.owe(
        connection,
        lambda: letters.changed(
            merchant=connection.merchant.name,
            old=left.name,
            new=subscription.plan.name,
            price=price(subscription.plan),
            renews=_end(subscription),
            url=mails.portal_address(connection.merchant),
        ),
        now=now,
    )


def change_planned(subscription: Subscription, *, now: datetime) -> None:
    """Another plan takes over at the end of the cycle."""
    connection, then = subscription.connection, subscription.pending_plan
    assert then is not None
    mails.owe(
        connection,
        lambda: letters.change_planned(
            merchant=connection.merchant.name,
            old=subscription.plan.name,
            new=then.name,
            price=price(then),
            day=_end(subscription),
            url=mails.portal_address(connection.merchant),
        ),
        now=now,
    )


def cancelled(subscription: Subscription, *, now: datetime) -> None:
    """The plan ends with its cycle."""
    connection = subscription.connection
    mails.owe(
        connection,
        lambda: letters.cancelled(
            merchant=connection.merchant.name,
            plan=subscription.plan.name,
            day=_end(subscription),
            packs_stay=subscription.plan.bundle_rollover_type == Plan.Rollover.FULL,
            url=mails.portal_address(connection.merchant),
        ),
        now=now,
    )


def credits_low(connection: Connection, *, balance: Decimal, now: datetime) -> None:
    """Credits have fallen below the mark of the plan."""
    mails.owe(
        connection,
        lambda: letters.credits_low(
            merchant=connection.merchant.name,
            left=money.display(balance, connection.currency),
            url=mails.portal_address(connection.merchant),
        ),
        now=now,
    )


def depleted(connection: Connection, subscription: Subscription, *, now: datetime) -> None:
    """Credits have run out; says what happens now."""
    goes_on = subscription.plan.when_depleted == Plan.WhenDepleted.OVERAGE
    card = connection.card if goes_on else None
    mails.owe(
        connection,
        lambda: letters.depleted(
            merchant=connection.merchant.name,
            then=letters.goes_on_by_card(str(card or "")) if goes_on else letters.pauses(),
            url=mails.portal_address(connection.merchant),
        ),
        now=now,
    )


def top_up_capped(
    connection: Connection, subscription: Subscription, *, until: datetime, now: datetime
) -> None:
    """The automatic top-up stands at its monthly cap: nothing was bought."""
    cap = subscription.top_up_monthly_cap
    assert cap is not None
    mails.owe(
        connection,
        lambda: letters.top_up_capped(
            merchant=connection.merchant.name,
            cap=money.display(cap, connection.currency),
            day=locales.day(until, connection.merchant.time_zone, year=True),
            url=mails.portal_address(connection.merchant),
        ),
        now=now,
    )


def last_warning(subscription: Subscription, payment: Payment, *, now: datetime) -> None:
    """A renewal was declined again, and the next try is the last."""
    merchant, next_try = subscription.merchant, subscription.next_attempt_at
    assert next_try is not None
    mails.owe(
        subscription.connection,
        lambda: letters.last_try(
            merchant=merchant.name,
            plan=subscription.plan.name,
            amount=receipts.amount(payment),
            what=receipts.what(payment),
            day=locales.day(next_try, merchant.time_zone, year=True),
            url=receipts.card_address(subscription.connection),
        ),
        now=now,
    )


def ended_unpaid(subscription: Subscription, payment: Payment, *, now: datetime) -> None:
    """The last try was declined: the subscription has ended."""
    merchant = subscription.merchant
    mails.owe(
        subscription.connection,
        lambda: letters.ended_unpaid(
            merchant=merchant.name,
            plan=subscription.plan.name,
            amount=receipts.amount(payment),
            what=receipts.what(payment),
            url=mails.portal_address(merchant),
        ),
        now=now,
    )


def price(plan: Plan) -> str:
    """What a plan costs, e.g. $25.00 a month."""
    if plan.is_free:
        return gettext("Free")
    return _PER[plan.billing_interval]().format(price=money.show(plan.price))


def _end(subscription: Subscription) -> str:
    return locales.day(subscription.cycle_end, subscription.merchant.time_zone, year=True)
