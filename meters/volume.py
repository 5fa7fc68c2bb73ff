"""Tiers by volume: what a cycle's usage costs in the end, and giving back what was charged past it.

While a cycle runs each request pays the first tier's rate (`meters.pricing`). When it is over, all
that was counted decides the tier, its rate is asked for all units, and the difference is given back
as credits that pay debt first (money.md, Fee models). `settle` may run any number of times, at any
time: it gives what is missing, under the connection's lock. Registered with `billing.closing` by
`meters.apps`; `quote` tells what a running cycle would come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import connection as database
from django.db import transaction
from django.db.models import (
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    Sum,
    Value,
)

from billing import credits, events, ledger, money
from billing.models import Connection, CreditGrant, Merchant, Subscription
from meters import prices, pricing
from meters.models import Meter, MeterPosition, MeterPrice, VolumeSettlement

ZERO = Decimal(0)
ACTOR = "Lava"
BATCH = 500

# What each version of a meter's price charged in one cycle. `billed` is what of the count its
# tiers saw: past an allowance, in whole packages.
_CHARGED = """
SELECT r.price_id, sum(r.fee), sum(b.billed)
  FROM meters_usagerequest r
  CROSS JOIN LATERAL (
       SELECT COALESCE(sum((part->>1)::numeric), 0) AS billed
         FROM jsonb_array_elements(r.slices) part) b
 WHERE r.connection_id = %s AND r.meter_id = %s AND r.subscription_id = %s AND r.cycle_index = %s
   AND r.status = 'completed'
 GROUP BY r.price_id
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a version of a price comes to in a cycle. `total` is what the meter counted, `billed`
    what of it this version billed, in its unit; money in the connection's currency."""

    price: MeterPrice
    total: Decimal
    billed: Decimal
    tier: int
    charged: Decimal
    fee: Decimal
    # Given back before.
    given: Decimal

    @property
    def due(self) -> Decimal:
        """What is to be given back still. A hair below 0 by the rounding of single requests: 0."""
        return max(self.charged - self.fee - self.given, ZERO)


def due(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Subscriptions with usage at a price by volume in a cycle that is over, at real time `now`."""
    clock = ExpressionWrapper(
        Value(now, output_field=DateTimeField()) + F("merchant__clock_offset"),
        output_field=DateTimeField(),
    )
    waiting = MeterPosition.objects.filter(scope=OuterRef("pk"), unsettled=True)
    rows = (
        # From the positions, which are few: their index holds only what waits.
        Subscription.objects.filter(
            pk__in=MeterPosition.objects.filter(unsettled=True).values("scope")
        )
        .annotate(clock=clock)
        .filter(
            Exists(waiting.filter(window__lt=OuterRef("cycle_index")))
            | (
                (~Q(status__in=Subscription.CURRENT) | Q(cycle_end__lte=F("clock")))
                & Exists(waiting)
            )
        )
    )
    if merchant is not None:
        rows = rows.of(merchant)
    return list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH])


@transaction.atomic
def settle(subscription_id: UUID, *, now: datetime, early: bool = False) -> list[VolumeSettlement]:
    """Give back what a subscription's cycles cost less by their volume; gives the rows it wrote.

    Cycles that are over at `now`, the merchant's instant; with `early` the running one too, since a
    change of plan is about to end it. What is used in it after that is settled when it ends.
    """
    owner = Subscription.objects.filter(pk=subscription_id).values_list("connection_id", flat=True)
    positions = MeterPosition.objects.filter(scope=subscription_id, unsettled=True)
    if not positions.exists():
        return []
    connection = ledger.lock(owner.get())
    subscription = Subscription.objects.get(pk=subscription_id)
    if not early and subscription.status in Subscription.CURRENT and subscription.cycle_end > now:
        positions = positions.filter(window__lt=subscription.cycle_index)
    made = []
    for position in positions.order_by("window", "meter_id"):
        if connection.status != Connection.Status.DELETED:
            made += [
                _give(connection, subscription, position, outcome, now=now)
                for outcome in _outcomes(position)
            ]
        positions.filter(window=position.window, meter_id=position.meter_id).update(unsettled=False)
    return made


def quote(subscription: Subscription, meter: Meter) -> list[Outcome]:
    """What a meter's usage in the running cycle comes to as it stands, by version of its price;
    empty for graduated ones."""
    position = MeterPosition.objects.filter(
        connection_id=subscription.connection_id,
        scope=subscription.pk,
        window=subscription.cycle_index,
        meter=meter,
    ).first()
    return list(_outcomes(position)) if position is not None else []


def is_settled(*, subscription_id: UUID, cycle_index: int, price: MeterPrice) -> bool:
    """Whether something was given back of what a version of a price charged in a cycle."""
    rows = VolumeSettlement.objects.filter(
        subscription_id=subscription_id, cycle_index=cycle_index, price=price, amount__gt=0
    )
    return bool(rows.exists())


def _outcomes(position: MeterPosition) -> Iterator[Outcome]:
    """What each version by volume comes to in the cycle of a position, oldest first."""
    where = (position.connection_id, position.meter_id, position.scope, position.window)
    with database.cursor() as cursor:
        cursor.execute(_CHARGED, where)
        sums: dict[UUID, tuple[Decimal, Decimal]] = {
            key: (charged, billed) for key, charged, billed in cursor.fetchall()
        }
    given: dict[UUID, Decimal] = dict(
        VolumeSettlement.objects.filter(
            subscription_id=position.scope, cycle_index=position.window, price__in=list(sums)
        )
        .values_list("price")
        .annotate(Sum("amount"))
        .order_by()
    )
    for price in MeterPrice.objects.filter(pk__in=list(sums)).order_by("version"):
        if price.tier_mode != MeterPrice.TierMode.VOLUME:
            continue
        terms = prices.of(price).price
        charged, billed = sums[price.pk]
        tier = pricing.volume_tier(terms, position.quantity)
        fee = pricing.volume_fee(terms, billed=billed, total=position.quantity)
        yield Outcome(
            price=price,
            total=position.quantity,
            billed=billed,
            tier=tier,
            charged=charged,
            # In the first tier it was charged what it costs, each request rounded for itself.
            fee=fee if tier else charged,
            given=given.get(price.pk, ZERO),
        )


def _give(
    connection: Connection,
    subscription: Subscription,
    position: MeterPosition,
    outcome: Outcome,
    *,
    now: datetime,
) -> VolumeSettlement:
    meter = Meter.objects.get(pk=position.meter_id)
    grant_id = credits.grant(
        connection,
        source=CreditGrant.Source.VOLUME,
        amount=outcome.due,
        now=now,
        reason=_reason(meter, position, outcome, currency=connection.currency),
        actor=ACTOR,
    )
    row = VolumeSettlement(
        merchant=connection.merchant,
        connection=connection,
        subscription=subscription,
        cycle_index=position.window,
        meter=meter,
        price=outcome.price,
        total=outcome.total,
        billed=outcome.billed,
        charged=outcome.charged,
        fee=outcome.fee,
        amount=outcome.due,
        grant_id=grant_id,
        created_at=now,
    )
    row.save()
    if grant_id is not None:
        events.record(
            connection.merchant,
            "volume.settled",
            now=now,
            connection=connection,
            subscription_id=subscription.public_id,
            meter_id=meter.public_id,
            quantity=f"{outcome.total.normalize():f}",
            rate=money.wire(outcome.price.tiers[outcome.tier].rate),
            charged=money.wire(outcome.charged),
            fee=money.wire(outcome.fee),
            amount=money.wire(outcome.due),
            currency=connection.currency,
        )
    return row


def _reason(meter: Meter, position: MeterPosition, outcome: Outcome, *, currency: str) -> str:
    """What was counted and what it costs, for the ledger's line."""
    rate = money.display(outcome.price.tiers[outcome.tier].rate, currency)
    return (
        f"{meter.name}, cycle {position.window + 1}: {outcome.total.normalize():f} counted, so the"
        f" rate is {rate}: {money.display(outcome.fee, currency)} instead of"
        f" {money.display(outcome.charged, currency)}"
    )[:255]
