"""The rows a bench works on: one merchant, a plan, meters, and customers with credits.

Made by the product's own verbs, so that the audit holds from the first row on. The keys of
connections are numbered, so that pgbench can compute them and every side meets the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import connection as database
from django.db import transaction
from django.utils import timezone

from billing import credits, ids, keys, ledger, merchants, subscriptions
from billing import plans as offers
from billing.models import Connection, Customer, Merchant, Plan, User
from meters import prices, pricing
from meters.models import Meter

CHAT = "chat"
DRAW = "draw"
# Above every charge of a run: no side runs dry, and none takes the shorter path of an empty purse.
CREDIT = Decimal(100_000)
# How the rows of customer `n` differ from the first customer's (`crowd`).
COPIED = {
    name: f"(left(r.{name}::text, 28) || lpad(to_hex(n), 8, '0'))::uuid"
    for name in ("id", "customer_id", "connection_id", "subscription_id", "cycle_id", "grant_id")
} | {
    "phone": "'+1415' || lpad(n::text, 7, '0')",
    # They came one behind the other, ten a second.
    **{
        name: f"r.\"{name}\" + n * interval '0.1 s'"
        for name in ("anchor", "cycle_start", "cycle_end", "start", "end")
    },
}


@dataclass(frozen=True)
class Shop:
    """What the sides need to know of it. Connection n has the key `first + n`."""

    merchant: Merchant
    key: str
    first: UUID
    count: int

    def connection(self, number: int) -> UUID:
        return UUID(int=self.first.int + number)

    def public_ids(self) -> list[str]:
        """The connections as clients name them."""
        return [ids.public("con", self.connection(number)) for number in range(self.count)]


def fill(count: int, *, since: datetime | None = None, interval: str = Plan.Interval.MONTH) -> Shop:
    """A merchant with `count` customers on one plan, each third with a bundle besides.

    `since`: when they began, by default a day ago; `interval`: what their cycles are.
    """
    now = since or timezone.now() - timedelta(days=1)
    with transaction.atomic():
        owner = User.objects.create_user("bench@merchant.example", None, name="Bench")
        merchant = merchants.create(name="Bench", owner=owner).live
        plan = offers.create(
            merchant,
            terms=offers.Terms(
                name="Studio",
                price=Decimal(0),
                included_credit=CREDIT,
                billing_interval=interval,
                rollover_type="full",
            ),
            now=now,
        )
        tiers = (("0", "3"), ("10000000", "2"))
        prices.attach(_meter(merchant, slug=CHAT, unit="tokens_1m", tiers=tiers), plan)
        key = keys.make(merchant, name="bench")[1]
        # Room for the numbers below: 32 bits of the random part, zeroed.
        first = UUID(int=ids.new(sandbox=False).int & ~0xFFFFFFFF)
        shop = Shop(merchant=merchant, key=key, first=first, count=count)
        for number in range(count):
            connection = _connection(shop, number)
            subscriptions.open(connection, plan=plan, now=now)
            if number % 3 == 0:
                credits.give(
                    ledger.lock(connection.pk), amount=CREDIT, reason="bench", actor="bench",
                    now=now,
                )  # fmt: skip
    _vacuum()
    return shop


def crowd(count: int, *, since: datetime | None = None) -> Shop:
    """The same with many customers, quickly: the first is made as `fill` makes it, the others are
    copies of its rows with numbers of their own. With `since` their cycles are weeks."""
    shop = fill(1, since=since, interval=Plan.Interval.WEEK if since else Plan.Interval.MONTH)
    first = Connection.objects.get(pk=shop.first)
    subscription = first.subscriptions.get()
    rows = {
        "billing_customer": ("id", first.customer_id),
        "billing_connection": ("id", first.pk),
        "billing_subscription": ("connection_id", first.pk),
        "billing_cycle": ("subscription_id", subscription.pk),
        "billing_creditgrant": ("connection_id", first.pk),
        "billing_ledgerentry": ("connection_id", first.pk),
    }
    with database.cursor() as cursor:
        for table, (column, key) in rows.items():
            cursor.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
                " AND NOT attisdropped AND attgenerated = '' AND attidentity = ''",
                [table],
            )
            names = [name for (name,) in cursor.fetchall()]
            listed = ", ".join(f'"{name}"' for name in names)
            copied = ", ".join(COPIED.get(name, f'r."{name}"') for name in names)
            cursor.execute(
                f"INSERT INTO {table} ({listed}) SELECT {copied} FROM {table} r,"  # noqa: S608
                f" generate_series(1, %s) n WHERE r.{column} = %s",
                [count - 1, key],
            )
    _vacuum()
    return replace(shop, count=count)


def _vacuum() -> None:
    with database.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")


def _connection(shop: Shop, number: int) -> Connection:
    customer = Customer(merchant=shop.merchant, phone=f"+1415{number:07d}")
    customer.save()
    connection = Connection(
        id=shop.connection(number), merchant=shop.merchant, customer=customer, currency="USD"
    )
    connection.save(force_insert=True)
    return connection


def customer_with(shop: Shop, amount: Decimal, *, number: int) -> str:
    """One more customer, on a plan that stops when credits run out; gives the connection's id.

    Its meter `draw` takes 1 a request.
    """
    now = timezone.now() - timedelta(minutes=1)
    with transaction.atomic():
        plan = offers.create(
            shop.merchant,
            terms=offers.Terms(
                name=f"Strict {number}",
                price=Decimal(0),
                included_credit=amount,
                when_depleted=Plan.WhenDepleted.BLOCK,
            ),
            now=now,
        )
        meter = Meter.objects.of(shop.merchant).filter(slug=DRAW).first()
        if meter is None:
            meter = _meter(shop.merchant, slug=DRAW, unit="requests", tiers=(("0", "1"),))
        prices.attach(meter, plan)
        connection = _connection(shop, number)
        subscriptions.open(connection, plan=plan, now=now)
    return connection.public_id


def _meter(
    merchant: Merchant, *, slug: str, unit: str, tiers: tuple[tuple[str, str], ...]
) -> Meter:
    return prices.create_meter(
        merchant,
        slug=slug,
        name=slug.title(),
        terms=prices.Terms(
            tiers=[pricing.Tier(start=Decimal(start), rate=Decimal(rate)) for start, rate in tiers],
            unit=unit,
        ),
        actor="bench",
        now=timezone.now(),
    )
