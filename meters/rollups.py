"""Usage added up, to the last digit at any moment: behind `GET /v1/usage` and the console's pages.

Whole quarters of an hour come from the sums and from what is not summed yet, the edges of a span
from the requests; all in one statement, so in one snapshot (`meters/sql/rollups.sql`). Filters by
metadata, and offsets that are no whole quarters, read the requests themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from django.db import connection as database

from billing.models import Merchant

BUCKET = timedelta(minutes=15)
# So many days are summed together besides each alone.
LONG = 8
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Sums:
    """What requests add up to."""

    requests: int = 0
    tokens: int = 0
    characters: int = 0
    seconds: Decimal = Decimal(0)
    provider_cost: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)
    charged: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the span, or what of it lies in the span."""

    date: date
    start: datetime
    end: datetime
    sums: Sums


def total(parts: Iterable[Sums]) -> Sums:
    """The sum of sums."""
    found = Sums()
    for part in parts:
        found = Sums(
            requests=found.requests + part.requests,
            tokens=found.tokens + part.tokens,
            characters=found.characters + part.characters,
            seconds=found.seconds + part.seconds,
            provider_cost=found.provider_cost + part.provider_cost,
            fee=found.fee + part.fee,
            charged=found.charged + part.charged,
        )
    return found


def compact() -> int:
    """Move what was noted into the sums; gives how much. Safe to run at any time and twice."""
    with database.cursor() as cursor:
        cursor.execute("SELECT meters_compact()")
        return int(cursor.fetchone()[0])


def by_day(
    merchant: Merchant,
    *,
    start: datetime,
    end: datetime,
    connection: UUID | None = None,
    meter: UUID | None = None,
    metadata: Sequence[tuple[str, str]] = (),
) -> list[Day]:
    """The usage of `[start, end)`, for each day as the UTC offset of `start` has it."""
    offset = start.utcoffset() or timedelta(0)
    sums = _sums(
        merchant.pk,
        start=start,
        end=end,
        offset=offset,
        connection=connection,
        meter=meter,
        metadata=metadata,
    )
    days = []
    since = start
    while since < end:
        local = since.astimezone(start.tzinfo)
        midnight = datetime.combine(local.date(), datetime.min.time(), start.tzinfo)
        until = min(midnight + timedelta(days=1), end)
        days.append(Day(local.date(), since, until, sums.get(local.date(), Sums())))
        since = until
    return days


@dataclass(frozen=True, slots=True)
class MeterDay:
    """What a meter counted on a local day."""

    meter_id: UUID
    date: date
    sums: Sums
    # What was charged for the requests with a provider's cost.
    costed: Decimal


_BY_METER = """
SELECT u.meter_id, (u.at AT TIME ZONE %(zone)s)::date, sum(u.requests), sum(u.tokens),
       sum(u.characters), sum(u.seconds), sum(u.provider_cost), sum(u.fee), sum(u.charged),
       sum(u.costed)
  FROM (SELECT meter_id, bucket AS at, requests, tokens, characters, seconds, provider_cost, fee,
               charged, costed
          FROM meters_merchantusage
         WHERE merchant_id = %(merchant)s AND bucket >= %(start)s AND bucket < %(end)s
        UNION ALL
        SELECT meter_id, bucket, requests, tokens, characters, seconds, provider_cost, fee,
               charged, costed
          FROM meters_usagedelta
         WHERE merchant_id = %(merchant)s AND bucket >= %(start)s AND bucket < %(end)s) u
 GROUP BY 1, 2
"""


def by_meter(merchant: Merchant, *, start: datetime, end: datetime, zone: str) -> list[MeterDay]:
    """The usage of each meter by local day, in whole quarters of an hour: `start` and `end` are
    beginnings of local days, which every zone has at one. One statement, so one snapshot."""
    with database.cursor() as cursor:
        cursor.execute(
            _BY_METER, {"merchant": merchant.pk, "start": start, "end": end, "zone": zone}
        )
        return [
            MeterDay(meter, day, _read(rest[:-1]), rest[-1])
            for meter, day, *rest in cursor.fetchall()
            if rest[0]
        ]


@dataclass(frozen=True, slots=True)
class Model:
    """What was used of a provider's model: charged, the part of it with a known cost, that cost."""

    name: str
    requests: int
    charged: Decimal
    costed: Decimal
    cost: Decimal


_BY_MODEL = """
SELECT u.model, sum(u.requests), sum(u.charged), sum(u.costed), sum(u.provider_cost)
  FROM (SELECT model, requests, charged, costed, provider_cost FROM meters_modelusage
         WHERE merchant_id = %(merchant)s AND bucket >= %(start)s AND bucket < %(end)s
        UNION ALL
        SELECT model, requests, charged, costed, provider_cost FROM meters_usagedelta
         WHERE merchant_id = %(merchant)s AND bucket >= %(start)s AND bucket < %(end)s) u
 GROUP BY 1 HAVING sum(u.requests) > 0 ORDER BY 3 DESC, 1 LIMIT %(most)s
"""


def by_model(merchant: Merchant, *, start: datetime, end: datetime, most: int) -> list[Model]:
    """The usage of each provider's model between beginnings of quarters of an hour, the largest
    first."""
    with database.cursor() as cursor:
        cursor.execute(
            _BY_MODEL, {"merchant": merchant.pk, "start": start, "end": end, "most": most}
        )
        return [Model(name, int(count), *rest) for name, count, *rest in cursor.fetchall()]


# What each connection used on whole local days, for the statements of others: a row of
# (connection_id, charged, costed, cost). Its parameters are those of `of_days`.
BY_CONNECTION = """
SELECT connection_id, sum(charged) AS charged, sum(costed) AS costed, sum(provider_cost) AS cost
  FROM (SELECT connection_id, charged, costed, provider_cost FROM meters_dayusage
         WHERE merchant_id = %(merchant)s AND span = 8 AND day = ANY (%(eights)s::date[])
        UNION ALL
        SELECT connection_id, charged, costed, provider_cost FROM meters_dayusage
         WHERE merchant_id = %(merchant)s AND span = 1 AND day = ANY (%(ones)s::date[])
        UNION ALL
        SELECT connection_id, charged, costed, provider_cost FROM meters_usagedelta
         WHERE merchant_id = %(merchant)s AND bucket >= %(start)s AND bucket < %(end)s) u
 GROUP BY 1
"""


def of_days(merchant: Merchant, *, first: date, last: date) -> dict[str, Any]:
    """The parameters of `BY_CONNECTION` for local days of the merchant, both included."""
    zone = ZoneInfo(merchant.time_zone)
    after = last + timedelta(days=1)
    ones: list[date] = []
    eights: list[date] = []
    day = first
    while day < after:
        whole = (day - _EPOCH.date()).days % LONG == 0 and day + timedelta(days=LONG) <= after
        (eights if whole else ones).append(day)
        day += timedelta(days=LONG if whole else 1)
    return {
        "merchant": merchant.pk,
        "ones": ones,
        "eights": eights,
        "start": datetime.combine(first, datetime.min.time(), zone),
        "end": datetime.combine(after, datetime.min.time(), zone),
    }


# Both tables of sums, the deltas and the requests, each as (moment, what is added up).
_ADDED = "sum({0}requests), sum({0}tokens), sum({0}characters), sum({0}seconds), " + (
    "sum({0}provider_cost), sum({0}fee), sum({0}charged)"
)
_NAMES = "requests, tokens, characters, seconds, provider_cost, fee, charged"
_RAW = """
    SELECT r."timestamp" AS at, 1 AS requests, r.input_tokens + r.output_tokens AS tokens,
           r.input_characters + r.output_characters AS characters,
           r.input_seconds + r.output_seconds AS seconds,
           COALESCE(r.provider_cost, 0) AS provider_cost, r.fee, r.charged
      FROM meters_usagerequest r
     WHERE r.merchant_id = %(merchant)s AND r.status = 'completed'
"""


def _sums(
    merchant: UUID,
    *,
    start: datetime,
    end: datetime,
    offset: timedelta,
    connection: UUID | None,
    meter: UUID | None,
    metadata: Sequence[tuple[str, str]],
) -> dict[date, Sums]:
    """The sums by local day, in one statement."""
    first = _EPOCH - (_EPOCH - start) // BUCKET * BUCKET
    last = _EPOCH + (end - _EPOCH) // BUCKET * BUCKET
    params: dict[str, Any] = {
        "merchant": merchant,
        "start": start,
        "end": end,
        "first": first,
        "last": last,
        "offset": offset,
        "connection": connection,
        "meter": meter,
    }
    narrow = ""
    if connection is not None:
        narrow += " AND connection_id = %(connection)s"
    if meter is not None:
        narrow += " AND meter_id = %(meter)s"
    raw = _RAW + narrow
    for number, (key, value) in enumerate(metadata):
        raw += f" AND r.metadata @> %(pair{number})s::jsonb"
        params[f"pair{number}"] = orjson.dumps({key: value}).decode()
    if metadata or offset % BUCKET or first >= last:
        source = f'{raw} AND r."timestamp" >= %(start)s AND r."timestamp" < %(end)s'
    else:
        table = "meters_merchantusage" if connection is None else "meters_connectionusage"
        span = "merchant_id = %(merchant)s AND bucket >= %(first)s AND bucket < %(last)s"
        parts = [
            f"SELECT bucket AS at, {_NAMES} FROM {name} WHERE {span}{narrow}"  # noqa: S608
            for name in (table, "meters_usagedelta")
        ]
        if start < first:
            parts.append(f'{raw} AND r."timestamp" >= %(start)s AND r."timestamp" < %(first)s')
        if last < end:
            parts.append(f'{raw} AND r."timestamp" >= %(last)s AND r."timestamp" < %(end)s')
        source = " UNION ALL ".join(parts)
    with database.cursor() as cursor:
        cursor.execute(
            f"SELECT ((u.at AT TIME ZONE 'UTC') + %(offset)s)::date, {_ADDED.format('u.')} "  # noqa: S608
            f"FROM ({source}) u GROUP BY 1",
            params,
        )
        return {row[0]: _read(row[1:]) for row in cursor.fetchall()}


def _read(row: Sequence[Any]) -> Sums:
    requests, tokens, characters, *amounts = row
    return Sums(int(requests), int(tokens), int(characters), *amounts)
