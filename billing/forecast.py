"""What falls due for a merchant on the way to an instant, told before any of it runs.

Reads only, by the rules of `billing.renewals`, `billing.overage` and `billing.credits`. Two things
nobody can know: it supposes that nothing more is used, and that a card does what it did last.
Called by the sandbox's clock in the console.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from billing import closing, credits, money, periods, settlement
from billing.models import Connection, CreditGrant, Merchant, PaymentMethod, Plan, Subscription

ZERO = Decimal(0)
# A forecast is for reading: past so many subscriptions and cycles it stops and says so.
MOST_SUBSCRIPTIONS = 2000
MOST_CYCLES = 400
TRIES = len(settlement.RETRY_DAYS) + 1


class What(StrEnum):
    """What happens; the console has the words."""

    RENEWAL = "renewal"
    # A renewal of a price of 0: no card is asked.
    FREE_RENEWAL = "free_renewal"
    # A renewal whose card declined before, asked again.
    RETRY = "retry"
    # The plan ends, as the customer wanted or because it stayed unpaid.
    END = "end"
    UNPAID_END = "unpaid_end"
    OVERAGE = "overage"
    CREDIT_ENDS = "credit_ends"
    # What usage cost less by the volume of its cycle.
    VOLUME = "volume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One thing that happens at an instant."""

    at: datetime
    what: What
    connection: Connection
    plan: Plan | None = None
    # What the card is asked for; 0 where it is not asked.
    asked: Decimal = ZERO
    # Whether the card is expected to pay: one is saved, and it did not decline last time.
    pays: bool = True
    has_card: bool = True
    granted: Decimal = ZERO
    rolled: Decimal = ZERO
    ended: Decimal = ZERO
    # Which try of a renewal it is, the first is 1.
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """What falls due, in order, and the sums of it."""

    rows: list[Due]
    # Subscriptions were left out: there are more than `MOST_SUBSCRIPTIONS`.
    is_cut: bool

    @property
    def charged(self) -> Decimal:
        return sum((row.asked for row in self.rows if row.pays), ZERO)

    @property
    def granted(self) -> Decimal:
        return sum((row.granted for row in self.rows if row.pays), ZERO)

    @property
    def rolled(self) -> Decimal:
        return sum((row.rolled for row in self.rows if row.pays), ZERO)

    @property
    def ended(self) -> Decimal:
        return sum((row.ended for row in self.rows if row.pays), ZERO)


@dataclass(slots=True)
class _Purse:
    """The credits of one connection as the forecast moves them."""

    cycle: Decimal = ZERO
    bundle: Decimal = ZERO
    debt: Decimal = ZERO
    has_card: bool = False
    # What the running cycle will give back when it ends; and once given, until the next begins.
    comes_back: Decimal = ZERO
    fresh: Decimal = ZERO

    def give_back(self) -> Decimal:
        """Pay the debt with what comes back and keep the rest for the next cycle; gives the sum."""
        amount, self.comes_back = self.comes_back, ZERO
        paid = min(self.debt, amount)
        self.debt -= paid
        self.fresh = amount - paid
        return amount

    def grant(self, amount: Decimal) -> None:
        """Add cycle credits; debt is paid first out of them."""
        paid = min(self.debt, amount)
        self.debt -= paid
        self.cycle += amount - paid


def ahead(merchant: Merchant, *, until: datetime, now: datetime) -> Forecast:
    """What falls due for the merchant in (now, until], and what is due already, in order."""
    rows = (
        Subscription.objects.of(merchant)
        .current()
        .filter(
            Q(cycle_end__lte=until)
            | Q(next_attempt_at__lte=until)
            | Q(connection__owes=True)
            | Exists(_ending(merchant, until=until).filter(connection=OuterRef("connection")))
        )
        .select_related("connection__customer", "plan")
        .order_by("cycle_end", "pk")
    )
    found = list(rows[: MOST_SUBSCRIPTIONS + 1])
    subscriptions = found[:MOST_SUBSCRIPTIONS]
    purses = _purses([row.connection for row in subscriptions], now=now)
    coming = closing.expected([row.pk for row in subscriptions])
    # Grants that end on their own on the way, by connection.
    ending: dict[UUID, list[CreditGrant]] = defaultdict(list)
    lots = _ending(merchant, until=until).select_related("connection__customer")
    for lot in lots.order_by("expires_at", "pk")[:MOST_SUBSCRIPTIONS]:
        ending[lot.connection_id].append(lot)
    due: list[Due] = []
    for subscription in subscriptions:
        purse = purses[subscription.connection_id]
        purse.comes_back = coming.get(subscription.pk, ZERO)
        mine = ending.pop(subscription.connection_id, [])
        due += _of_subscription(subscription, purse, mine, until=until, now=now)
    due += [_lot(lot, now=now) for mine in ending.values() for lot in mine]
    due.sort(key=lambda row: row.at)
    return Forecast(rows=due, is_cut=len(found) > MOST_SUBSCRIPTIONS)


def _ending(merchant: Merchant, *, until: datetime) -> Any:
    return CreditGrant.objects.of(merchant).filter(is_spent=False, expires_at__lte=until)


def _lot(lot: CreditGrant, *, now: datetime) -> Due:
    assert lot.expires_at is not None
    return Due(
        at=max(lot.expires_at, now),
        what=What.CREDIT_ENDS,
        connection=lot.connection,
        ended=lot.remaining,
    )


def _purses(connections: list[Connection], *, now: datetime) -> dict[UUID, _Purse]:
    keys = [row.pk for row in connections]
    found = {row.pk: _Purse(debt=row.debt - row.collecting) for row in connections}
    grants = CreditGrant.objects.filter(credits.live(now), connection__in=keys, is_spent=False)
    for key, pool, remaining in grants.values_list("connection_id", "pool", "remaining"):
        if pool == CreditGrant.Pool.CYCLE:
            found[key].cycle += remaining
        else:
            found[key].bundle += remaining
    cards = PaymentMethod.objects.filter(connection__in=keys, is_default=True, detached_at=None)
    for key in cards.values_list("connection_id", flat=True):
        found[key].has_card = True
    return found


def _of_subscription(
    subscription: Subscription,
    purse: _Purse,
    lots: list[CreditGrant],
    *,
    until: datetime,
    now: datetime,
) -> list[Due]:
    """One subscription's way, cycle by cycle."""
    connection, plan = subscription.connection, subscription.plan
    active = connection.status == Connection.Status.ACTIVE
    due: list[Due] = []
    if active:
        due += _overage_before_end(subscription, purse, until=until, now=now)
    due += _lots_before_end(subscription, purse, lots, now=now)
    for period in _periods(subscription, until=until, now=now):
        at = max(period.start, now)
        if purse.comes_back:
            given = purse.give_back()
            due.append(Due(at=at, what=What.VOLUME, connection=connection, granted=given))
        if subscription.pending_change == Subscription.PendingChange.CANCELLATION:
            due.append(_end(subscription, purse, What.END, at=at))
            return due
        if not active:
            return due
        if subscription.status == Subscription.Status.PAST_DUE or not (
            plan.is_free or purse.has_card
        ):
            return due + _tries(subscription, purse, until=until, at=at)
        charge = money.floor_minor(purse.debt, connection.currency)
        waits = connection.overage_next_attempt_at
        if _collects(plan, charge) and purse.has_card and (waits is None or waits <= at):
            purse.debt -= charge
            due.append(
                Due(at=at, what=What.OVERAGE, connection=connection, plan=plan, asked=charge)
            )
        due.append(_renew(subscription, purse, at=at))
    return due


def _periods(
    subscription: Subscription, *, until: datetime, now: datetime
) -> Iterator[periods.Cycle]:
    """The cycles opened on the way, each at its start; those slept through are left out."""
    anchor, zone = subscription.anchor, subscription.time_zone
    interval = subscription.plan.billing_interval
    index = subscription.cycle_index + 1
    if subscription.cycle_end <= now:
        index = max(index, periods.index_at(anchor, interval, zone, now))
    for number in range(index, index + MOST_CYCLES):
        period = periods.cycle(anchor, interval, number, zone)
        if period.start > until:
            return
        yield period


def _collects(plan: Plan, charge: Decimal) -> bool:
    return plan.when_depleted == Plan.WhenDepleted.OVERAGE and charge >= money.minimum_charge(
        plan.currency
    )


def _overage_before_end(
    subscription: Subscription, purse: _Purse, *, until: datetime, now: datetime
) -> list[Due]:
    """What is owed and has reached the plan's step, before the cycle ends."""
    connection, plan = subscription.connection, subscription.plan
    charge = money.floor_minor(purse.debt, connection.currency)
    if connection.collecting or not _collects(plan, charge):
        return []
    if connection.debt < plan.overage_threshold:
        return []
    at = max(connection.overage_next_attempt_at or now, now)
    if at > min(until, subscription.cycle_end):
        return []
    pays = purse.has_card and not connection.overage_attempts
    if pays:
        purse.debt -= charge
    return [
        Due(
            at=at,
            what=What.OVERAGE,
            connection=connection,
            plan=plan,
            asked=charge,
            pays=pays,
            has_card=purse.has_card,
            attempt=connection.overage_attempts + 1,
        )
    ]


def _lots_before_end(
    subscription: Subscription, purse: _Purse, lots: list[CreditGrant], *, now: datetime
) -> list[Due]:
    """Credits that end on their own; those that end with the cycle are told with its renewal."""
    due = []
    for lot in lots:
        assert lot.expires_at is not None
        if lot.expires_at >= subscription.cycle_end:
            continue
        if lot.expires_at > now and lot.pool == CreditGrant.Pool.CYCLE:
            purse.cycle -= lot.remaining
        elif lot.expires_at > now:
            purse.bundle -= lot.remaining
        due.append(_lot(lot, now=now))
    return due


def _renew(subscription: Subscription, purse: _Purse, *, at: datetime) -> Due:
    plan = subscription.plan
    rolled = ended = ZERO
    if plan.rollover_type == Plan.Rollover.FULL:
        rolled = purse.cycle if plan.rollover_cap is None else min(purse.cycle, plan.rollover_cap)
    ended = purse.cycle - rolled
    purse.cycle = rolled
    if plan.bundle_rollover_type == Plan.Rollover.NONE:
        ended += purse.bundle
        purse.bundle = ZERO
    purse.bundle, purse.fresh = purse.bundle + purse.fresh, ZERO
    purse.grant(plan.included_credit)
    return Due(
        at=at,
        what=What.FREE_RENEWAL if plan.is_free else What.RENEWAL,
        connection=subscription.connection,
        plan=plan,
        asked=plan.price.amount,
        has_card=purse.has_card,
        granted=plan.included_credit,
        rolled=rolled,
        ended=ended,
    )


def _tries(
    subscription: Subscription, purse: _Purse, *, until: datetime, at: datetime
) -> list[Due]:
    """The tries of a renewal whose card declined, or that has none, to the unpaid end."""
    since = subscription.past_due_since or at
    tried = subscription.attempts
    first = subscription.next_attempt_at if subscription.past_due_since else at
    due: list[Due] = []
    while True:
        moment = max(first or at, at) if not due else since + _wait(tried)
        if moment > until:
            return due
        due.append(
            Due(
                at=moment,
                what=What.RETRY if tried else What.RENEWAL,
                connection=subscription.connection,
                plan=subscription.plan,
                asked=subscription.plan.price.amount,
                pays=False,
                has_card=purse.has_card,
                attempt=tried + 1,
            )
        )
        if tried >= TRIES - 1:
            due.append(_end(subscription, purse, What.UNPAID_END, at=moment))
            return due
        tried += 1


def _wait(tried: int) -> timedelta:
    return timedelta(days=settlement.RETRY_DAYS[tried - 1])


def _end(subscription: Subscription, purse: _Purse, what: What, *, at: datetime) -> Due:
    ended = purse.cycle
    if subscription.plan.bundle_rollover_type == Plan.Rollover.NONE:
        ended += purse.bundle + purse.fresh
    return Due(
        at=at,
        what=what,
        connection=subscription.connection,
        plan=subscription.plan,
        ended=ended,
    )
