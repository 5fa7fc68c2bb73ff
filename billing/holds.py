"""Holds: set credits aside for work about to run, give them back, sweep what was left behind.

Called by `POST /v1/holds` (`meters.api_holds`) and, in SQL, by meters' gateway. The settlement of a
hold is the charge of what was really used: `meters_charge` ends the hold under the same lock
(`billing_close_hold`), so that the fee is drawn and the rest is free in one step. A held amount is
never spendable twice: every check of what can be spent takes open holds off (`billing_available`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Value

from billing import errors, ids, ledger, money
from billing.models import Connection, Hold, Merchant, Subscription

LONGEST = timedelta(days=1)
BATCH = 500


@transaction.atomic
def place(
    merchant: Merchant,
    connection_id: UUID,
    *,
    amount: Decimal,
    purpose: str = "",
    expires_in: timedelta = timedelta(minutes=15),
    priced: bool = False,
    now: datetime,
) -> Hold:
    """Set an amount aside, if it fits into the credits left or into the plan's overage.

    `priced`: a meter's price, which may be 0.

    Raises:
        billing.errors.NotFound: no such connection of the merchant.
        billing.errors.Forbidden: it is disabled, or has no subscription.
        billing.errors.Invalid: no amount above 0, or a time of no length or over a day.
        billing.errors.PaymentRequired: it does not fit.
        billing.errors.Refused: all holds together would pass 12 digits (`amount_too_large`).
    """
    amount = money.round_fee(amount)
    if not (0 < amount < 10**12 or (priced and amount == 0)):
        raise errors.Invalid("Hold an amount above 0.", param="amount")
    if not timedelta(0) < expires_in <= LONGEST:
        raise errors.Invalid("Hold for 1 second to 1 day.", param="expires_in_s")
    connection = ledger.lock(connection_id, merchant_id=merchant.pk)
    if connection.status in (Connection.Status.PENDING, Connection.Status.DELETED):
        raise errors.NotFound("No such connection.", code="connection_not_found")
    if connection.status == Connection.Status.DISABLED:
        raise errors.Forbidden("This connection is disabled.", code="connection_disabled")
    subscription: Subscription | None = connection.subscription
    if subscription is None:
        raise errors.Forbidden("This connection has no subscription.", code="subscription_missing")
    if connection.held + amount >= 10**12:
        raise errors.Refused(
            "All that is held would pass 12 digits.", code="amount_too_large", param="amount"
        )
    available = Decimal(ledger.call("SELECT billing_available(%s, %s)", connection.pk, now))
    plan = subscription.plan
    fits = ledger.call(
        "SELECT billing_fits(%s, %s, %s, %s, %s)",
        amount,
        available,
        plan.when_depleted,
        connection.cycle_overage,
        plan.overage_cap,
    )
    if not fits:
        left = max(available, Decimal(0))
        raise errors.PaymentRequired(
            f"The credits left ({left:f}) do not cover this hold.", available=f"{left:f}"
        )
    hold_id = ids.new(sandbox=merchant.is_sandbox)
    ledger.call(
        "SELECT billing_hold(%s, %s, %s, %s, %s, %s)",
        hold_id,
        connection.pk,
        amount,
        purpose,
        now + expires_in,
        now,
    )
    held: Hold = Hold.objects.get(pk=hold_id)
    return held


def release(hold: Hold, *, now: datetime) -> Hold:
    """Give a hold back unspent. Released twice, the first time counts.

    Raises:
        billing.errors.Conflict: it was settled: its work has been charged.
    """
    _end(hold.pk, state=Hold.State.RELEASED, now=now)
    hold.refresh_from_db()
    if hold.state == Hold.State.SETTLED:
        raise errors.Conflict("This hold was settled.", code="hold_settled")
    return hold


def expire(hold_id: UUID, *, now: datetime) -> None:
    """Give back a hold whose time is over; `now` on its merchant's clock."""
    if Hold.objects.filter(pk=hold_id, expires_at__lte=now).exists():
        _end(hold_id, state=Hold.State.EXPIRED, now=now)


def over(now: datetime) -> list[UUID]:
    """Open holds whose time is over at the real instant `now`, each on its merchant's clock."""
    clock = ExpressionWrapper(
        Value(now, output_field=DateTimeField()) + F("merchant__clock_offset"),
        output_field=DateTimeField(),
    )
    rows = Hold.objects.annotate(clock=clock).filter(
        state=Hold.State.OPEN, expires_at__lte=F("clock")
    )
    return list(rows.order_by("expires_at", "pk").values_list("pk", flat=True)[:BATCH])


def sweep(*, now: datetime) -> int:
    """Give back every hold that a dead holder left behind; gives how many. `now` in real time."""
    found = over(now)
    for hold_id in found:
        merchant = Merchant.objects.get(
            pk=Hold.objects.values_list("merchant", flat=True).get(pk=hold_id)
        )
        expire(hold_id, now=now + merchant.clock_offset)
    return len(found)


@transaction.atomic
def _end(hold_id: UUID, *, state: str, now: datetime) -> None:
    connection_id = Hold.objects.values_list("connection_id", flat=True).get(pk=hold_id)
    connection = ledger.lock(connection_id)
    ledger.call("SELECT billing_end_hold(%s, %s, %s, %s)", hold_id, connection.pk, str(state), now)
