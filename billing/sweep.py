"""What is due, as the database says it: the questions the sweep and the sandbox's clock ask.

A Celery message is a hint; these queries find everything that a lost message, a dead worker or an
unanswered card left behind. Each merchant's own clock counts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection as database
from django.db import transaction
from django.db.models import DateTimeField, Exists, ExpressionWrapper, F, OuterRef, Q, Value

from billing import (
    closing,
    credits,
    depletion,
    ledger,
    moves,
    overage,
    payments,
    renewals,
    topups,
)
from billing.models import (
    Connection,
    CreditGrant,
    CustomerImport,
    Merchant,
    OutboxMessage,
    Payment,
    Plan,
    PlanMove,
    Refund,
    Subscription,
)

# An off-session charge with no answer is asked about after this pause, in real time.
ASK_AFTER = timedelta(seconds=30)
# A refund that the bank has: days may pass; its webhook tells before.
REFUND_PAUSE = timedelta(hours=6)
BATCH = 500


def _clock(now: datetime) -> Any:
    """The merchant's own time at the real instant `now`, inside a query."""
    return ExpressionWrapper(
        Value(now, output_field=DateTimeField()) + F("merchant__clock_offset"),
        output_field=DateTimeField(),
    )


def renewals_due(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Subscriptions whose cycle is over and whose next try has come, oldest first."""
    rows = (
        Subscription.objects.current()
        .annotate(clock=_clock(now))
        .filter(
            Q(next_attempt_at=None) | Q(next_attempt_at__lte=F("clock")),
            Q(connection__status=Connection.Status.ACTIVE)
            | Q(pending_change=Subscription.PendingChange.CANCELLATION),
            cycle_end__lte=F("clock"),
        )
        # A charge under way is asked about by its own question; it must not fill the batch.
        .exclude(Exists(renewals.under_way().filter(subscription=OuterRef("pk"))))
    )
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("cycle_end", "pk").values_list("pk", flat=True)[:BATCH])


def free_renewals_due(now: datetime) -> bool:
    """Whether a subscription of price 0 is due that `renewals.renew_set` may take."""
    rows = Subscription.objects.annotate(clock=_clock(now)).filter(
        status=Subscription.Status.ACTIVE,
        pending_change=None,
        next_attempt_at=None,
        cycle_end__lte=F("clock"),
        plan__price=0,
        connection__status=Connection.Status.ACTIVE,
        connection__owes=False,
    )
    return bool(rows.exists())


def overage_due(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Connections that owe as much as their plan lets grow, with no charge under way."""
    rows = Connection.objects.annotate(clock=_clock(now)).filter(
        Q(overage_next_attempt_at=None) | Q(overage_next_attempt_at__lte=F("clock")),
        # Where a top-up pays instead, there is nothing to collect.
        Q(subscriptions__auto_top_up_bundle=None)
        | Q(subscriptions__status=Subscription.Status.PAST_DUE)
        | Q(subscriptions__top_up_next_attempt_at__gt=F("clock")),
        owes=True,
        collecting=0,
        status=Connection.Status.ACTIVE,
        subscriptions__status__in=Subscription.CURRENT,
        subscriptions__plan__when_depleted=Plan.WhenDepleted.OVERAGE,
        debt__gte=F("subscriptions__plan__overage_threshold"),
    )
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH])


def top_ups_due(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Connections below their customer's threshold, with no purchase or wait under way."""
    rows = (
        Subscription.objects.annotate(clock=_clock(now))
        .filter(
            Q(connection__balance__lt=F("top_up_threshold") - F("connection__collecting"))
            | Q(connection__balance__lte=-F("connection__collecting")),
            Q(top_up_next_attempt_at=None) | Q(top_up_next_attempt_at__lte=F("clock")),
            status=Subscription.Status.ACTIVE,
            auto_top_up_bundle__isnull=False,
            connection__status=Connection.Status.ACTIVE,
        )
        .exclude(
            Exists(
                Payment.objects.filter(
                    connection=OuterRef("connection"),
                    purpose=Payment.Purpose.TOP_UP,
                    status__in=Payment.OPEN,
                )
            )
        )
    )
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("pk").values_list("connection_id", flat=True)[:BATCH])


def falls_to_tell(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Connections whose credits ran out or run low, and nobody was told yet."""
    rows = Connection.objects.filter(
        Q(depleted_at__isnull=False, depleted_told=False) | Q(low_at__isnull=False, low_told=False)
    )
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH])


def imports_under_way(now: datetime) -> list[UUID]:
    """Jobs that make the customers of a file and are not done."""
    rows = CustomerImport.objects.filter(state=CustomerImport.State.RUNNING)
    return list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH])


def moves_under_way(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Jobs that move subscribers to another version of their plan and are not done."""
    rows = PlanMove.objects.filter(state=PlanMove.State.RUNNING)
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH])


def grants_over(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Connections with grants whose life is over and not yet entered in the ledger."""
    rows = CreditGrant.objects.annotate(clock=_clock(now)).filter(
        is_spent=False, expires_at__lte=F("clock")
    )
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by().values_list("connection_id", flat=True).distinct()[:BATCH])


def payments_open(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Off-session charges whose answer never came, or whose process died before asking."""
    rows = payments.open_since(now - ASK_AFTER).filter(created_at__lte=_clock(now - ASK_AFTER))
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("created_at").values_list("pk", flat=True)[:BATCH])


def actions_over(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Charges whose customer did not confirm them in time."""
    rows = Payment.objects.annotate(clock=_clock(now)).filter(
        off_session=True,
        status=Payment.Status.REQUIRES_ACTION,
        action_until__lte=F("clock"),
    )
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("action_until", "pk").values_list("pk", flat=True)[:BATCH])


def refunds_open(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Refunds whose answer never came, whose process died before asking, or that the bank has."""
    pause = Q(status=Refund.Status.SENT, asked_at__gt=now - REFUND_PAUSE)
    rows = (
        Refund.objects.filter(status__in=Refund.OPEN, created_at__lte=_clock(now - ASK_AFTER))
        .exclude(asked_at__gt=now - ASK_AFTER)
        .exclude(pause)
    )
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("created_at").values_list("pk", flat=True)[:BATCH])


def messages_owed() -> list[UUID]:
    """Live texts and mails not yet sent; the sandbox's are kept, never sent."""
    rows = OutboxMessage.objects.filter(
        sent_at=None, attempts__lt=8, merchant__mode=Merchant.Mode.LIVE
    )
    return list(rows.order_by("created_at").values_list("pk", flat=True)[:BATCH])


def expire(connection_id: UUID, *, now: datetime) -> None:
    """Enter what has ended in one connection."""
    with transaction.atomic():
        credits.expire(ledger.lock(connection_id), now=now)


def run(merchant: Merchant, *, now: datetime) -> None:
    """Do all that is due for one merchant, here and now, in order: used by the sandbox's clock.

    `now` is the merchant's instant.
    """
    real = now - merchant.clock_offset
    while renewals.renew_set(real, merchant=merchant):
        pass
    acts: list[tuple[Callable[..., list[UUID]], Callable[..., Any]]] = [
        # First: what waited in vain makes room for the next try.
        (actions_over, payments.give_up),
        (moves_under_way, moves.run),
        (renewals_due, renewals.renew),
        (closing.due, closing.settle),
        (grants_over, expire),
        (falls_to_tell, depletion.tell),
        (top_ups_due, topups.top_up),
        (overage_due, overage.collect),
    ]
    for due, act in acts:
        done: set[UUID] = set()
        # Each row once; more than one batch may be due.
        while rows := [row for row in due(real, merchant) if row not in done]:
            for row in rows:
                act(row, now=now)
            done.update(rows)


# One trip: a clock that moves over a year of daily cycles asks it hundreds of times.
_NEXT = """
    SELECT LEAST(
        (SELECT min(cycle_end) FROM billing_subscription
          WHERE merchant_id = %(merchant)s AND status = ANY (%(current)s)
            AND next_attempt_at IS NULL AND cycle_end > %(after)s AND cycle_end <= %(until)s),
        (SELECT min(next_attempt_at) FROM billing_subscription
          WHERE merchant_id = %(merchant)s AND status = ANY (%(current)s)
            AND next_attempt_at > %(after)s AND next_attempt_at <= %(until)s),
        (SELECT min(top_up_next_attempt_at) FROM billing_subscription
          WHERE merchant_id = %(merchant)s AND status = ANY (%(current)s)
            AND auto_top_up_bundle_id IS NOT NULL
            AND top_up_next_attempt_at > %(after)s AND top_up_next_attempt_at <= %(until)s),
        (SELECT min(expires_at) FROM billing_creditgrant
          WHERE merchant_id = %(merchant)s AND NOT is_spent
            AND expires_at > %(after)s AND expires_at <= %(until)s),
        (SELECT min(overage_next_attempt_at) FROM billing_connection
          WHERE merchant_id = %(merchant)s AND owes
            AND overage_next_attempt_at > %(after)s AND overage_next_attempt_at <= %(until)s),
        (SELECT min(action_until) FROM billing_payment
          WHERE merchant_id = %(merchant)s AND status = %(waits)s
            AND action_until > %(after)s AND action_until <= %(until)s))
"""


def next_instant(merchant: Merchant, *, after: datetime, until: datetime) -> datetime | None:
    """The next instant in (after, until] at which something falls due for the merchant."""
    with database.cursor() as cursor:
        cursor.execute(
            _NEXT,
            {
                "merchant": merchant.pk,
                "current": list(Subscription.CURRENT),
                "waits": Payment.Status.REQUIRES_ACTION,
                "after": after,
                "until": until,
            },
        )
        found: datetime | None = cursor.fetchone()[0]
    return found
