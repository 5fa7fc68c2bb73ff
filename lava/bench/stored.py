"""`bench stored`: charges, and what is read, with many requests in the database (speed.md, goal 4).

Two databases of one cluster hold the same merchant and customers: one is empty but for them, the
other holds `--requests` requests of the last ninety days, with their keys, ledger lines, positions
and sums, written in bulk so that the audit would hold. The same charges go to both, by turns; then
the full one is asked for usage, a balance and pages of the console.
"""

from __future__ import annotations

import http.client
import statistics
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from django.db import connection
from django.test import Client
from django.utils import timezone

from billing.models import Connection, CreditGrant, Plan, User
from lava.bench import books, requests, shop, sides
from lava.bench.options import Options, Say
from lava.console.middleware import MODE
from lava.postgres import cluster
from meters import rollups
from meters.models import Meter

EMPTY = "lava_empty"
DAYS = 90
# Written in one transaction.
CHUNK = 250_000
# What each stored request used, and what it cost at the first tier's rate.
TOKENS, FEE = 100, Decimal("0.0003")
# Beyond this, reading every row for the audit takes longer than everything else.
AUDITED = 1_000_000
ASKED = 30
MOST_MS = {"console": 100, "usage": 50}
PAGES = {
    "the console's first page": "/console/",
    "its requests": "/console/requests/",
    "its connections": "/console/connections/",
}

_BULK = """
CREATE TEMP TABLE bulk ON COMMIT DROP AS
SELECT (lpad(to_hex((extract(epoch FROM w.at) * 1000)::bigint), 12, '0')
        || lpad(to_hex(n), 20, '0'))::uuid AS id,
       n, w.at, n / %(count)s AS place, p.*
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
  JOIN bench_people p ON p.number = n %% %(count)s
 CROSS JOIN LATERAL (SELECT %(since)s::timestamptz + n * %(step)s::interval AS at) w
"""
_WRITES = (
    """
    INSERT INTO meters_usagerequest (
        id, merchant_id, connection_id, meter_id, price_id, subscription_id, cycle_index,
        request_id, fingerprint, status, model, input_tokens, output_tokens, input_characters,
        output_characters, input_seconds, output_seconds, quantity, position_before, fee, slices,
        draws, charged, cycle_remaining, bundle_remaining, debt_after, late, metadata, "timestamp",
        created_at)
    SELECT id, %(merchant)s, connection_id, %(meter)s, %(price)s, subscription_id, 0,
           'bulk-' || n, sha256(n::text::bytea), 'completed', '', %(tokens)s, 0, 0, 0, 0, 0,
           %(tokens)s, place * %(tokens)s, %(fee)s,
           jsonb_build_array(jsonb_build_array(0, %(tokens)s::text, %(fee)s::numeric::text)),
           jsonb_build_array(jsonb_build_array(grant_id, %(fee)s::numeric::text)),
           %(fee)s, credit - (place + 1) * %(fee)s, bundle, 0, false, '{}', at, at
      FROM bulk ORDER BY id
    """,
    """
    INSERT INTO meters_requestkey (merchant_id, request_id, "row")
    SELECT %(merchant)s, 'bulk-' || n, id FROM bulk ORDER BY id
    """,
    """
    INSERT INTO billing_ledgerentry (
        merchant_id, connection_id, seq, kind, amount, balance_after, grant_id, request_id, reason,
        actor, occurred_at)
    SELECT %(merchant)s, connection_id, lines + place + 1, 'usage', -%(fee)s,
           balance - (place + 1) * %(fee)s, grant_id, id, '', '', at
      FROM bulk ORDER BY id
    """,
    """
    INSERT INTO meters_usagedelta (merchant_id, connection_id, meter_id, model, bucket, requests,
        tokens, characters, seconds, provider_cost, fee, charged, costed)
    SELECT %(merchant)s, connection_id, %(meter)s, '', meters_bucket(at), count(*),
           count(*) * %(tokens)s, 0, 0, 0, count(*) * %(fee)s, count(*) * %(fee)s, 0
      FROM bulk GROUP BY connection_id, meters_bucket(at)
    """,
    "DROP TABLE bulk",
)
# What a connection's row, its grant and its position say after all of them.
_HEADS = (
    """
    UPDATE billing_connection c
       SET entry_count = p.lines + p.many, balance = p.balance - p.many * %(fee)s
      FROM bench_people p WHERE c.id = p.connection_id
    """,
    """
    UPDATE billing_creditgrant g SET remaining = g.remaining - p.many * %(fee)s
      FROM bench_people p WHERE g.id = p.grant_id
    """,
    """
    INSERT INTO meters_meterposition (
        connection_id, meter_id, scope, "window", quantity, peak, unsettled)
    SELECT connection_id, %(meter)s,
           CASE %(window)s WHEN 'cycle' THEN subscription_id ELSE connection_id END,
           CASE %(window)s WHEN 'cycle' THEN 0 ELSE -1 END,
           many * %(tokens)s, many * %(tokens)s, false
      FROM bench_people
    """,
)


def run(*, database: int, options: Options, say: Say) -> dict[str, Any]:
    """Fill one of the two, charge in both, read from the full one."""
    now = timezone.now()
    since = now - timedelta(days=DAYS)
    place = shop.fill(options.connections, since=since, interval=Plan.Interval.YEAR)
    _copy_empty()
    fill(place, requests=options.requests, since=since, until=now, say=say)
    sides_of = {
        "empty": sides.product(place, database=database, named=EMPTY),
        "stored": sides.product(place, database=database),
    }
    samples: dict[str, list[sides.Sample]] = {name: [] for name in sides_of}
    acknowledged = options.requests
    try:
        for number in range(options.rounds):
            for name in list(sides_of)[:: 1 if number % 2 == 0 else -1]:
                sample = sides_of[name].run(
                    f"{name}-{number}-", seconds=options.seconds, clients=options.clients
                )
                samples[name].append(sample)
                acknowledged += sample.acknowledged if name == "stored" else 0
                say(f"round {number + 1} {name:<7}{sample.per_s:8.0f} req/s")
        balances = sides_of["stored"].run(
            "read-",
            seconds=options.seconds,
            clients=options.clients,
            reads="/v1/connections/{}/balance",
        )
        asked = _asked(sides_of["stored"], now)
    finally:
        for side in sides_of.values():
            side.stop()
    asked |= _pages(place)
    found = books.read(audited=options.requests <= AUDITED)
    refused = sum(sample.refused for rows in samples.values() for sample in rows)
    refused += balances.refused
    return {
        "requests": options.requests,
        "sides": {name: requests.summary(rows) for name, rows in samples.items()},
        "ratios": {
            "stored_rate_of_empty": requests.ratio(samples["stored"], samples["empty"], "per_s"),
            "stored_cpu_of_empty": requests.ratio(
                samples["stored"], samples["empty"], "product_us"
            ),
        },
        "asked_ms": asked,
        "balance": _plan_of_a_balance(place),
        "balances": asdict(balances),
        "bytes": _bytes(),
        "refused": refused,
        "books": [asdict(found)],
        "correct": refused == 0 and found.hold(acknowledged=acknowledged),
    }


def _as_superuser(database: str = "lava") -> psycopg.Connection[Any]:
    """A connection that writes without triggers: keys and notes are written in sets, as a batch
    does, and what rows refer to is there."""
    params = connection.get_connection_params()
    return psycopg.connect(
        host=params["host"], port=params["port"], user=cluster.SUPERUSER, dbname=database,
        autocommit=True, options="-c session_replication_role=replica -c timezone=UTC",
    )  # fmt: skip


def _copy_empty() -> None:
    """The second database: as the first is before it is filled."""
    connection.close()
    with _as_superuser("postgres") as link:
        link.execute(f"CREATE DATABASE {EMPTY} TEMPLATE lava OWNER lava_owner")


def fill(place: shop.Shop, *, requests: int, since: datetime, until: datetime, say: Say) -> None:
    """Write so many requests of the shop's customers, evenly over the time, in its order."""
    meter = Meter.objects.of(place.merchant).select_related("price").get(slug=shop.CHAT)
    assert meter.price is not None
    told: dict[str, Any] = {
        "merchant": place.merchant.pk, "meter": meter.pk, "price": meter.price_id,
        "window": meter.price.tier_window,
        "tokens": TOKENS, "fee": FEE, "count": place.count, "since": since,
        "step": (until - since) / (requests + 1),
    }  # fmt: skip
    _people(place, requests=requests)
    with _as_superuser() as link:
        for first in range(0, requests, CHUNK):
            last = min(first + CHUNK, requests) - 1
            since_s = time.monotonic()
            with link.transaction():
                link.execute(_BULK, told | {"first": first, "last": last})
                link.execute("ANALYZE bulk")
                for sql in _WRITES:
                    link.execute(sql, told)
            rollups.compact()
            say(f"stored {last + 1:,} ({time.monotonic() - since_s:.1f} s)")
        with link.transaction():
            for sql in _HEADS:
                link.execute(sql, told)
        link.execute("DROP TABLE bench_people")
        link.execute("VACUUM (ANALYZE)")


def _people(place: shop.Shop, *, requests: int) -> None:
    """The customers by number, as they stood before."""
    first = {
        grant.connection_id: grant.pk
        for grant in CreditGrant.objects.filter(source=CreditGrant.Source.CYCLE)
    }
    rows = []
    for number in range(place.count):
        key = place.connection(number)
        rows.append((number, key, first[key], len(range(number, requests, place.count))))
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE bench_people AS"
            " SELECT x.number, x.connection_id, x.grant_id, x.many, s.id AS subscription_id,"
            "        c.entry_count AS lines, c.balance, g.remaining AS credit,"
            "        c.balance - g.remaining AS bundle"
            "   FROM unnest(%s::int[], %s::uuid[], %s::uuid[], %s::int[])"
            "        AS x (number, connection_id, grant_id, many)"
            "   JOIN billing_connection c ON c.id = x.connection_id"
            "   JOIN billing_creditgrant g ON g.id = x.grant_id"
            "   JOIN billing_subscription s ON s.connection_id = c.id",
            [list(column) for column in zip(*rows, strict=True)],
        )
        cursor.execute("ANALYZE bench_people")


def _asked(web: sides.Web, now: datetime) -> dict[str, float]:
    """How long the API takes for what backends read, by one client: medians in milliseconds."""
    since = (now - timedelta(days=DAYS - 1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    one = web.shop.public_ids()[0]
    paths = {
        "usage of 90 days": f"/v1/usage?start={since}",
        "usage of 90 days, one customer": f"/v1/usage?start={since}&connection_id={one}",
        "a connection with its balance": f"/v1/connections/{one}",
        "a page of requests": "/v1/requests?limit=50",
    }
    line = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
    headers = {"authorization": f"Bearer {web.shop.key}"}

    def ask(path: str) -> None:
        line.request("GET", path, headers=headers)
        answer = line.getresponse()
        answer.read()
        assert answer.status == 200, (path, answer.status)

    try:
        return {words: _median_ms(lambda path=path: ask(path)) for words, path in paths.items()}
    finally:
        line.close()


def _pages(place: shop.Shop) -> dict[str, float]:
    """The same of pages of the console, within this process."""
    owner = User.objects.get(memberships__organization=place.merchant.organization)
    client = Client()
    client.force_login(owner, backend="billing.tenancy.RoleBackend")
    session = client.session
    session[MODE] = "live"
    session.save()

    def ask(path: str) -> None:
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)

    return {words: _median_ms(lambda path=path: ask(path)) for words, path in PAGES.items()}


def _median_ms(ask: Any) -> float:
    ask()
    taken = []
    for _ in range(ASKED):
        since = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - since) * 1000)
    return statistics.median(taken)


def _plan_of_a_balance(place: shop.Shop) -> str:
    """How the database finds a balance: the top line of its plan."""
    key: UUID = place.connection(place.count // 2)
    return Connection.objects.filter(pk=key).values("balance").explain().splitlines()[0]


def _bytes() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def table(facts: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    lines = ["| requests stored | req/s | service, us | p50, ms | p99, ms | noise |"]
    lines.append("|---|---|---|---|---|---|")
    for name, words in (("empty", "none"), ("stored", f"{facts['requests']:,}")):
        side = facts["sides"][name]
        of = side["median"]
        lines.append(
            f"| {words} | {of['per_s']:,.0f} | {of['product_us']:,.0f} | {of['p50_ms']:.1f} "
            f"| {of['p99_ms']:.1f} | {side['noise']['per_s']:.0%} |"
        )
    last = facts["books"][-1]
    kept = "hold" if facts["correct"] else f"WRONG: {last}"
    return [
        *lines,
        "",
        f"- {facts['ratios']['stored_rate_of_empty']:.0%} of the empty speed (goal: 95 %), at "
        f"{facts['ratios']['stored_cpu_of_empty']:.2f} x its CPU",
        "- read, in the middle, ms: "
        + "; ".join(f"{words} {taken:.1f}" for words, taken in facts["asked_ms"].items())
        + f" (goals: usage {MOST_MS['usage']}, a page {MOST_MS['console']})",
        f"- a balance: {facts['balance']}",
        f"- balances read: {facts['balances']['per_s']:,.0f}/s, p50 "
        f"{facts['balances']['p50_ms']:.1f} ms, p99 {facts['balances']['p99_ms']:.1f} ms",
        f"- {facts['bytes'] / 1e9:.1f} GB; {last['rows']:,} requests; fees = draws = "
        f"{last['charged']}; the books {kept}",
    ]
