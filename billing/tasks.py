"""Billing's Celery tasks: find due ids, call one verb per id. Each may run twice.

A message is a hint; `sweep` runs on the timetable of `lava/celery.py` and finds what hints missed.
"""

from __future__ import annotations

import time
from uuid import UUID

import structlog
from celery import shared_task
from django.utils import timezone

from billing import holds, outbox, overage, payments, renewals
from billing import sweep as due
from billing.models import Connection, Payment, Subscription

log = structlog.get_logger(__name__)


@shared_task(ignore_result=True)
def renew(subscription_id: str) -> None:
    """Renew one subscription if it is due on its merchant's clock."""
    row = Subscription.objects.select_related("merchant").get(pk=UUID(subscription_id))
    renewals.renew(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def collect_overage(connection_id: str) -> None:
    """Charge what a connection owes if it has reached its plan's threshold."""
    row = Connection.objects.select_related("merchant").get(pk=UUID(connection_id))
    overage.collect(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def refresh_payment(payment_id: str) -> None:
    """Ask the card network about a payment whose answer never came."""
    row = Payment.objects.select_related("merchant").get(pk=UUID(payment_id))
    payments.refresh(row, now=row.merchant.now())


@shared_task(ignore_result=True)
def expire_grants(connection_id: str) -> None:
    """Enter the grants of a connection whose life is over."""
    row = Connection.objects.select_related("merchant").get(pk=UUID(connection_id))
    due.expire(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def deliver_message(message_id: str) -> None:
    """Send one text or mail that is owed."""
    outbox.deliver(UUID(message_id))


@shared_task(ignore_result=True)
def sweep() -> None:
    """Find everything that is due and hand each to a worker."""
    now = timezone.now()
    holds.sweep(now=now)
    for task, rows in (
        (renew, due.renewals_due(now)),
        (expire_grants, due.grants_over(now)),
        (collect_overage, due.overage_due(now)),
        (refresh_payment, due.payments_open(now)),
        (deliver_message, due.messages_owed()),
    ):
        for row in rows:
            task.delay(str(row))


# After a broker was found away, hints are left to the sweep for this long, so that an answer never
# waits for a broker that is not there.
HINT_PAUSE_S = 5.0
_quiet_until = 0.0


def hint_overage(connection_id: UUID) -> None:
    """Wake a worker for a connection at its threshold; with the broker away the sweep finds it."""
    global _quiet_until
    if time.monotonic() < _quiet_until:
        return
    try:
        collect_overage.apply_async((str(connection_id),), retry=False)
    except Exception as error:
        _quiet_until = time.monotonic() + HINT_PAUSE_S
        log.warning("broker_away", task="collect_overage", error=type(error).__name__)
