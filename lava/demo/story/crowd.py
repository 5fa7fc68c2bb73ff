"""The crowd: a great many customers and requests in one sandbox, for measuring the console.

`fill` writes in bulk what the product's verbs would have written one by one: customers on a free
yearly plan, each with a grant that covers all they use, in the order and with the sums the audit
asks for. Only the demo's command calls it, and only when it is told to.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection as database
from django.db import transaction
from django.db.models import NOT_PROVIDED

from billing import ids, ledger, periods, plans
from billing.models import Connection, CreditGrant, Customer, Cycle, Merchant, Plan, Subscription
from lava.demo.story import cast, stage
from meters import prices
from meters.models import UsageRequest

PLAN = "Campus"
# Covers the dearest hundred requests of one customer; the rest stays, a liability.
CREDIT = Decimal(20)
A_CUSTOMER = 100
# Customers written in one transaction.
BATCH = 500
PHONES = "+1555"
FIRST = ("Ada", "Bo", "Cleo", "Dana", "Eli", "Fay", "Gus", "Hana", "Ivo", "June", "Kai", "Lea",
         "Milo", "Nia", "Oto", "Pia", "Quin", "Rui", "Sana", "Theo", "Uma", "Vik", "Wren", "Xenia",
         "Yara", "Zoe")  # fmt: skip
LAST = ("Abbott", "Bauer", "Castro", "Dahl", "Evans", "Fuchs", "Garner", "Holm", "Ibarra", "Jansen",
        "Keller", "Lund", "Moreau", "Novak", "Okafor", "Popov", "Quist", "Ramos", "Sato", "Tanaka",
        "Ueda", "Vance", "Weiss", "Young", "Zeman")  # fmt: skip

# One request a row: who, when, what, in the order of time within its customer. Each stays in the
# first tier of its meter and within its customer's grant, so it has one slice and one draw.
_REQUESTS = """
WITH people AS (
    SELECT c.id AS connection_id, s.id AS subscription_id, g.id AS grant_id, s.started_at
      FROM unnest(%(connections)s::uuid[], %(subscriptions)s::uuid[], %(grants)s::uuid[])
           AS x (c, s, g)
      JOIN billing_connection c ON c.id = x.c
      JOIN billing_subscription s ON s.id = x.s
      JOIN billing_creditgrant g ON g.id = x.g),
thrown AS (
    SELECT p.*, n,
           p.started_at + random() * (%(until)s - p.started_at) AS happened,
           random() < 0.7 AS speaks, random() AS size
      FROM people p, generate_series(1, %(each)s) n),
used AS (
    SELECT t.*, m.id AS meter_id, m.unit,
           CASE WHEN speaks THEN 10 + floor(size * size * 900) ELSE 200 + floor(size * 60000) END
                AS counted,
           row_number() OVER (PARTITION BY t.connection_id ORDER BY happened, n) AS place
      FROM thrown t
      JOIN (SELECT unnest(%(meters)s::uuid[]) AS id, unnest(%(units)s::text[]) AS unit) m
        ON (m.unit = 'minutes') = t.speaks),
priced AS (
    SELECT u.*, v.id AS price_id,
           round(u.counted::numeric * v.tier_rates[1]
                 / CASE u.unit WHEN 'minutes' THEN 60 ELSE 1000000 END, 10) AS fee
      FROM used u
      JOIN LATERAL (
        SELECT id, tier_rates FROM meters_meterprice v
         WHERE v.meter_id = u.meter_id AND v.created_at <= u.happened
         ORDER BY version DESC LIMIT 1) v ON true),
summed AS (
    SELECT p.*,
           sum(fee) OVER (PARTITION BY connection_id ORDER BY place) AS spent,
           sum(counted) OVER (PARTITION BY connection_id, meter_id ORDER BY place) - counted
                AS position
      FROM priced p)
SELECT (lpad(to_hex((extract(epoch FROM happened) * 1000)::bigint), 12, '0') || '8'
        || substr(md5(connection_id::text || n), 1, 19))::uuid AS id,
       connection_id, subscription_id, grant_id, meter_id, price_id, happened, place, unit,
       counted::numeric AS counted, position::numeric AS position, fee, spent
  FROM summed
"""


def fill(built: stage.Stage, *, requests: int, now: datetime, say: Callable[[str], None]) -> None:
    """Add about so many requests, a hundred a customer, to a business's sandbox."""
    merchant = built.merchant
    plan = _plan(built, now=now)
    left = max(requests // A_CUSTOMER, 1)
    number = Customer.objects.of(merchant).filter(phone__startswith=PHONES).count()
    dice = random.Random(f"crowd/{number}")
    done = 0
    while left:
        count = min(left, BATCH)
        with transaction.atomic():
            people = [
                _person(merchant, plan, number + place, dice, now=now) for place in range(count)
            ]
            _save(people)
            _use(built, people, seed=dice.uniform(-1, 1), until=now)
        number, left, done = number + count, left - count, done + count
        say(f"{done * A_CUSTOMER:,} requests of {done:,} customers")
    with database.cursor() as cursor:
        cursor.execute("ANALYZE")


def _plan(built: stage.Stage, *, now: datetime) -> Plan:
    """The crowd's plan, free and yearly, so that nobody's card is asked and no cycle ends."""
    found: Plan | None = Plan.objects.of(built.merchant).filter(name=PLAN).first()
    if found is not None:
        return found
    made = plans.create(
        built.merchant,
        terms=plans.Terms(
            name=PLAN,
            price=Decimal(0),
            included_credit=CREDIT,
            billing_interval=Plan.Interval.YEAR,
            when_depleted=Plan.WhenDepleted.BLOCK,
        ),
        now=built.began,
    )
    for meter in built.meters.values():
        prices.attach(meter, made)
    return made


Person = tuple[Customer, Connection, Subscription, Cycle, CreditGrant]


def _person(
    merchant: Merchant, plan: Plan, number: int, dice: random.Random, *, now: datetime
) -> Person:
    """The rows of one customer who joined at some instant of the story's days."""
    age = dice.uniform(1, cast.DAYS - 1)
    at = now - timedelta(days=age)
    first, last = dice.choice(FIRST), dice.choice(LAST)
    mine: dict[str, Any] = {"merchant": merchant}
    customer = Customer(
        pk=_key(at), phone=f"{PHONES}{number:07d}", first_name=first, last_name=last,
        email=f"{first}.{last}.{number}@campus.example".lower(), created_at=at, **mine,
    )  # fmt: skip
    connection = Connection(
        pk=_key(at), customer=customer, currency=merchant.currency, created_at=at, activated_at=at,
        status=Connection.Status.ACTIVE, **mine,
    )  # fmt: skip
    year = periods.cycle(at, plan.billing_interval, 0, merchant.time_zone)
    subscription = Subscription(
        pk=_key(at), connection=connection, plan=plan, anchor=at, time_zone=merchant.time_zone,
        cycle_start=year.start, cycle_end=year.end, started_at=at, **mine,
    )  # fmt: skip
    cycle = Cycle(
        pk=_key(at), subscription=subscription, plan=plan, anchor=at, place=0,
        time_zone=merchant.time_zone, index=0, start=year.start, end=year.end,
        state=Cycle.State.GRANTED, created_at=at, **mine,
    )  # fmt: skip
    grant = CreditGrant(
        pk=_key(at), connection=connection, pool=CreditGrant.Pool.CYCLE,
        source=CreditGrant.Source.CYCLE, amount=CREDIT, remaining=0, effective_at=at,
        expires_at=year.end, origin_at=at, cycle=cycle, created_at=at, **mine,
    )  # fmt: skip
    return customer, connection, subscription, cycle, grant


def _key(at: datetime) -> Any:
    return ids.new(sandbox=True, at=at)


def _save(people: list[Person]) -> None:
    """The rows, and each grant entered in its ledger."""
    for rows in zip(*people, strict=True):
        type(rows[0]).objects.bulk_create(rows)
    for _, connection, subscription, _, grant in people:
        ledger.append(
            connection, kind="grant", amount=CREDIT, grant_id=grant.pk, now=subscription.started_at
        )


def _use(built: stage.Stage, people: list[Person], *, seed: float, until: datetime) -> None:
    """A hundred requests each, with their ledger lines, positions and sums."""
    meters = list(built.meters.values())
    told: dict[str, Any] = {
        "connections": [connection.pk for _, connection, _, _, _ in people],
        "subscriptions": [subscription.pk for _, _, subscription, _, _ in people],
        "grants": [grant.pk for _, _, _, _, grant in people],
        "meters": [meter.pk for meter in meters],
        "units": [meter.price.unit for meter in meters if meter.price is not None],
        "each": A_CUSTOMER,
        "until": until,
        "merchant": built.merchant.pk,
        "credit": CREDIT,
        "seed": seed,
    }
    with database.cursor() as cursor:
        cursor.execute("SELECT setseed(%(seed)s)", told)
        cursor.execute(f"CREATE TEMP TABLE crowd ON COMMIT DROP AS {_REQUESTS}", told)
        columns, values = _request_columns()
        cursor.execute(
            f"INSERT INTO meters_usagerequest ({columns}) SELECT {values} "  # noqa: S608
            "FROM crowd ORDER BY id",
            told,
        )
        for sql in _AFTER:
            cursor.execute(sql, told)
        cursor.execute("DROP TABLE crowd")


# The columns of a request, out of a row of `crowd`.
_COLUMNS = {
    "id": "id",
    "merchant_id": "%(merchant)s",
    "connection_id": "connection_id",
    "meter_id": "meter_id",
    "price_id": "price_id",
    "subscription_id": "subscription_id",
    "cycle_index": "0",
    "request_id": "'crowd_' || replace(id::text, '-', '')",
    "fingerprint": "sha256(id::text::bytea)",
    "status": "'completed'",
    "model": "CASE unit WHEN 'minutes' THEN 'nova-3' ELSE 'gpt-4.1-mini' END",
    "input_tokens": "CASE unit WHEN 'minutes' THEN 0 ELSE counted END",
    "input_seconds": "CASE unit WHEN 'minutes' THEN counted ELSE 0 END",
    "quantity": "counted",
    "position_before": "position",
    "fee": "fee",
    "slices": "jsonb_build_array(jsonb_build_array(0, counted::text, fee::text))",
    "draws": "jsonb_build_array(jsonb_build_array(grant_id, fee::text))",
    "provider_cost": "round(fee * 0.41, 8)",
    "charged": "fee",
    "cycle_remaining": "%(credit)s - spent",
    "bundle_remaining": "0",
    "debt_after": "0",
    "metadata": '\'{"source": "crowd"}\'',
    "timestamp": "happened",
    "created_at": "happened",
}

_AFTER = (
    """
    INSERT INTO billing_ledgerentry (
        merchant_id, connection_id, seq, kind, amount, balance_after, grant_id, request_id, reason,
        actor, occurred_at)
    SELECT %(merchant)s, connection_id, place + 1, 'usage', -fee, %(credit)s - spent, grant_id, id,
           '', '', happened
      FROM crowd ORDER BY connection_id, place
    """,
    """
    UPDATE billing_connection c
       SET entry_count = 1 + u.lines, balance = %(credit)s - u.spent
      FROM (SELECT connection_id, count(*) AS lines, max(spent) AS spent FROM crowd
             GROUP BY connection_id) u
     WHERE c.id = u.connection_id
    """,
    """
    UPDATE billing_creditgrant g SET remaining = g.amount - u.spent
      FROM (SELECT grant_id, max(spent) AS spent FROM crowd GROUP BY grant_id) u
     WHERE g.id = u.grant_id
    """,
    """
    INSERT INTO meters_meterposition (connection_id, meter_id, scope, "window", quantity, peak)
    SELECT c.connection_id, c.meter_id,
           CASE p.tier_window WHEN 'cycle' THEN c.subscription_id ELSE c.connection_id END,
           CASE p.tier_window WHEN 'cycle' THEN 0 ELSE -1 END, sum(c.counted),
           sum(c.counted)
      FROM crowd c JOIN meters_meterprice p ON p.id = c.price_id
     GROUP BY 1, 2, 3, 4
    """,
)


def _request_columns() -> tuple[str, str]:
    """Columns and expressions of the insert; a column this module does not know has its default."""
    known = dict(_COLUMNS)
    for field in UsageRequest._meta.concrete_fields:
        default = field.default
        if str(field.column) in known or field.null or default is NOT_PROVIDED:
            continue
        value = default() if callable(default) else default
        known[str(field.column)] = f"'{value}'" if isinstance(value, str) else str(value)
    quoted = ", ".join(f'"{name}"' for name in known)
    return quoted, ", ".join(known.values())
