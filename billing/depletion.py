"""Depletion: tell once a fall that credits have run out, or run low.

The ledger itself keeps since when a balance is at 0 or below, and below the plan's mark
(`Connection.depleted_at`, `low_at`); both are cleared when credits come. Here it is told: one event
and one mail a fall, not one a request. A fall that was mended before anybody could look is told
no more. Called by a worker when a charge says that the balance fell, and by the sweep.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing import credits, events, ledger, money, notices, overage
from billing.models import Connection, Plan


@transaction.atomic
def tell(connection_id: UUID, *, now: datetime) -> list[str]:
    """Tell what is to be told of a connection's balance; gives what was told: `low`, `depleted`.

    Told once a fall, however often it is called. While an automatic top-up is about to buy credits
    the customer gets no mail. Without a subscription there is nobody to tell.
    """
    connection = ledger.lock(connection_id)
    credits.expire(connection, now=now)
    connection.refresh_from_db()
    current = connection.subscription
    told: list[str] = []
    fresh_low = connection.low_at is not None and not connection.low_told
    fresh_end = connection.depleted_at is not None and not connection.depleted_told
    if not (fresh_low or fresh_end):
        return told
    Connection.objects.filter(pk=connection.pk).update(
        low_told=connection.low_at is not None, depleted_told=connection.depleted_at is not None
    )
    if current is None or connection.status != Connection.Status.ACTIVE:
        return told
    if fresh_end:
        told.append("depleted")
        events.record(
            connection.merchant,
            "connection.depleted",
            now=now,
            connection=connection,
            balance=money.wire(connection.balance),
            currency=connection.currency,
            when_depleted=current.plan.when_depleted,
            depleted_at=connection.depleted_at.isoformat() if connection.depleted_at else None,
        )
        # Who pays as they go, on a plan without credits, has lost nothing.
        if not overage.tops_up(current, now=now) and not _pays_as_used(current.plan):
            notices.depleted(connection, current, now=now)
    elif fresh_low:
        told.append("low")
        if not overage.tops_up(current, now=now):
            notices.credits_low(connection, balance=connection.balance, now=now)
    return told


def _pays_as_used(plan: Plan) -> bool:
    return plan.when_depleted == Plan.WhenDepleted.OVERAGE and plan.included_credit == 0
