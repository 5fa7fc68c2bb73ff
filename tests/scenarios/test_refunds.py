"""Refunds: money goes back once, and its credits are taken back once, whatever happens between."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import OperationalError
from django.utils import timezone
from moneyed import Money

from billing import audit, clock, credits, errors, ids, refunds, sweep, upgrades
from billing.models import Connection, Event, LedgerEntry, OutboxMessage, Payment, Refund
from billing.stripe import client
from lava.demo.card_network.process import CardNetwork
from meters.models import MeterPlan
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(card_network: CardNetwork) -> cn.Shop:
    return cn.Shop(when_depleted="block")


def bought(shop: cn.Shop, connection: Connection) -> Payment:
    """A bundle of 10 for 10."""
    return cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)


def empty(shop: cn.Shop, connection: Connection) -> None:
    """Spend the plan's 25, so that what comes next is drawn from the bundle."""
    shop.use(connection, "plan", "25")


def back(shop: cn.Shop, payment: Payment, amount: str | None = None, **terms: Any) -> Refund:
    values = {"reason": "Asked for it", "actor": "Ana Ruiz", "key": "form-1", "now": shop.now}
    money = Money(amount, "USD") if amount is not None else None
    return refunds.refund(payment, amount=money, **(values | terms))


def lines(connection: Connection, *kinds: str) -> list[tuple[str, Decimal]]:
    rows = LedgerEntry.objects.filter(connection=connection, kind__in=kinds).order_by("seq")
    return [(row.kind, row.amount) for row in rows]


def balance(shop: cn.Shop, connection: Connection) -> Decimal:
    return credits.balance(connection, now=shop.now).total


def test_a_whole_refund_takes_the_whole_bundle(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    customer = connection.customer
    customer.email = "mara@tallgrass.example"
    customer.save()
    payment = bought(shop, connection)
    row = back(shop, payment)
    assert (row.status, row.amount.amount, row.credits_taken) == ("succeeded", 10, 10)
    assert lines(connection, "clawback") == [("clawback", Decimal(-10))]
    assert balance(shop, connection) == Decimal(25)
    assert cn.given_back(shop.merchant) == [(payment.intent_id, 1000, "USD")]
    event = Event.objects.get(name="payment.refunded")
    assert (event.data["amount"], event.data["debt_made"]) == ("10.0000000000", "0.0000000000")
    mail = OutboxMessage.objects.get(subject__startswith="Refund ")
    assert "Pack 10, paid $10.00: \u2212$10.00" in mail.body and row.receipt_number in mail.subject


def test_a_part_used_bundle_gives_back_its_unspent_share(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    empty(shop, connection)
    shop.use(connection, "r1", "3.333333")
    seen = refunds.preview(payment)
    assert (seen.amount, seen.credits_taken, seen.debt_made) == (
        Decimal("6.66"),
        Decimal("6.666667"),
        0,
    )
    assert seen.most == 10
    with pytest.raises(errors.Refused) as refusal:
        back(shop, payment, "6.67")
    assert refusal.value.code == "credits_spent"
    row = back(shop, payment)
    assert (row.amount.amount, row.credits_taken) == (seen.amount, seen.credits_taken)
    assert balance(shop, connection) == 0


def test_by_force_what_was_spent_becomes_debt_and_is_flagged(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    empty(shop, connection)
    shop.use(connection, "r1", "4")
    seen = refunds.preview(payment, force=True)
    assert (seen.amount, seen.credits_taken, seen.debt_made) == (10, 6, 4)
    row = back(shop, payment, force=True)
    assert (row.credits_taken, row.debt_made) == (Decimal(6), Decimal(4))
    assert "$4.00 of its credits was spent" in row.flag
    connection.refresh_from_db()
    assert (connection.debt, connection.balance) == (Decimal(4), Decimal(-4))
    # Debt is paid first out of the next grant.
    cn.buy(connection, factories.make_bundle(shop.plan, cost="20", credit="20"), now=shop.now)
    assert balance(shop, connection) == Decimal(16)


def test_parts_take_their_shares_and_never_more_than_was_granted(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan, cost="10", credit="7.0000000001")
    payment = cn.buy(connection, bundle, now=shop.now)
    taken = [back(shop, payment, "3.33", key=f"part-{n}").credits_taken for n in range(3)]
    taken.append(back(shop, payment, "0.01", key="rest").credits_taken)
    assert sum(taken) == Decimal("7.0000000001")
    assert balance(shop, connection) == Decimal(25)
    with pytest.raises(errors.Refused) as refusal:
        back(shop, payment, "0.01", key="more", force=True)
    assert refusal.value.code == "already_refunded"
    payment.refresh_from_db()
    assert payment.refunded == payment.amount.amount
    assert sum(minor for _, minor, _ in cn.given_back(shop.merchant)) == 1000


def test_credits_are_found_where_they_rolled_to(shop: cn.Shop) -> None:
    """The first month's 25 less 5 used roll on; in the second month 12 more are used, the oldest
    first: 8 of the first payment's are left, all 25 of the second's."""
    connection = shop.subscribe()
    first = Payment.objects.get(connection=connection)
    shop.use(connection, "r1", "5")
    shop.renew(connection)
    shop.use(connection, "r2", "12")
    second = Payment.objects.get(connection=connection, purpose="renewal")
    rolled = credits.balance(connection, now=shop.now)
    assert rolled.cycle == Decimal(33)
    left = {p.pk: refunds.preview(p, force=True).left for p in (first, second)}
    assert left == {first.pk: Decimal(8), second.pk: Decimal(25)}
    shop.renew(connection)
    assert balance(shop, connection) == Decimal(58)
    row = back(shop, first)
    assert (row.debt_made, row.credits_taken) == (0, left[first.pk])
    assert balance(shop, connection) == Decimal(58) - left[first.pk]
    again = refunds.preview(second)
    assert again.left == left[second.pk]


@pytest.mark.parametrize(
    ("used", "amount", "left"),
    [("0", "75", "25"), ("10", "67.50", "22.5"), ("100", "0", "0"), ("33.333333", "50.00", None)],
)
def test_an_upgrade_takes_back_what_its_card_paid_and_not_what_was_given_in_payment(
    card_network: CardNetwork, used: str, amount: str, left: str | None
) -> None:
    shop = cn.Shop(rollover_type="none")
    connection = shop.subscribe()
    bigger = factories.make_plan(shop.merchant, price="100", credit="100", name="Scale")
    MeterPlan.objects.create(merchant=shop.merchant, meter=shop.meter, plan=bigger)
    upgrades.switch(connection.subscription, plan=bigger, now=shop.now)
    payment = Payment.objects.get(purpose="upgrade")
    shop.use(connection, "r1", used)
    if amount != "0":
        seen = refunds.preview(payment)
        assert seen.amount == Decimal(amount)
        row = back(shop, payment)
        assert (row.credits_taken, row.debt_made) == (seen.credits_taken, 0)
    expected = Decimal(left) if left else (100 - Decimal(used)) / 4
    assert abs(balance(shop, connection) - expected) < Decimal("0.00000001")
    for number in range(2):
        with suppress(errors.Refused):
            back(shop, payment, force=True, key=f"forced-{number}")
    # All that its card paid went back: what the first payment bought is left, less what was used.
    assert balance(shop, connection) == 25 - Decimal(used)
    payment.refresh_from_db()
    assert payment.refunded == 75
    assert not [rule.name for rule in audit.RULES if rule.rows(1)]


def test_credits_that_are_over_are_spent_though_nobody_entered_their_end(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(rollover_type="none")
    connection = shop.subscribe()
    payment = Payment.objects.get(connection=connection)
    clock.advance(shop.merchant, to=connection.subscription.cycle_end, run=False)
    with pytest.raises(errors.Refused) as refusal:
        back(shop, payment)
    assert refusal.value.code == "credits_spent"
    connection.refresh_from_db()
    assert connection.debt == 0 and cn.given_back(shop.merchant) == []


def test_a_refund_of_overage_forgives_the_usage(card_network: CardNetwork) -> None:
    from billing import overage

    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    payment = overage.collect(connection.pk, now=shop.now)
    assert payment is not None and payment.status == "succeeded"
    row = back(shop, payment, "5")
    assert (row.status, row.credits_taken, row.debt_made) == ("succeeded", 0, 0)
    connection.refresh_from_db()
    assert (connection.debt, connection.balance) == (0, 0)
    assert lines(connection, "clawback", "adjust") == [("clawback", -5), ("adjust", 5)]
    assert overage.collect(connection.pk, now=shop.now) is None


def test_the_same_key_refunds_once_and_other_terms_are_refused(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    one, two = back(shop, payment, "4"), back(shop, payment, "4")
    assert one.pk == two.pk
    with pytest.raises(errors.Conflict):
        back(shop, payment, "5")
    assert cn.given_back(shop.merchant) == [(payment.intent_id, 400, "USD")]


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_give_back_once(card_network: CardNetwork) -> None:
    shop = cn.Shop(when_depleted="block")
    connection = shop.subscribe()
    payment = bought(shop, connection)
    keys = iter(range(20))
    answers = cn.at_once(20, lambda: back(shop, payment, "6", key=f"form-{next(keys)}"))
    # One was first; whoever came later was told so, or (on a busy machine) waited in vain for the
    # lock, the first one perhaps after it had asked the network: then it is asked about.
    others = [answer for answer in answers if not isinstance(answer, Refund)]
    assert {type(answer) for answer in others} <= {errors.Refused, OperationalError}, answers
    row = Refund.objects.get()
    assert refunds.refresh(row, now=shop.now).status == "succeeded"
    assert cn.given_back(shop.merchant) == [(payment.intent_id, 600, "USD")]
    assert balance(shop, connection) == Decimal(29)


@pytest.mark.parametrize(
    ("amount", "param"),
    [("0", "amount"), ("-1", "amount"), ("0.001", "amount"), ("NaN", "amount"), ("1E-5", "amount")],
)
def test_a_bad_amount_is_refused_and_changes_nothing(
    shop: cn.Shop, amount: str, param: str
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    with pytest.raises(errors.LavaError) as refusal:
        back(shop, payment, amount)
    assert refusal.value.param == param
    assert not Refund.objects.exists() and balance(shop, connection) == Decimal(35)


def test_another_currency_no_reason_and_no_name_are_refused(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    for terms in ({"amount": Money(1, "EUR")}, {"reason": " "}, {"actor": ""}):
        values: dict[str, Any] = {
            "amount": Money(1, "USD"),
            "reason": "x",
            "actor": "Ana",
            "key": "k",
            "now": shop.now,
        }
        with pytest.raises(errors.Invalid):
            refunds.refund(payment, **(values | terms))
    assert not Refund.objects.exists()


def test_what_was_not_paid_is_not_given_back(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    Payment.objects.filter(pk=payment.pk).update(status="cancelled")
    with pytest.raises(errors.Refused):
        back(shop, payment, "1")
    Payment.objects.filter(pk=payment.pk).update(status="succeeded")


# The network misbehaves


@pytest.mark.parametrize("action", ["drop", "error_after", "delay_after"])
def test_an_answer_that_never_came_is_asked_about_and_refunded_once(
    card_network: CardNetwork, shop: cn.Shop, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    order: dict[str, Any] = {"path": "/v1/refunds"}
    if action == "delay_after":
        monkeypatch.setattr(client, "TIMEOUT_S", 0.2)
        client._client.cache_clear()
        order["delay_ms"] = 900
    cn.fault(card_network, action, **order)
    row = back(shop, payment, "4")
    if action == "delay_after":
        monkeypatch.undo()
        client._client.cache_clear()
    assert row.status == "unknown"
    # Its credits cannot be spent meanwhile.
    assert balance(shop, connection) == Decimal(31)
    assert refunds.refresh(row, now=shop.now).status == "succeeded"
    assert cn.given_back(shop.merchant) == [(payment.intent_id, 400, "USD")]
    assert balance(shop, connection) == Decimal(31)


@pytest.mark.parametrize("action", ["drop_before", "error", "in_use"])
def test_a_call_that_never_arrived_is_made_again_with_its_key(
    card_network: CardNetwork, shop: cn.Shop, action: str
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    cn.fault(card_network, action, path="/v1/refunds")
    row = back(shop, payment, "4")
    assert row.status == "unknown"
    later = timezone.now() + timedelta(seconds=40)
    assert sweep.refunds_open(later, shop.merchant) == [row.pk]
    assert refunds.refresh(row, now=shop.now).status == "succeeded"
    assert sweep.refunds_open(later, shop.merchant) == []
    assert cn.given_back(shop.merchant) == [(payment.intent_id, 400, "USD")]


def test_a_process_that_died_before_asking_is_taken_up(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    row = refunds.intend(
        payment, amount=Money(4, "USD"), reason="x", actor="Ana", key="k", now=shop.now
    )
    assert cn.given_back(shop.merchant) == []
    assert refunds.refresh(row, now=shop.now).status == "succeeded"
    assert cn.given_back(shop.merchant) == [(payment.intent_id, 400, "USD")]


def test_restarted_25_hours_later_it_finds_the_refund_and_makes_no_other(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    cn.fault(card_network, "drop", path="/v1/refunds")
    row = back(shop, payment, "4")
    card_network.control("clock", {"advance_s": 25 * 3600})
    with time_machine.travel(timezone.now() + timedelta(hours=25), tick=True):
        assert refunds.refresh(row, now=shop.now).status == "succeeded"
    assert cn.given_back(shop.merchant) == [(payment.intent_id, 400, "USD")]


def test_never_reached_in_25_hours_it_fails_and_gives_its_credits_back(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    cn.fault(card_network, "drop_before", path="/v1/refunds")
    row = back(shop, payment, "4")
    with time_machine.travel(ids.made_at(row.pk) + timedelta(hours=25), tick=True):
        row = refunds.refresh(row, now=shop.now)
    assert (row.status, row.failure_code) == ("failed", "never_reached")
    assert balance(shop, connection) == Decimal(35)
    payment.refresh_from_db()
    assert payment.refunded == 0
    assert cn.given_back(shop.merchant) == []


def test_one_the_network_refuses_gives_its_credits_back(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    cn.post(shop.merchant, "refunds", payment_intent=payment.intent_id)
    row = back(shop, payment, "4")
    assert (row.status, row.failure_code) == ("failed", "charge_already_refunded")
    assert balance(shop, connection) == Decimal(35)
    # The event of the other refund comes late: it is taken in, and nothing twice.
    assert cn.deliver_all(card_network, "charge.refunded", merchant=shop.merchant) == 1
    assert balance(shop, connection) == Decimal(25)


# Events


def test_a_refund_made_in_the_dashboard_is_taken_in_once(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    empty(shop, connection)
    shop.use(connection, "r1", "7")
    cn.post(shop.merchant, "refunds", payment_intent=payment.intent_id, amount="500")
    for _ in range(3):
        cn.deliver_all(card_network, "charge.refunded", "refund.created", merchant=shop.merchant)
    row = Refund.objects.get()
    assert (row.status, row.actor, row.amount.amount) == ("succeeded", "Card network", 5)
    assert (row.credits_taken, row.debt_made) == (3, 2)
    assert "$2.00 of its credits was spent" in row.flag
    connection.refresh_from_db()
    assert connection.debt == 2


def test_the_event_before_the_answer_settles_and_the_answer_changes_nothing(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    from billing import stripe

    connection = shop.subscribe()
    payment = bought(shop, connection)
    row = refunds.intend(
        payment, amount=Money(4, "USD"), reason="x", actor="Ana", key="k", now=shop.now
    )
    row.payment.merchant = shop.merchant
    answer = stripe.create_refund(row)
    cn.deliver_all(card_network, "refund.created", "charge.refunded", merchant=shop.merchant)
    assert Refund.objects.get().status == "succeeded"
    refunds.settle(row.pk, found=answer, now=shop.now)
    assert Event.objects.filter(name="payment.refunded").count() == 1
    assert balance(shop, connection) == Decimal(31)


def test_a_refund_the_bank_sends_back_later_gives_the_credits_back(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    row = back(shop, payment, "4")
    card_network.control("refunds", {"refund": row.refund_id, "status": "failed"})
    for _ in range(2):
        cn.deliver_all(card_network, "refund.failed", merchant=shop.merchant)
    row.refresh_from_db()
    assert row.status == "failed" and "sent this refund back" in row.flag
    assert balance(shop, connection) == Decimal(35)
    payment.refresh_from_db()
    assert payment.refunded == 0


def test_one_that_waits_at_the_bank_is_on_its_way_until_it_arrives(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    card_network.control("refunds", {"next": "pending"})
    row = back(shop, payment, "4")
    assert row.status == "sent" and not row.receipt_number
    card_network.control("refunds", {"refund": row.refund_id, "status": "succeeded"})
    cn.deliver_all(card_network, "refund.updated", merchant=shop.merchant)
    row.refresh_from_db()
    assert row.status == "succeeded" and row.receipt_number


def test_credits_of_a_failed_refund_whose_grant_has_ended_end_at_once(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(rollover_type="none", when_depleted="block")
    connection = shop.subscribe()
    payment = Payment.objects.get(connection=connection)
    card_network.control("refunds", {"next": "pending"})
    row = back(shop, payment, "10")
    shop.renew(connection)
    card_network.control("refunds", {"refund": row.refund_id, "status": "failed"})
    cn.deliver_all(card_network, "refund.failed", merchant=shop.merchant)
    assert balance(shop, connection) == Decimal(25)
    assert lines(connection, "clawback") == [("clawback", -10), ("clawback", 10)]


def test_debt_that_was_paid_before_the_refund_failed_comes_back_as_credits(
    card_network: CardNetwork, shop: cn.Shop
) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    empty(shop, connection)
    shop.use(connection, "r1", "10")
    card_network.control("refunds", {"next": "pending"})
    row = back(shop, payment, "10", force=True)
    factories.give(connection, "15", now=shop.now)
    assert balance(shop, connection) == Decimal(5)
    card_network.control("refunds", {"refund": row.refund_id, "status": "failed"})
    cn.deliver_all(card_network, "refund.failed", merchant=shop.merchant)
    assert balance(shop, connection) == Decimal(15)
    connection.refresh_from_db()
    assert connection.debt == 0


def test_the_database_itself_refuses_more_back_than_was_paid(shop: cn.Shop) -> None:
    from django.db import IntegrityError, transaction

    payment = bought(shop, shop.subscribe())
    with pytest.raises(IntegrityError), transaction.atomic():
        Payment.objects.filter(pk=payment.pk).update(refunded=Decimal("10.01"))
    with pytest.raises(IntegrityError), transaction.atomic():
        Payment.objects.filter(pk=payment.pk).update(status="failed", refunded=1)


def test_a_year_later_the_clock_refunds_as_well(shop: cn.Shop) -> None:
    connection = shop.subscribe()
    payment = bought(shop, connection)
    clock.advance(shop.merchant, to=shop.now + timedelta(days=365))
    assert back(shop, payment).credits_taken == Decimal(10)
