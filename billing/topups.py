"""Automatic top-ups: buy the customer's chosen bundle when credits fall below their threshold.

The customer switches it on with `configure`. `top_up` is called by a worker when a charge says that
the balance fell, and by the sweep. One purchase is open at a time, in one charge for the whole
shortfall, within the customer's monthly cap in money (money.md, When credits run out).
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Sum
from moneyed import Money

from billing import credits, errors, events, ledger, money, notices, payments, subscriptions
from billing.models import Connection, CreditBundle, Payment, Subscription

ZERO = Decimal(0)
# What the card network takes at most in one charge: eight digits of the minor unit
# (https://docs.stripe.com/currencies, Maximum charge amount).
LARGEST_CHARGE_MINOR = 99_999_999


@transaction.atomic
def configure(
    subscription: Subscription,
    *,
    bundle: CreditBundle | None,
    now: datetime,
    threshold: Decimal = ZERO,
    monthly_cap: Decimal | None = None,
) -> Subscription:
    """Switch automatic top-ups on, change them, or (bundle None) switch them off.

    A decline or a cap that is being waited for is forgotten: the next look may buy.

    Raises:
        billing.errors.Conflict: the subscription has ended, or there is no saved card (`no_card`).
        billing.errors.Invalid: the plan does not sell that bundle, an amount is no amount, or the
            cap is below the price of one bundle.
    """
    connection = ledger.lock(subscription.connection_id)
    subscription = subscriptions.locked(subscription)
    if subscription.status not in Subscription.CURRENT:
        raise errors.Conflict("The subscription has ended.", code="subscription_ended")
    if bundle is not None:
        _check(connection, subscription, bundle, threshold=threshold, monthly_cap=monthly_cap)
    subscription.auto_top_up_bundle = bundle
    subscription.top_up_threshold = money.round_fee(threshold) if bundle else ZERO
    subscription.top_up_monthly_cap = monthly_cap if bundle else None
    subscription.top_up_attempts = 0
    subscription.top_up_next_attempt_at = None
    subscription.save()
    events.record(
        subscription.merchant,
        "subscription.changed",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        auto_top_up_bundle_id=bundle.public_id if bundle else None,
    )
    return subscription


def top_up(connection_id: UUID, *, now: datetime, refused: bool = False) -> Payment | None:
    """Buy what is missing, if credits are below the customer's threshold.

    `refused`: a request was refused although something is left, too little for it. Then one bundle
    is bought, and none any more once a bundle's worth is there: whoever may send requests cannot
    make a customer buy ever more.

    Gives the payment, or None where nothing was due: above the threshold, a purchase is open, a
    decline is being waited for, or the cap is reached (told once a month).
    """
    payment = _begin(connection_id, now=now, refused=refused)
    return payments.charge(payment, now=now) if payment is not None else None


@transaction.atomic
def _begin(connection_id: UUID, *, now: datetime, refused: bool = False) -> Payment | None:
    connection = ledger.lock(connection_id)
    current = connection.subscription
    if connection.status != Connection.Status.ACTIVE or current is None:
        return None
    bundle = current.auto_top_up_bundle
    if bundle is None or bundle.deleted_at is not None or not _may_buy(current, now=now):
        return None
    bought = Payment.objects.filter(connection=connection, purpose=Payment.Purpose.TOP_UP)
    if bought.filter(status__in=Payment.OPEN).exists():
        return None
    credits.expire(connection, now=now)
    wanted = shortfall(connection, current)
    if wanted is None and refused and _available(connection) < bundle.credit_amount:
        wanted = ZERO
    if wanted is None:
        return None
    bundles = _within_cap(current, bundle, _bundles_for(wanted, bundle), now=now)
    if bundles == 0:
        _wait_for_next_month(connection, current, now=now)
        return None
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.TOP_UP,
        amount=Money(bundle.cost.amount * bundles, connection.currency),
        bundle=bundle,
        quantity=bundles,
        subscription=current,
        off_session=True,
        # Under the lock, with none open, their number names the next one.
        key=f"topup:{connection.public_id}:{bought.count()}",
        now=now,
    )
    return payment if payment.is_open else None


def shortfall(connection: Connection, subscription: Subscription) -> Decimal | None:
    """How much is missing to the threshold; None: enough is there. At 0 nothing is left to spend,
    so that fires too, with a shortfall of 0. What an open overage charge collects is not missing.
    """
    available = _available(connection)
    threshold = subscription.top_up_threshold
    if available >= threshold and available > 0:
        return None
    return max(Decimal(threshold - available), ZERO)


def _available(connection: Connection) -> Decimal:
    # What open holds have set aside is as good as spent.
    head = Connection.objects.only("balance", "collecting", "held").get(pk=connection.pk)
    return Decimal(head.balance + head.collecting - head.held)


def _bundles_for(wanted: Decimal, bundle: CreditBundle) -> int:
    """So many bundles cover a shortfall, at least one, at most what one charge can be."""
    whole, rest = divmod(wanted, bundle.credit_amount)
    needed = max(int(whole) + (1 if rest else 0), 1)
    return min(needed, max(LARGEST_CHARGE_MINOR // money.to_minor(bundle.cost), 1))


def _within_cap(
    subscription: Subscription, bundle: CreditBundle, bundles: int, *, now: datetime
) -> int:
    """As many bundles as the customer's cap of this calendar month allows."""
    cap = subscription.top_up_monthly_cap
    if cap is None:
        return bundles
    spent = Payment.objects.filter(
        connection=subscription.connection_id,
        purpose=Payment.Purpose.TOP_UP,
        status__in=(*Payment.OPEN, Payment.Status.SUCCEEDED),
        created_at__gte=month_of(subscription, now=now)[0],
    ).aggregate(total=Sum("amount"))["total"]
    left = max(cap - Decimal(spent or 0), ZERO)
    return min(bundles, int(left // bundle.cost.amount))


def month_of(subscription: Subscription, *, now: datetime) -> tuple[datetime, datetime]:
    """The calendar month that holds `now` in the merchant's zone, as instants `[start, end)`."""
    zone = ZoneInfo(subscription.merchant.time_zone)
    local = now.astimezone(zone)
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return (
        datetime(local.year, local.month, 1, tzinfo=zone),
        datetime(year, month, 1, tzinfo=zone),
    )


def _wait_for_next_month(
    connection: Connection, subscription: Subscription, *, now: datetime
) -> None:
    until = month_of(subscription, now=now)[1]
    # It waits for the month, no longer for a declined card: another card changes nothing.
    Subscription.objects.filter(pk=subscription.pk).update(
        top_up_attempts=0, top_up_next_attempt_at=until
    )
    assert subscription.top_up_monthly_cap is not None
    events.record(
        subscription.merchant,
        "topup.capped",
        now=now,
        connection=connection,
        subscription_id=subscription.public_id,
        monthly_cap=money.wire(subscription.top_up_monthly_cap),
        currency=connection.currency,
        resumes_at=until.isoformat(),
    )
    notices.top_up_capped(connection, subscription, until=until, now=now)


def _may_buy(subscription: Subscription, *, now: datetime) -> bool:
    """Not while the renewal is unpaid, the subscription is over, or a wait is not over."""
    waits = subscription.top_up_next_attempt_at
    over = (
        subscription.pending_change == Subscription.PendingChange.CANCELLATION
        and subscription.cycle_end <= now
    )
    return (
        subscription.status == Subscription.Status.ACTIVE
        and not over
        and (waits is None or waits <= now)
    )


def _check(
    connection: Connection,
    subscription: Subscription,
    bundle: CreditBundle,
    *,
    threshold: Decimal,
    monthly_cap: Decimal | None,
) -> None:
    if bundle.plan_id != subscription.plan_id or bundle.deleted_at is not None:
        raise errors.Invalid("This plan does not sell that bundle.", param="auto_top_up_bundle_id")
    if not threshold.is_finite() or not 0 <= threshold < 10**12:
        raise errors.Invalid("Write an amount of 0 or more.", param="top_up_threshold")
    if monthly_cap is not None:
        if not monthly_cap.is_finite() or not 0 <= monthly_cap < 10**12:
            raise errors.Invalid("Write an amount of 0 or more.", param="top_up_monthly_cap")
        if monthly_cap < bundle.cost.amount:
            least = money.display(bundle.cost.amount, connection.currency)
            raise errors.Invalid(
                f"One bundle costs {least}: allow at least that much a month.",
                param="top_up_monthly_cap",
            )
    if connection.card is None:
        raise errors.Conflict("Save a card first.", code="no_card")
