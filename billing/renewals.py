"""Renewals: bring a subscription whose cycle has ended into its current one.

`renew` is safe to call twice, by any number of workers: the cycle's unique key and the open
payment's decide. Called by `billing.tasks` and by `billing.clock`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection as database
from django.db import transaction

from billing import closing, courses, ledger, overage, payments, subscriptions
from billing.models import Connection, Merchant, Payment, Subscription

# Renewals of price 0 go in sets of so many, each in one statement: enough that planning it costs
# little of it, few enough that nobody's charge waits long for the locks (speed.md).
SET_SIZE = 200


def renew(subscription_id: UUID, *, now: datetime) -> Payment | None:
    """Renew one subscription that is due: its overage is collected, its card charged, its cycle
    opened. Gives the renewal's payment, or None where none was needed or it was not due.

    A server that slept through cycles renews once, for the current one (money.md, Cycles).
    """
    subscription = Subscription.objects.current().filter(pk=subscription_id).first()
    if subscription is None or not _is_due(subscription, now=now):
        return None
    closing.settle(subscription_id, now=now)
    overage.collect(subscription.connection_id, now=now, cycle_ends=True)
    payment = _begin(subscription_id, now=now)
    if payment is None:
        return None
    return payments.charge(payment, now=now)


@transaction.atomic
def renew_set(now: datetime, *, merchant: Merchant | None = None, most: int = SET_SIZE) -> int:
    """Renew many subscriptions of price 0 in one statement; gives how many, 0 when none is left.

    `now` is real time: each merchant's clock counts. Only the plain ones are taken (nothing owed,
    nothing pending, nothing at the card network); `renew` does the rest one by one, and says the
    same of these: a test holds both equal. A connection that somebody else has locked is passed by
    and found again. Stopped at any instant, it goes on with what is left.
    """
    rows = Merchant.objects.filter(pk=merchant.pk) if merchant else Merchant.objects.all()
    zones = set(rows.values_list("time_zone", flat=True).order_by().distinct())
    agreed = [zone for zone in sorted(zones) if zones_agree(zone, now.year, now.month)]
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT billing_renew_set(%s, %s, %s, %s)",
            [now, merchant.pk if merchant else None, agreed, most],
        )
        row = cursor.fetchone()
    return int(row[0])


@lru_cache(maxsize=2000)
def zones_agree(zone: str, year: int, month: int) -> bool:
    """Whether the database knows a zone as Python does, on each day from a year before a month to
    three years after. Their zone tables are of different years, and a cycle's bounds must not
    depend on who computes them; where they differ Python's count, row by row."""
    start = datetime(year - 1, month, 1, 12, tzinfo=UTC)
    days = [start + timedelta(days=number) for number in range(4 * 365)]
    with database.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = %s)", [zone])
        if not cursor.fetchone()[0]:
            return False
        cursor.execute(
            "SELECT extract(epoch FROM (day AT TIME ZONE %s) - (day AT TIME ZONE 'UTC'))::int"
            " FROM unnest(%s::timestamptz[]) WITH ORDINALITY u (day, place) ORDER BY place",
            [zone, days],
        )
        theirs = [row[0] for row in cursor.fetchall()]
    ours = [moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in days]
    return theirs == [int(offset.total_seconds()) for offset in ours if offset is not None]


@transaction.atomic
def _begin(subscription_id: UUID, *, now: datetime) -> Payment | None:
    """Decide under the lock: end it, move on at once (price 0), or intend a payment."""
    owner = Subscription.objects.values_list("connection_id", flat=True).get(pk=subscription_id)
    connection = ledger.lock(owner)
    subscription = subscriptions.locked(Subscription(pk=subscription_id))
    if not _is_due(subscription, now=now):
        return None
    if subscription.pending_change == Subscription.PendingChange.CANCELLATION:
        subscriptions.end(subscription, now=now)
        return None
    if connection.status != Connection.Status.ACTIVE:
        # Disabled: nothing is charged; it renews when it is enabled again.
        return None
    if under_way().filter(subscription=subscription).exists():
        return None
    course = courses.coming(subscription)
    plan, index = course.plan, course.index_at(now)
    if plan.is_free:
        subscriptions.advance(subscription, index=index, now=now)
        return None
    tries = Payment.objects.filter(
        subscription=subscription, purpose=Payment.Purpose.RENEWAL, cycle_index=index
    )
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.RENEWAL,
        amount=plan.price,
        plan=plan,
        subscription=subscription,
        cycle_index=index,
        off_session=True,
        # One key a try, also for those that a new card makes between the days of the schedule.
        key=f"renewal:{subscription.public_id}:{index}:{tries.count()}",
        now=now,
    )
    return payment if payment.is_open else None


def under_way() -> Any:
    """Charges that decide a subscription's next cycle and are at the network: the renewal waits."""
    return Payment.objects.filter(
        purpose__in=(Payment.Purpose.RENEWAL, Payment.Purpose.UPGRADE),
        off_session=True,
        status__in=Payment.OPEN,
    )


def _is_due(subscription: Subscription, *, now: datetime) -> bool:
    """Whether its cycle is over and, after a decline, the day of the next try has come."""
    next_try = subscription.next_attempt_at
    if subscription.pending_change == Subscription.PendingChange.CANCELLATION:
        next_try = None
    return (
        subscription.status in Subscription.CURRENT
        and subscription.cycle_end <= now
        and (next_try is None or next_try <= now)
    )
