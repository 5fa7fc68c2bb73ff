"""Billing's Celery tasks: find due ids, call one verb per id. Each may run twice.

A message is a hint; `sweep` runs on the timetable of `lava/celery.py` and finds what hints missed.
"""

from __future__ import annotations

from uuid import UUID

import structlog
from celery import shared_task
from django.utils import timezone

from billing import (
    closing,
    deliveries,
    depletion,
    hints,
    holds,
    imports,
    moves,
    outbox,
    overage,
    payments,
    refunds,
    renewals,
    replays,
    topups,
)
from billing import sweep as due
from billing.models import Connection, CustomerImport, Payment, PlanMove, Refund, Subscription

log = structlog.get_logger(__name__)


@shared_task(ignore_result=True)
def renew(subscription_id: str) -> None:
    """Renew one subscription if it is due on its merchant's clock."""
    row = Subscription.objects.select_related("merchant").get(pk=UUID(subscription_id))
    renewals.renew(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def settle_cycle(subscription_id: str) -> None:
    """Settle what of a subscription's cycles is over and was not settled when it ended."""
    row = Subscription.objects.select_related("merchant").get(pk=UUID(subscription_id))
    closing.settle(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def settle_cycles() -> None:
    """Hand each subscription with such cycles to a worker. Not with the sweep: renewals and
    upgrades settle what they end, and this reads every count of the running cycles."""
    for row in closing.due(timezone.now()):
        settle_cycle.delay(str(row))


@shared_task(ignore_result=True)
def collect_overage(connection_id: str) -> None:
    """Charge what a connection owes if it has reached its plan's threshold."""
    row = Connection.objects.select_related("merchant").get(pk=UUID(connection_id))
    overage.collect(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def look_at_balance(connection_id: str, refused: bool = False) -> None:
    """Tell that a balance ran out or runs low, and top it up if its customer wants that."""
    row = Connection.objects.select_related("merchant").get(pk=UUID(connection_id))
    now = row.merchant.now()
    depletion.tell(row.pk, now=now)
    topups.top_up(row.pk, now=now, refused=refused)


@shared_task(ignore_result=True)
def move_subscribers(move_id: str) -> None:
    """Go on with a job that moves subscribers to another version of their plan."""
    row = PlanMove.objects.select_related("merchant").get(pk=UUID(move_id))
    moves.run(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def import_customers(import_id: str) -> None:
    """Go on with a job that makes the customers of a file."""
    row = CustomerImport.objects.select_related("merchant").defer("lines").get(pk=UUID(import_id))
    imports.run(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def renew_free() -> None:
    """Renew what is due and free, set by set, until nothing is."""
    while renewals.renew_set(timezone.now()):
        pass


@shared_task(ignore_result=True)
def refresh_payment(payment_id: str) -> None:
    """Ask the card network about a payment whose answer never came."""
    row = Payment.objects.select_related("merchant").get(pk=UUID(payment_id))
    payments.refresh(row, now=row.merchant.now())


@shared_task(ignore_result=True)
def give_up_payment(payment_id: str) -> None:
    """Withdraw a charge that its customer did not confirm in time."""
    row = Payment.objects.select_related("merchant").get(pk=UUID(payment_id))
    payments.give_up(row.pk, now=row.merchant.now())


@shared_task(ignore_result=True)
def refresh_refund(refund_id: str) -> None:
    """Ask the card network about a refund whose answer never came."""
    row = Refund.objects.select_related("merchant").get(pk=UUID(refund_id))
    refunds.refresh(row, now=row.merchant.now())


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
def tell_events(merchant_id: str) -> None:
    """Make the deliveries of a merchant's events and wake workers for them."""
    while (made := deliveries.tell(UUID(merchant_id), now=timezone.now())) is not None:
        for row in made:
            deliver_event.delay(str(row))


@shared_task(ignore_result=True)
def note_balances() -> None:
    """Record which balances moved, for the merchants that want to hear of it."""
    deliveries.note_balances()


@shared_task(ignore_result=True)
def deliver_event(delivery_id: str) -> None:
    """Send one event to one endpoint, if it is due."""
    deliveries.deliver(UUID(delivery_id))


@shared_task(ignore_result=True)
def forget_calls() -> None:
    """Drop the answers of idempotent calls that are kept no longer."""
    replays.forget(timezone.now())


@shared_task(ignore_result=True)
def sweep() -> None:
    """Find everything that is due and hand each to a worker."""
    now = timezone.now()
    holds.sweep(now=now)
    if due.free_renewals_due(now):
        renew_free.delay()
    for task, rows in (
        (give_up_payment, due.actions_over(now)),
        (renew, due.renewals_due(now)),
        (expire_grants, due.grants_over(now)),
        (look_at_balance, due.falls_to_tell(now)),
        (look_at_balance, due.top_ups_due(now)),
        (collect_overage, due.overage_due(now)),
        (move_subscribers, due.moves_under_way(now)),
        (import_customers, due.imports_under_way(now)),
        (refresh_payment, due.payments_open(now)),
        (refresh_refund, due.refunds_open(now)),
        (deliver_message, due.messages_owed()),
        (tell_events, deliveries.untold()),
        (deliver_event, deliveries.due(now)),
    ):
        for row in rows:
            task.delay(str(row))


def hint_overage(connection_id: UUID) -> None:
    """Wake a worker for a connection at its threshold; with the broker away the sweep finds it."""
    hints.wake(collect_overage, connection_id)


def hint_fall(connection_id: UUID, *, refused: bool = False) -> None:
    """Wake a worker for a connection whose balance fell: to 0, below its plan's mark, or below the
    threshold of its top-up. With the broker away the sweep finds it.

    `refused`: a request was refused for want of credits (see `topups.top_up`).
    """
    hints.wake(look_at_balance, connection_id, **({"refused": True} if refused else {}))


def hint_move(move_id: UUID) -> None:
    """Wake a worker for a move that was begun; with the broker away the sweep finds it."""
    hints.wake(move_subscribers, move_id)


def hint_import(import_id: UUID) -> None:
    """Wake a worker for an import that was confirmed; with the broker away the sweep finds it."""
    hints.wake(import_customers, import_id)
