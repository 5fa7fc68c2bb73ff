"""Reconcile: every kind of gap between the books and the card network is named and has its mend."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from moneyed import Money

from billing import cards, credits, overage, payments, reconcile, refunds, stripe
from billing.models import Connection, Payment, Refund
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


def run(*flags: str) -> tuple[int, str]:
    """`manage.py reconcile`: exit status and what it wrote."""
    out = StringIO()
    try:
        call_command("reconcile", *flags, stdout=out, stderr=StringIO())
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def kinds() -> list[str]:
    status, text = run("--json")
    found = json.loads(text)
    assert (status != 0) == bool(found["gaps"] or found["unreached"])
    return [gap["kind"] for gap in found["gaps"]]


@pytest.fixture(autouse=True)
def an_hour_ago(card_network: CardNetwork) -> None:
    """What happens at the network happened an hour ago: none of it is on its way any more."""
    card_network.control("clock", {"offset_s": -3600})


@pytest.fixture
def shop(card_network: CardNetwork) -> cn.Shop:
    return cn.Shop(when_depleted="block")


def bought(shop: cn.Shop, connection: Connection) -> Payment:
    return cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)


def long_ago(*payments: Payment) -> None:
    """As if the network had been asked a while ago."""
    for payment in payments:
        asked = payment.created_at - timedelta(hours=1)
        Payment.objects.filter(pk=payment.pk).update(asked_at=asked)


def test_books_that_agree_are_silent(card_network: CardNetwork, shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    refunds.refund(payment, amount=Money(3, "USD"), reason="x", actor="Ana", key="k", now=shop.now)
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    shop.renew(connection)
    assert run() == (0, "")
    assert run("--mend") == (0, "")


def test_paid_there_and_not_entered_here_is_settled(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    """The process died between the card and the ledger."""
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.BUNDLE,
        amount=bundle.cost,
        bundle=bundle,
        key="buy",
        now=shop.now,
    )
    payments.present(payment, now=shop.now)
    payment.refresh_from_db()
    stripe.confirm_intent(payment, card_id=connection.card.card_id)
    assert kinds() == []  # It is under way: asked just now.
    long_ago(payment)
    card_network.control("clock", {"offset_s": 0})
    other = payments.intend(
        connection,
        purpose=Payment.Purpose.BUNDLE,
        amount=bundle.cost,
        bundle=bundle,
        key="two",
        now=shop.now,
    )
    payments.present(other, now=shop.now)
    other.refresh_from_db()
    stripe.confirm_intent(other, card_id=connection.card.card_id)
    long_ago(other)
    # The other was paid just now: its event is on its way.
    assert kinds() == ["not_settled"]
    payments.refresh(other, now=shop.now)
    status, text = run()
    assert status == 1 and "GAP not_settled" in text and payment.public_id in text
    assert run("--mend") == (0, "")
    payment.refresh_from_db()
    assert payment.status == "succeeded"
    assert credits.balance(connection, now=shop.now).bundle == Decimal(20)
    assert run() == (0, "")


def test_one_whose_answer_was_lost_is_found_by_our_id(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    cn.fault(card_network, "drop")
    payment = overage.collect(connection.pk, now=shop.now)
    assert payment is not None and payment.intent_id == ""
    long_ago(payment)
    assert kinds() == ["not_settled"]
    assert run("--mend") == (0, "")
    connection.refresh_from_db()
    assert connection.debt == 0


def test_one_given_up_and_paid_all_the_same_is_settled(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    grant = payment.grants.get()
    assert grant.remaining == 10
    other = payments.intend(
        connection,
        purpose=Payment.Purpose.BUNDLE,
        amount=payment.amount,
        bundle=payment.bundle,
        key="two",
        now=shop.now,
    )
    payments.present(other, now=shop.now)
    other.refresh_from_db()
    stripe.confirm_intent(other, card_id=connection.card.card_id)
    long_ago(other)
    Payment.objects.filter(pk=other.pk).update(status="failed")
    assert kinds() == ["not_settled"]
    assert run("--mend") == (0, "")
    assert credits.balance(connection, now=shop.now).bundle == Decimal(20)


def test_paid_here_and_not_there_is_flagged_and_stays_a_gap(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    real = payment.intent_id
    Payment.objects.filter(pk=payment.pk).update(intent_id="pi_never")
    found = kinds()
    assert sorted(found) == ["not_paid"] or found == ["not_paid", "amounts_differ"]
    status, _ = run("--mend")
    payment.refresh_from_db()
    assert status == 1 and payment.alarm == reconcile.FLAG_NOT_PAID
    # What it gave stays: a person decides.
    assert credits.balance(connection, now=shop.now).bundle == Decimal(10)
    Payment.objects.filter(pk=payment.pk).update(intent_id=real)
    assert kinds() == []


@pytest.mark.parametrize(
    "change", [{"amount": Decimal("9.99")}, {"amount": Decimal("10.01")}], ids=["less", "more"]
)
def test_amounts_that_differ_are_flagged(
    card_network: CardNetwork, shop: cn.Shop, change: dict[str, Any]
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    Payment.objects.filter(pk=payment.pk).update(**change)
    assert kinds() == ["amounts_differ"]
    run("--mend")
    payment.refresh_from_db()
    assert payment.alarm.startswith("The card network took")
    assert len(payment.alarm) > 30
    Payment.objects.filter(pk=payment.pk).update(amount=Decimal(10))


def test_a_currency_that_differs_is_a_gap(card_network: CardNetwork, shop: cn.Shop) -> None:
    payment = bought(shop, shop.subscribe())
    Payment.objects.filter(pk=payment.pk).update(amount_currency="EUR")
    assert kinds() == ["amounts_differ"]
    Payment.objects.filter(pk=payment.pk).update(amount_currency="USD")


def test_charges_that_are_not_ours_are_no_gap_but_lost_rows_are(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    card = cards.from_test_card(shop.merchant, cn.GOOD)
    cn.post(
        shop.merchant,
        "payment_intents",
        amount="700",
        currency="usd",
        confirm="true",
        payment_method=card,
        **{"allowed_payment_method_types[]": "card"},
    )
    assert kinds() == []
    card = cards.from_test_card(shop.merchant, cn.GOOD)
    lost = {"metadata[lava_payment]": "pay_test_01JZZZZZZZZZZZZZZZZZZZZZZZ"}
    cn.post(
        shop.merchant,
        "payment_intents",
        amount="700",
        currency="usd",
        confirm="true",
        payment_method=card,
        **{"allowed_payment_method_types[]": "card"},
        **lost,
    )
    assert connection is not None and kinds() in (["not_ours"], [])


def test_two_merchants_with_one_account_do_not_see_each_others(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    other = cn.Shop()
    shop.subscribe()
    other.subscribe()
    assert kinds() == []
    assert list(reconcile.gaps(shop.merchant)) == []


def test_a_refund_made_there_is_entered(card_network: CardNetwork, shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    cn.post(shop.merchant, "refunds", payment_intent=payment.intent_id, amount="400")
    assert kinds() == ["refund_not_entered"]
    assert run("--mend") == (0, "")
    assert credits.balance(connection, now=shop.now).bundle == Decimal(6)


def test_a_refund_whose_answer_was_lost_is_settled(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    payment = bought(shop, shop.subscribe())
    cn.fault(card_network, "drop", path="/v1/refunds")
    row = refunds.refund(
        payment, amount=Money(4, "USD"), reason="x", actor="Ana", key="k", now=shop.now
    )
    assert row.status == "unknown"
    Refund.objects.filter(pk=row.pk).update(asked_at=row.created_at - timedelta(hours=1))
    assert kinds() == ["refund_not_entered"]
    assert run("--mend") == (0, "")
    row.refresh_from_db()
    assert row.status == "succeeded"


def test_a_refund_made_here_alone_is_flagged(card_network: CardNetwork, shop: cn.Shop) -> None:
    payment = bought(shop, shop.subscribe())
    row = refunds.refund(
        payment, amount=Money(4, "USD"), reason="x", actor="Ana", key="k", now=shop.now
    )
    Refund.objects.filter(pk=row.pk).update(refund_id="re_never")
    assert sorted(kinds()) in (
        ["refund_not_made"],
        ["refund_not_made", "refund_not_entered"],
    )
    run("--mend")
    row.refresh_from_db()
    assert row.flag == reconcile.FLAG_NOT_REFUNDED


def test_a_dispute_we_never_heard_of_is_entered(card_network: CardNetwork, shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    dispute = card_network.control("disputes/open", {"payment_intent": payment.intent_id})
    assert kinds() == ["dispute_not_entered"]
    assert run("--mend") == (0, "")
    assert credits.balance(connection, now=shop.now).bundle == 0
    card_network.control("disputes/close", {"dispute": dispute["id"], "status": "won"})
    assert kinds() == ["dispute_not_entered"]
    assert run("--mend") == (0, "")
    assert credits.balance(connection, now=shop.now).bundle == Decimal(10)


def test_a_network_that_is_away_is_no_agreement(card_network: CardNetwork, shop: cn.Shop) -> None:
    shop.subscribe()
    cn.fault(card_network, "drop_before", method="GET", path="/v1/payment_intents")
    status, text = run()
    assert status == 1 and text.startswith("UNREACHED")
    assert run() == (0, "")


def test_more_than_a_page_of_payments(card_network: CardNetwork, shop: cn.Shop) -> None:
    """The network's lists come a hundred at a time; this asks for two at a time."""
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan, cost="1", credit="1")
    for number in range(5):
        moment = shop.now + timedelta(seconds=number)
        assert cn.buy(connection, bundle, now=moment).status == "succeeded"
    assert len(list(stripe.list_intents(shop.merchant, page=2))) == 6
    assert kinds() == []


@pytest.mark.django_db(transaction=True)
def test_under_load_it_finds_no_gap_that_is_none(card_network: CardNetwork) -> None:
    card_network.control("clock", {"offset_s": 0})
    shop = cn.Shop(when_depleted="block")
    connections = [shop.subscribe() for _ in range(4)]
    bundle = factories.make_bundle(shop.plan, cost="1", credit="1")
    found: list[Any] = []
    numbers = iter(range(1000))

    def work() -> None:
        number = next(numbers)
        if number % 2:
            found.extend(reconcile.gaps(shop.merchant))
            return
        connection = connections[number // 2]
        for turn in range(4):
            moment = shop.now + timedelta(seconds=turn)
            payment = cn.buy(connection, bundle, now=moment)
            assert payment.status == "succeeded"
            refunds.refund(payment, reason="x", actor="Ana", key=f"{payment.pk}", now=moment)

    answers = cn.at_once(8, work)
    assert not [answer for answer in answers if isinstance(answer, Exception)], answers
    assert found == []
    assert run() == (0, "")
