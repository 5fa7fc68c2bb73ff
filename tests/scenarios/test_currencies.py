"""USD, EUR, JPY and KWD from the first payment to the refund: minor units of 2, 0 and 3."""

from __future__ import annotations

from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import call_command
from moneyed import Money

from billing import credits, errors, money, overage, payments, receipts, refunds
from billing.models import LedgerEntry, Payment
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db

# Currency, price and credit, usage past it, what the card pays of that, its minor units, the price
# of a bundle, a part of it that goes back, how the price reads.
CASES = [
    ("USD", "25", "12.345678", "12.34", 1234, "10", "3.33", "$25.00"),
    ("EUR", "25", "12.345678", "12.34", 1234, "10", "3.33", "€25.00"),
    ("JPY", "2500", "1234.567891", "1234", 1234, "1000", "333", "¥2,500"),
    ("KWD", "7.5", "12.345678", "12.340", 12340, "3", "1.230", "KWD\u00a07.500"),
]


@pytest.mark.parametrize(
    ("currency", "price", "past", "charged", "minor", "cost", "part", "shown"),
    CASES,
    ids=[case[0] for case in CASES],
)
def test_a_life_in_one_currency(
    card_network: CardNetwork,
    currency: str,
    price: str,
    past: str,
    charged: str,
    minor: int,
    cost: str,
    part: str,
    shown: str,
) -> None:
    shop = cn.Shop(
        currency=currency,
        price=price,
        credit=price,
        overage_threshold=money.minimum_charge(currency),
    )
    connection = shop.subscribe()
    customer = connection.customer
    customer.email = "mara@tallgrass.example"
    customer.save()
    first = Payment.objects.get()
    assert receipts.amount(first) == shown
    shop.use(connection, "r1", f"{Decimal(price) + Decimal(past):f}")
    paid = overage.collect(connection.pk, now=shop.now)
    assert paid is not None and paid.status == "succeeded"
    assert (paid.amount.amount, str(paid.amount.currency)) == (Decimal(charged), currency)
    connection.refresh_from_db()
    # Fees owed = charged + carried, to the last digit.
    assert connection.debt == Decimal(past) - Decimal(charged)

    bundle = factories.make_bundle(shop.plan, cost=cost, credit=cost)
    bought = cn.buy(connection, bundle, now=shop.now)
    assert bought.status == "succeeded"
    row = refunds.refund(
        bought, amount=Money(part, currency), reason="x", actor="Ana", key="k", now=shop.now
    )
    assert row.status == "succeeded" and row.credits_taken == Decimal(part)
    given = money.to_minor(Money(part, currency))
    assert cn.given_back(shop.merchant) == [(bought.intent_id, given, currency)]

    shop.renew(connection)
    assert credits.balance(connection, now=shop.now).debt == 0
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)
    assert (paid.public_id, minor, currency) in cn.taken(shop.merchant)
    charged_sum = sum(
        line.amount
        for line in LedgerEntry.objects.filter(connection=connection, kind="overage_charged")
    )
    assert charged_sum == Decimal(charged)
    out = StringIO()
    call_command("reconcile", stdout=out)
    assert out.getvalue() == ""


@pytest.mark.parametrize("currency", ["JPY", "KWD"])
def test_a_refund_finer_than_the_card_can_get_is_refused(
    card_network: CardNetwork, currency: str
) -> None:
    shop = cn.Shop(currency=currency, price="7000", credit="7000")
    connection = shop.subscribe()
    payment = Payment.objects.get(connection=connection)
    finer = "0.5" if currency == "JPY" else "1.235"
    with pytest.raises(errors.Invalid) as refusal:
        refunds.refund(
            payment, amount=Money(finer, currency), reason="x", actor="Ana", key="k", now=shop.now
        )
    assert refusal.value.param == "amount"


def test_one_connection_has_one_currency(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    with pytest.raises(errors.Invalid) as refusal:
        payments.intend(
            connection,
            purpose=Payment.Purpose.BUNDLE,
            amount=Money(10, "EUR"),
            key="x",
            now=shop.now,
        )
    assert refusal.value.param == "currency"
    payment = Payment.objects.get(connection=connection)
    with pytest.raises(errors.Invalid):
        refunds.refund(
            payment, amount=Money(10, "JPY"), reason="x", actor="Ana", key="k", now=shop.now
        )
    assert Payment.objects.count() == 1


def test_yen_under_the_least_charge_are_carried(card_network: CardNetwork) -> None:
    shop = cn.Shop(currency="JPY", price="2500", credit="2500", overage_threshold=Decimal(1))
    connection = shop.subscribe()
    shop.use(connection, "r1", "2549.9")
    assert overage.collect(connection.pk, now=shop.now) is None
    shop.use(connection, "r2", "0.6")
    paid = overage.collect(connection.pk, now=shop.now)
    assert paid is not None and paid.amount.amount == 50
    connection.refresh_from_db()
    assert connection.debt == Decimal("0.5")
