"""Tiers by volume: what a cycle's usage costs in the end, and giving back what was charged past it.

While a cycle runs each request pays the first tier's rate (`meters.pricing`). When it is over, all
that was counted decides the tier, its rate is asked for all units, and the difference is given back
as credits that pay debt first (money.md, Fee models). `settle` may run any number of times, at any
time: it gives what is missing, under the connection's lock. Registered with `billing.closing` by
`meters.apps`. What running cycles would come to, `outcomes` reads from the requests, as a
settlement must, and `expected` from the counts the charge keeps, wherever these say it exactly.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import connection as database
from django.db import transaction
from django.db.models import Sum

from billing import credits, events, ledger, money
from billing.models import Connection, CreditGrant, Merchant, Subscription
from meters import prices, pricing
from meters.models import Meter, MeterPosition, MeterPrice, VolumeSettlement

ZERO = Decimal(0)
ACTOR = "Lava"
# So many a minute: a set of renewals ends thousands of cycles at once.
BATCH = 5000

# Most positions are of running cycles: for those the two rows they name are enough. A connection is
# looked up where its cycle is over, by the clock that is furthest ahead, and nobody renewed it.
_DUE = """
SELECT DISTINCT s.id
  FROM meters_meterposition p
  JOIN billing_subscription s ON s.id = p.scope
 WHERE p.unsettled AND (%(merchant)s::uuid IS NULL OR s.merchant_id = %(merchant)s)
   AND (p."window" < s.cycle_index OR NOT s.status = ANY (%(current)s)
        OR s.cycle_end <= %(now)s + (SELECT max(clock_offset) FROM billing_merchant) AND EXISTS (
           SELECT FROM billing_connection c JOIN billing_merchant m ON m.id = c.merchant_id
            WHERE c.id = s.connection_id AND c.status <> %(renews)s
              AND s.cycle_end <= %(now)s + m.clock_offset))
 ORDER BY s.id LIMIT %(most)s
"""

# What each version of a meter's price charged in each cycle of some subscriptions, and what was
# given back of it. `billed` is what of the count its tiers saw: past an allowance, in whole
# packages. Requests are read from the first that was counted on, in the order of their keys; a call
# of the gateway has the key of when it began, however late it is charged.
_CHARGED = """
SELECT p.scope, p."window", p.quantity, r.price_id, sum(r.fee), sum(b.billed),
       (SELECT COALESCE(sum(v.amount), 0) FROM meters_volumesettlement v
         WHERE v.subscription_id = p.scope AND v.cycle_index = p."window"
           AND v.price_id = r.price_id)
  FROM meters_meterposition p
  JOIN meters_usagerequest r
       ON r.connection_id = p.connection_id AND r.meter_id = p.meter_id
      AND r.id >= COALESCE(p.first_request, '00000000-0000-0000-0000-000000000000')
      AND r.subscription_id = p.scope AND r.cycle_index = p."window" AND r.status = 'completed'
  CROSS JOIN LATERAL (
       SELECT COALESCE(sum((part->>1)::numeric), 0) AS billed
         FROM jsonb_array_elements(r.slices) part) b
 WHERE p.scope = ANY (%s) AND p.unsettled
 GROUP BY p.scope, p."window", p.quantity, r.price_id
"""


# The cycles that are not settled, by their counts alone: the meter's newest price, when the cycle
# began, and what was given back of that price before.
_COUNTED = """
SELECT p.scope, p."window", p.quantity, m.price_id, c.start,
       (SELECT COALESCE(sum(v.amount), 0) FROM meters_volumesettlement v
         WHERE v.subscription_id = p.scope AND v.cycle_index = p."window"
           AND v.price_id = m.price_id)
  FROM meters_meterposition p
  JOIN meters_meter m ON m.id = p.meter_id
  LEFT JOIN billing_cycle c ON c.subscription_id = p.scope AND c.index = p."window"
 WHERE p.scope = ANY (%s) AND p.unsettled
"""
# A call that began so long before a price was published may still be charged at the one before.
LONGEST_CALL = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a version of a price comes to in a cycle of a subscription. `total` is what the meter
    counted, `billed` what of it this version billed, in its unit; money in the connection's
    currency."""

    subscription_id: UUID
    cycle_index: int
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
    """Subscriptions with usage at a price by volume in a cycle that is over, at real time `now`.

    A cycle that its renewal has not ended yet is settled by the renewal, at each of its tries: not
    whenever somebody looks, or every few requests of those days would make a grant.
    """
    with database.cursor() as cursor:
        cursor.execute(
            _DUE,
            {
                "now": now,
                "merchant": merchant.pk if merchant is not None else None,
                "current": list(Subscription.CURRENT),
                "renews": Connection.Status.ACTIVE,
                "most": BATCH,
            },
        )
        return [row[0] for row in cursor.fetchall()]


@transaction.atomic
def settle(subscription_id: UUID, *, now: datetime, early: bool = False) -> list[VolumeSettlement]:
    """Give back what a subscription's cycles cost less by their volume; gives the rows it wrote.

    Cycles that are over at `now`, the merchant's instant; with `early` the running one too, since a
    change of plan is about to end it. What is used in it after that is settled when it ends.
    """
    waiting = MeterPosition.objects.filter(scope=subscription_id, unsettled=True)
    if not waiting.exists():
        return []
    owner = Subscription.objects.values_list("connection_id", flat=True).get(pk=subscription_id)
    connection = ledger.lock(owner)
    subscription = Subscription.objects.get(pk=subscription_id)
    last = subscription.cycle_index
    if not early and subscription.status in Subscription.CURRENT and subscription.cycle_end > now:
        last -= 1
    made = []
    if connection.status != Connection.Status.DELETED:
        made = [
            _give(connection, subscription, outcome, now=now)
            for outcome in outcomes([subscription_id])
            if outcome.cycle_index <= last
        ]
    waiting.filter(window__lte=last).update(unsettled=False)
    return made


def expected(subscription_ids: Collection[UUID]) -> dict[UUID, Decimal]:
    """What subscriptions would be given back as their usage stands; those with nothing left out.

    Reads no request of those whose counts say it; for the others at most two queries more.
    """
    counted, rest = _by_counts(subscription_ids)
    found: dict[UUID, Decimal] = {}
    for outcome in [*counted, *(outcomes(rest) if rest else ())]:
        if outcome.due:
            found[outcome.subscription_id] = found.get(outcome.subscription_id, ZERO) + outcome.due
    return found


def given(merchant: Merchant, *, start: datetime, end: datetime) -> dict[UUID, Decimal]:
    """What was given back to a merchant's customers in `[start, end)`, by meter."""
    rows = VolumeSettlement.objects.of(merchant).filter(created_at__gte=start, created_at__lt=end)
    return dict(rows.order_by().values_list("meter_id").annotate(total=Sum("amount")))


def is_settled(*, subscription_id: UUID, cycle_index: int, meter_id: UUID) -> bool:
    """Whether something was given back for the volume of a meter in a cycle: all that was counted
    in it, at whatever version of the price, has made the tier."""
    rows = VolumeSettlement.objects.filter(
        subscription_id=subscription_id, cycle_index=cycle_index, meter_id=meter_id, amount__gt=0
    )
    return bool(rows.exists())


def outcomes(subscription_ids: Collection[UUID]) -> list[Outcome]:
    """What each version by volume comes to in the cycles that are not settled, oldest first."""
    with database.cursor() as cursor:
        cursor.execute(_CHARGED, [list(subscription_ids)])
        rows = cursor.fetchall()
    versions = MeterPrice.objects.select_related("meter").in_bulk({row[3] for row in rows})
    found = []
    for subscription_id, window, total, price_id, charged, billed, before in rows:
        price = versions[price_id]
        if price.tier_mode != MeterPrice.TierMode.VOLUME:
            continue
        terms = prices.of(price).price
        tier = pricing.volume_tier(terms, total)
        fee = pricing.volume_fee(terms, billed=billed, total=total)
        found.append(
            Outcome(
                subscription_id=subscription_id,
                cycle_index=window,
                price=price,
                total=total,
                billed=billed,
                tier=tier,
                charged=charged,
                # In the first tier it was charged what it costs, each request rounded for itself.
                fee=fee if tier else charged,
                given=before,
            )
        )
    return sorted(
        found, key=lambda row: (row.cycle_index, str(row.price.meter_id), row.price.version)
    )


def _by_counts(subscription_ids: Collection[UUID]) -> tuple[list[Outcome], set[UUID]]:
    """What the counts alone say, and the subscriptions of which a count does not say it."""
    with database.cursor() as cursor:
        cursor.execute(_COUNTED, [list(subscription_ids)])
        rows = cursor.fetchall()
    versions = MeterPrice.objects.in_bulk({row[3] for row in rows}) if rows else {}
    rest = {row[0] for row in rows if not _says_it(versions.get(row[3]), since=row[4])}
    counted = []
    for subscription_id, window, total, price_id, _, before in rows:
        price = versions[price_id]
        if subscription_id in rest or price.tier_mode != MeterPrice.TierMode.VOLUME:
            continue
        terms = prices.of(price).price
        tier = pricing.volume_tier(terms, total)
        charged = pricing.volume_fee(terms.live, billed=total, total=total)
        counted.append(
            Outcome(
                subscription_id=subscription_id,
                cycle_index=window,
                price=price,
                total=total,
                billed=total,
                tier=tier,
                charged=charged,
                fee=pricing.volume_fee(terms, billed=total, total=total),
                given=before,
            )
        )
    return counted, rest


def _says_it(price: MeterPrice | None, *, since: datetime | None) -> bool:
    """Whether what a cycle's requests were charged follows from how much they counted: one price
    priced them all, bills whatever is counted, and never rounds."""
    if price is None or since is None:
        return False
    if price.version > 1 and price.created_at > since - LONGEST_CALL:
        return False
    if price.free_allowance or price.package_size:
        # What was taken back may have been free, or have begun a package of others.
        return False
    return pricing.is_exact(prices.of(price).price.live)


def _give(
    connection: Connection, subscription: Subscription, outcome: Outcome, *, now: datetime
) -> VolumeSettlement:
    meter = outcome.price.meter
    grant_id = credits.grant(
        connection,
        source=CreditGrant.Source.VOLUME,
        amount=outcome.due,
        now=now,
        reason=_reason(meter, outcome, currency=connection.currency),
        actor=ACTOR,
    )
    row = VolumeSettlement(
        merchant=connection.merchant,
        connection=connection,
        subscription=subscription,
        cycle_index=outcome.cycle_index,
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


def _reason(meter: Meter, outcome: Outcome, *, currency: str) -> str:
    """What was counted and what it costs, for the ledger's line."""
    rate, fee, charged = (
        money.display(amount, currency)
        for amount in (outcome.price.tiers[outcome.tier].rate, outcome.fee, outcome.charged)
    )
    scale = pricing.scale(prices.of(outcome.price).price)
    counted = (outcome.total / scale).quantize(Decimal("0.01"))
    whole = counted.to_integral_value()
    return (
        f"{meter.name}, cycle {outcome.cycle_index + 1}: "
        f"{whole if whole == counted else counted:,f} "
        f"{outcome.price.get_unit_display().lower()}, "
        f"so the rate is {rate}: {fee} instead of {charged}"
    )[:255]
