"""Small makers of rows for tests: each makes what its name says, with telling defaults."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from moneyed import Money

from billing import connections, credits, keys, ledger, merchants, subscriptions
from billing.models import (
    Connection,
    CreditBundle,
    Merchant,
    Organization,
    PaymentMethod,
    Plan,
    Subscription,
    User,
)
from meters.models import Meter, MeterPlan, MeterPrice

_numbers = itertools.count(1)

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


def make_user(email: str = "", *, name: str = "Ana Ruiz", password: str = "correct horse") -> User:
    return User.objects.create_user(
        email or f"person-{secrets.token_hex(6)}@merchant.example", password, name=name
    )


def make_organization(name: str = "Northwind Voice", *, owner: User | None = None) -> Organization:
    return merchants.create(name=name, owner=owner or make_user())


def make_merchant(*, sandbox: bool = True, currency: str = "USD", zone: str = "UTC") -> Merchant:
    organization = make_organization()
    merchant = organization.sandbox if sandbox else organization.live
    merchant.currency, merchant.time_zone = currency, zone
    merchant.save()
    return merchant


def make_key(merchant: Merchant) -> str:
    return keys.make(merchant, name="test")[1]


def make_plan(merchant: Merchant, *, price: str = "25", credit: str = "25", **fields: Any) -> Plan:
    values: dict[str, Any] = {
        "name": "Studio",
        "price": Money(price, merchant.currency),
        "included_credit": Decimal(credit),
        "billing_interval": "month",
        "rollover_type": "full",
    }
    plan = Plan(merchant=merchant, **(values | fields))
    plan.save()
    return plan


def make_bundle(plan: Plan, *, cost: str = "10", credit: str = "10") -> CreditBundle:
    bundle = CreditBundle(
        merchant=plan.merchant,
        plan=plan,
        name=f"Pack {cost}",
        cost=Money(cost, plan.currency),
        credit_amount=Decimal(credit),
    )
    bundle.save()
    return bundle


def make_meter(
    merchant: Merchant,
    *plans: Plan,
    slug: str = "chat",
    tiers: Sequence[tuple[str, str]] = (("0", "3"),),
    **terms: Any,
) -> Meter:
    meter = Meter(merchant=merchant, slug=slug, name=slug.title())
    meter.save()
    price = MeterPrice(
        merchant=merchant,
        meter=meter,
        version=1,
        tier_starts=[Decimal(start) for start, _ in tiers],
        tier_rates=[Decimal(rate) for _, rate in tiers],
        **terms,
    )
    price.save()
    meter.price = price
    meter.save()
    for plan in plans:
        MeterPlan.objects.create(merchant=merchant, meter=meter, plan=plan)
    return meter


def make_connection(merchant: Merchant, *, phone: str = "", now: datetime = NOW) -> Connection:
    """A connection whose checkout is complete, without a plan."""
    connection = connections.identify(
        merchant, phone=phone or f"+1415555{next(_numbers) % 10000:04d}", now=now
    )
    with transaction.atomic():
        subscriptions.activate(ledger.lock(connection.pk), now=now)
    connection.refresh_from_db()
    return connection


def make_subscription(
    plan: Plan, *, connection: Connection | None = None, now: datetime = NOW
) -> Subscription:
    """A subscription that began at `now`, its first credits granted; no card was asked."""
    return subscriptions.open(
        connection or make_connection(plan.merchant, now=now), plan=plan, now=now
    )


def make_card(connection: Connection, *, card_id: str = "pm_card_visa") -> PaymentMethod:
    card = PaymentMethod(
        merchant=connection.merchant,
        connection=connection,
        card_id=card_id,
        brand="visa",
        last4="4242",
        exp_month=12,
        exp_year=2031,
    )
    card.save()
    return card


def give(connection: Connection, amount: str, *, now: datetime = NOW) -> None:
    """Credits by hand, without end."""
    with transaction.atomic():
        locked = ledger.lock(connection.pk)
        credits.give(locked, amount=Decimal(amount), reason="test", actor="test", now=now)
