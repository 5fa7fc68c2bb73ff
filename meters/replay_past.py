"""What customers used, bought and got back in a time that is replayed, by cycle.

Usage comes from the sums of quarters of an hour (`meters.rollups`), at the time the work was done;
requests are read one by one only of those customers whom a limit may stop, and only so many. Called
by `meters.replay_plans` alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection as database
from django.db.models import Min, Sum

from billing import errors, ids
from billing.models import Merchant, Payment, Subscription
from meters.models import VolumeSettlement

ZERO = Decimal(0)
# Requests that are gone through one by one, of all customers together.
MOST_REQUESTS = 300_000
# Work may be said to have been done so long after it was reported.
_AHEAD = timedelta(minutes=10)


@dataclass(slots=True)
class Use:
    """The requests of a cycle of one customer, added up."""

    charged: Decimal = ZERO
    cost: Decimal = ZERO
    count: int = 0
    # What was charged where nobody said what the provider takes.
    without_cost: Decimal = ZERO
    # Requests of meters that the plan lacks.
    off_plan: int = 0


@dataclass(slots=True)
class Past:
    """What really happened, by (connection, cycle)."""

    uses: dict[tuple[UUID, int], Use] = field(default_factory=dict)
    bought: dict[tuple[UUID, int], list[tuple[UUID, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    given_back: dict[tuple[UUID, int], Decimal] = field(
        default_factory=lambda: defaultdict(Decimal)
    )
    # Request by request, only of those customers whom a limit may stop.
    rows: dict[tuple[UUID, int], list[tuple[Decimal, Decimal | None]]] = field(
        default_factory=lambda: defaultdict(list)
    )


_SUMS = """
SELECT connection_id, width_bucket(bucket, %(starts)s::timestamptz[]) - 1,
       COALESCE(sum(charged) FILTER (WHERE meter_id = ANY(%(meters)s)), 0),
       COALESCE(sum(provider_cost) FILTER (WHERE meter_id = ANY(%(meters)s)), 0),
       COALESCE(sum(requests) FILTER (WHERE meter_id = ANY(%(meters)s)), 0)::bigint,
       COALESCE(sum(charged - costed) FILTER (WHERE meter_id = ANY(%(meters)s)), 0),
       COALESCE(sum(requests) FILTER (WHERE NOT meter_id = ANY(%(meters)s)), 0)::bigint
  FROM (SELECT connection_id, meter_id, bucket, requests, charged, provider_cost, costed
          FROM meters_connectionusage
         WHERE merchant_id = %(merchant)s AND connection_id = ANY(%(people)s)
           AND bucket >= %(since)s AND bucket < %(until)s
        UNION ALL
        SELECT connection_id, meter_id, bucket, requests, charged, provider_cost, costed
          FROM meters_usagedelta
         WHERE merchant_id = %(merchant)s AND connection_id = ANY(%(people)s)
           AND bucket >= %(since)s AND bucket < %(until)s) u
 GROUP BY 1, 2
"""
_ROWS = """
SELECT connection_id, width_bucket("timestamp", %(starts)s::timestamptz[]) - 1, charged,
       provider_cost
  FROM meters_usagerequest
 WHERE merchant_id = %(merchant)s AND id >= %(first)s AND status = 'completed'
   AND "timestamp" >= %(since)s AND "timestamp" < %(until)s AND connection_id = ANY(%(people)s)
   AND meter_id = ANY(%(meters)s)
 ORDER BY id LIMIT %(most)s
"""


def joined(merchant: Merchant, people: Collection[UUID]) -> dict[UUID, datetime]:
    """When each first had a plan."""
    rows = Subscription.objects.of(merchant).filter(connection__in=people).order_by()
    return dict(rows.values_list("connection_id").annotate(Min("started_at")))


def read(
    merchant: Merchant,
    *,
    people: Sequence[UUID],
    meters: Collection[UUID],
    starts: Sequence[datetime],
    until: datetime,
    may_be_stopped: Callable[[Past], Collection[UUID]],
) -> Past:
    """What `people` used of `meters`, bought and got back in the cycles that begin at `starts`, the
    last one up to `until`; all of them beginnings of quarters of an hour.

    `may_be_stopped`: of whom the requests are needed one by one, told what they come to.

    Raises:
        billing.errors.Invalid: more than `MOST_REQUESTS` would have to be gone through.
    """
    past = Past()
    params: dict[str, Any] = {
        "merchant": merchant.pk,
        "meters": list(meters),
        "people": list(people),
        "starts": list(starts),
        "since": starts[0],
        "until": until,
        # Keys are ordered by real time, which a sandbox's clock runs ahead of.
        "first": ids.first(starts[0] - merchant.clock_offset - _AHEAD),
        "most": MOST_REQUESTS + 1,
    }
    _read_money(past, merchant, people=people, meters=meters, starts=starts, until=until)
    with database.cursor() as cursor:
        cursor.execute(_SUMS, params)
        for person, number, *sums in cursor.fetchall():
            past.uses[person, number] = Use(*sums)
        stopped = may_be_stopped(past)
        if stopped:
            cursor.execute(_ROWS, params | {"people": list(stopped)})
            rows = cursor.fetchall()
            if len(rows) > MOST_REQUESTS:
                raise errors.Invalid(
                    f"A limit may stop {len(stopped):,} customers with more than "
                    f"{MOST_REQUESTS:,} requests, which would be gone through one by one: try it "
                    "on fewer months, or on some customers.",
                    param="people",
                )
            for person, number, charged, cost in rows:
                past.rows[person, number].append((charged, cost))
    return past


def _read_money(
    past: Past,
    merchant: Merchant,
    *,
    people: Sequence[UUID],
    meters: Collection[UUID],
    starts: Sequence[datetime],
    until: datetime,
) -> None:
    """Bundles that were bought, and what came back by volume."""
    bought = (
        Payment.objects.of(merchant)
        .filter(
            connection__in=people,
            bundle__isnull=False,
            status=Payment.Status.SUCCEEDED,
            settled_at__gte=starts[0],
            settled_at__lt=until,
            refunded=0,
        )
        .values("connection_id", "bundle_id", "settled_at")
        .annotate(packs=Sum("quantity"))
        .order_by("settled_at", "bundle_id")
    )
    for row in bought:
        key = row["connection_id"], _place(starts, row["settled_at"])
        past.bought[key].append((row["bundle_id"], row["packs"]))
    settled = VolumeSettlement.objects.of(merchant).filter(
        connection__in=people, meter__in=meters, created_at__gte=starts[0], created_at__lt=until
    )
    for person, at, amount in settled.values_list("connection_id", "created_at", "amount"):
        past.given_back[person, _place(starts, at)] += amount


def _place(starts: Sequence[datetime], at: datetime) -> int:
    """The number of the cycle that an instant lies in."""
    return sum(1 for start in starts if start <= at) - 1
