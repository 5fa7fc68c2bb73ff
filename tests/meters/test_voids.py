"""Requests taken back: what returns where, what is owed no more, and that it happens once."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client

from billing import audit as money_audit
from billing import (
    changes,
    clock,
    credits,
    errors,
    ledger,
    moves,
    overage,
    plans,
    subscriptions,
    upgrades,
)
from billing.models import CreditGrant, LedgerEntry, Payment
from lava.demo.card_network.process import CardNetwork
from meters import audit as usage_audit
from meters import usage
from meters.models import MeterPosition, UsageRequest, Void
from tests import card_network as cn
from tests import factories
from tests.meters.test_charge import report

pytestmark = pytest.mark.django_db


class Till:
    """A plan of price 0 that includes 25, a graduated meter (1, then 0.5 past 30 million)."""

    def __init__(self, **plan: Any) -> None:
        self.merchant = factories.make_merchant()
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(self.merchant, **({"price": "0"} | plan))
        factories.make_meter(self.merchant, self.plan, tiers=[("0", "1"), ("30000000", "0.5")])
        self.connection = factories.make_subscription(self.plan, now=self.merchant.now()).connection

    @property
    def now(self) -> Any:
        return self.merchant.now()

    def use(self, name: str, amount: str) -> UsageRequest:
        tokens = int(Decimal(amount) * 1_000_000)
        made = report(self.key, self.connection, name, input_tokens=tokens)
        return UsageRequest.objects.get(pk=made.request.pk)

    def void(self, row: UsageRequest | usage.Stored, **words: Any) -> Void:
        return usage.void(row, **({"reason": "wrong", "actor": "Ana", "now": self.now} | words))

    def grants(self) -> list[tuple[str, Decimal]]:
        rows = CreditGrant.objects.filter(connection=self.connection).order_by("pk")
        return [(row.source, row.remaining) for row in rows]

    def lines(self) -> list[tuple[str, Decimal]]:
        rows = LedgerEntry.objects.filter(connection=self.connection).order_by("seq")
        return [(row.kind, row.amount) for row in rows]

    def debt(self) -> Decimal:
        self.connection.refresh_from_db()
        debt: Decimal = self.connection.debt
        return debt


@pytest.fixture(autouse=True)
def the_books_hold(db: None) -> Any:
    yield
    for rule in (*money_audit.RULES, *usage_audit.RULES):
        assert not rule.rows(), rule.name


def test_credits_return_to_the_grants_they_came_from() -> None:
    till = Till()
    factories.give(till.connection, "10", now=till.now)
    row = till.use("r1", "30")
    assert till.grants() == [("cycle", 0), ("manual", 5)]
    made = till.void(row)
    assert till.grants() == [("cycle", 25), ("manual", 10)]
    assert (made.cycle_remaining, made.bundle_remaining, made.debt_after) == (25, 10, 0)
    row.refresh_from_db()
    assert row.status == "voided" and row.fee == 30
    refunds = LedgerEntry.objects.filter(kind="refund")
    assert {(line.request_id, line.reason, line.actor) for line in refunds} == {
        (row.pk, "wrong", "Ana")
    }


def test_twice_it_is_the_same_answer_and_gives_once() -> None:
    till = Till()
    row = till.use("r1", "10")
    first = till.void(row)
    lines = till.lines()
    second = till.void(row, reason="again", actor="Ben")
    assert (second.pk, second.reason) == (first.pk, "wrong")
    assert till.lines() == lines
    assert MeterPosition.objects.get().quantity == 0


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_give_back_once() -> None:
    till = Till()
    row = till.use("r1", "10")
    answers = cn.at_once(20, lambda: till.void(row))
    assert len({answer.pk for answer in answers}) == 1
    assert till.lines() == [("grant", 25), ("usage", -10), ("refund", 10)]


def test_the_database_refuses_a_second_giving_back() -> None:
    till = Till()
    row = till.use("r1", "10")
    till.void(row)
    with pytest.raises(IntegrityError, match="a_draw_is_given_back_once"), transaction.atomic():
        ledger.append(
            till.connection, kind="refund", amount=Decimal(-1), request_id=row.pk, now=till.now,
            grant_id=CreditGrant.objects.get().pk,
        )  # fmt: skip


def test_the_same_request_sent_again_is_answered_and_not_charged() -> None:
    till = Till()
    till.void(till.use("r1", "10"))
    again = report(till.key, till.connection, "r1", input_tokens=10_000_000)
    assert again.replayed and again.request.status == "voided"
    assert till.grants() == [("cycle", 25)]


def test_what_returns_to_a_grant_that_has_ended_ends_at_once() -> None:
    till = Till(rollover_type="none")
    row = till.use("r1", "25")
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    till.void(row)
    assert till.grants() == [("cycle", 0), ("cycle", 25)]
    assert till.lines()[-2:] == [("refund", 25), ("expire", -25)]


def test_what_returns_to_a_grant_that_rolled_over_lives_on_and_rolls_again() -> None:
    till = Till(rollover_type="full")
    row = till.use("r1", "15")
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    till.void(row)
    assert till.grants() == [("cycle", 15), ("rollover", 10), ("cycle", 25)]
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    assert credits.balance(till.connection, now=till.now).total == 75


def test_what_a_cap_would_have_cut_ends_at_once() -> None:
    till = Till(rollover_type="full", rollover_cap=Decimal(5))
    row = till.use("r1", "15")
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    till.void(row)
    assert credits.balance(till.connection, now=till.now).total == 30
    assert till.lines()[-2:] == [("refund", 15), ("expire", -15)]


@pytest.mark.parametrize("used", ["25", "10"])
def test_after_the_subscription_has_ended_its_credits_return_and_end(used: str) -> None:
    till = Till(rollover_type="full")
    row = till.use("r1", used)
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    subscriptions.cancel(till.connection.subscription, now=till.now)
    clock.advance(till.merchant, to=till.connection.subscription.cycle_end)
    till.void(row)
    assert credits.balance(till.connection, now=till.now).total == 0


def test_given_credits_that_ended_with_a_cycle_end_again() -> None:
    till = Till(bundle_rollover_type="none")
    factories.give(till.connection, "10", now=till.now)
    row = till.use("r1", "35")
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    till.void(row)
    assert credits.balance(till.connection, now=till.now).bundle == 0


@pytest.mark.parametrize(("rolls", "lives"), [("full", True), ("none", False)])
def test_after_a_downgrade_credits_live_on_as_the_plan_they_were_of_said(
    rolls: str, lives: bool
) -> None:
    till = Till(rollover_type=rolls)
    row = till.use("r1", "25")
    other = {"full": "none", "none": "full"}[rolls]
    smaller = factories.make_plan(till.merchant, price="0", credit="5", rollover_type=other)
    changes.schedule(till.connection.subscription, plan=smaller, now=till.now)
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    till.void(row)
    assert credits.balance(till.connection, now=till.now).total == (30 if lives else 5)


@pytest.mark.parametrize("value", ["25", "0"])
def test_after_an_upgrade_what_bundles_paid_lives_on_in_them(
    card_network: CardNetwork, value: str
) -> None:
    shop = cn.Shop(bundle_rollover_type="none", credit=value)
    bigger = factories.make_plan(
        shop.merchant, price="100", credit="100", name="Scale", bundle_rollover_type="none"
    )
    connection = shop.subscribe()
    cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)
    shop.use(connection, "r1", f"{Decimal(value) + 3}")
    upgrades.switch(connection.subscription, plan=bigger, now=shop.now)
    row = UsageRequest.objects.get()
    usage.void(row, reason="wrong", actor="Ana", now=shop.now)
    assert credits.balance(connection, now=shop.now).bundle == 10


@pytest.mark.parametrize(("rolls", "left"), [("full", "105"), ("none", "100")])
def test_after_an_upgrade_what_it_took_in_payment_is_no_end(
    card_network: CardNetwork, rolls: str, left: str
) -> None:
    shop = cn.Shop(rollover_type=rolls)
    bigger = factories.make_plan(shop.merchant, price="100", credit="100", name="Scale")
    connection = shop.subscribe()
    shop.use(connection, "r1", "5")
    upgrades.switch(connection.subscription, plan=bigger, now=shop.now)
    row = UsageRequest.objects.get()
    usage.void(row, reason="wrong", actor="Ana", now=shop.now)
    assert credits.balance(connection, now=shop.now).total == Decimal(left)


def test_moved_at_once_a_cycle_ends_as_its_newer_version_says() -> None:
    till = Till(rollover_type="full")
    row = till.use("r1", "25")
    terms = dataclasses.replace(plans.of(till.plan), rollover_type="none")
    newer = plans.new_version(till.plan, terms=terms, now=till.now)
    job = moves.start(till.plan, to_plan=newer, when="at_once", actor="Ana", now=till.now)
    moves.run(job.pk, now=till.now)
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    till.void(row)
    assert credits.balance(till.connection, now=till.now).total == 25


def test_what_became_debt_is_owed_no_more() -> None:
    till = Till()
    row = till.use("r1", "27.5")
    assert till.debt() == Decimal("2.5")
    till.void(row)
    assert till.debt() == 0
    assert till.connection.cycle_overage == 0
    assert till.grants() == [("cycle", 25)]


def test_what_the_card_paid_of_it_becomes_credit_without_end(card_network: CardNetwork) -> None:
    shop = cn.Shop(rollover_type="none")
    connection = shop.subscribe()
    row = shop.use(connection, "r1", "40.123456").request
    assert overage.collect(connection.pk, now=shop.now) is not None
    connection.refresh_from_db()
    assert connection.debt == Decimal("0.003456")
    usage.void(row, reason="wrong", actor="Ana", now=shop.now)
    connection.refresh_from_db()
    assert connection.debt == 0
    returned = CreditGrant.objects.get(source="returned")
    assert (returned.remaining, returned.expires_at) == (Decimal("15.12"), None)
    assert credits.balance(connection, now=shop.now).total == Decimal("40.12")
    shop.renew(connection)
    assert credits.balance(connection, now=shop.now).total == Decimal("40.12")


def test_what_credits_paid_of_it_becomes_credit() -> None:
    till = Till()
    row = till.use("r1", "30")
    factories.give(till.connection, "3", now=till.now)
    assert till.debt() == 2
    till.void(row)
    assert till.debt() == 0
    assert credits.balance(till.connection, now=till.now).total == 28


def test_debt_of_others_is_paid_first_out_of_what_returns() -> None:
    till = Till()
    first = till.use("r1", "20")
    till.use("r2", "9")
    assert till.debt() == 4
    till.void(first)
    assert till.debt() == 0
    assert till.grants() == [("cycle", 16)]
    assert till.lines()[-3:] == [("refund", 20), ("debt", -4), ("debt", 4)]


def test_debt_that_an_open_charge_collects_is_left_to_it(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    row = shop.use(connection, "r1", "40").request
    cn.fault(card_network, "drop", times=1)
    payment = overage.collect(connection.pk, now=shop.now)
    assert payment is not None and payment.status == "unknown"
    usage.void(row, reason="wrong", actor="Ana", now=shop.now)
    connection.refresh_from_db()
    assert (connection.debt, connection.collecting) == (15, 15)
    assert CreditGrant.objects.get(source="returned").remaining == 15
    from billing import payments

    assert payments.refresh(payment, now=shop.now).status == "succeeded"
    connection.refresh_from_db()
    assert (connection.debt, connection.balance) == (0, 40)
    assert Payment.objects.filter(purpose="overage").count() == 1


def test_the_count_steps_back_and_later_requests_keep_their_price() -> None:
    till = Till()
    first, second = till.use("r1", "20"), till.use("r2", "20")
    assert second.fee == 15
    till.void(first)
    second.refresh_from_db()
    assert (second.fee, second.position_before) == (15, 20_000_000)
    third = till.use("r3", "20")
    assert (third.position_before, third.fee) == (20_000_000, 15)
    till.void(second)
    till.void(third)
    assert MeterPosition.objects.get().quantity == 0
    assert till.use("r4", "1").position_before == 0


def test_a_request_of_an_earlier_cycle_steps_back_in_its_own_window() -> None:
    till = Till()
    factories.make_meter(
        till.merchant, till.plan, slug="monthly", tiers=[("0", "1")], tier_window="cycle"
    )
    row = report(till.key, till.connection, "m", meter_slug="monthly", input_tokens=7).request
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    report(till.key, till.connection, "n", meter_slug="monthly", input_tokens=5)
    till.void(row)
    assert sorted(MeterPosition.objects.values_list("window", "quantity")) == [(0, 0), (1, 5)]


def test_a_free_request_is_taken_back_too() -> None:
    till = Till()
    row = till.use("r1", "0")
    assert till.void(row).position_before == 0
    row.refresh_from_db()
    assert row.status == "voided"


@pytest.mark.parametrize(
    ("words", "param"),
    [({"reason": " "}, "reason"), ({"actor": ""}, "actor"), ({"reason": "x" * 256}, "reason")],
)
def test_it_needs_a_reason_and_a_name(words: dict[str, str], param: str) -> None:
    till = Till()
    row = till.use("r1", "1")
    with pytest.raises(errors.Invalid) as refused:
        till.void(row, **words)
    assert refused.value.param == param
    assert not Void.objects.exists()


def test_a_request_that_is_running_is_not_taken_back() -> None:
    till = Till()
    row = till.use("r1", "0")
    UsageRequest.objects.filter(pk=row.pk).update(status="pending")
    with pytest.raises(errors.Conflict) as refused:
        till.void(row)
    assert refused.value.code == "request_not_charged"
    UsageRequest.objects.filter(pk=row.pk).update(status="completed")


# Credits taken by hand


def take(till: Till, amount: str, **words: Any) -> Any:
    values = {"reason": "mistake", "actor": "Ana", "now": till.now}
    with transaction.atomic():
        locked = ledger.lock(till.connection.pk)
        return credits.take(locked, amount=Decimal(amount), **(values | words))


def test_credits_are_taken_in_the_order_of_the_draw() -> None:
    till = Till()
    factories.give(till.connection, "10", now=till.now)
    take(till, "27")
    assert till.grants() == [("cycle", 0), ("manual", 8)]
    line = LedgerEntry.objects.filter(kind="adjust").latest("seq")
    assert (line.amount, line.reason, line.actor) == (-2, "mistake", "Ana")


def test_credits_are_taken_from_one_grant() -> None:
    till = Till()
    factories.give(till.connection, "10", now=till.now)
    given = CreditGrant.objects.get(source="manual")
    take(till, "4", grant_id=given.pk)
    assert till.grants() == [("cycle", 25), ("manual", 6)]
    with pytest.raises(errors.Refused):
        take(till, "7", grant_id=given.pk)


@pytest.mark.parametrize(
    ("amount", "words", "param"),
    [
        ("25.0000000001", {}, "amount"),
        ("0", {}, "amount"),
        ("-1", {}, "amount"),
        ("1", {"reason": ""}, "reason"),
        ("1", {"actor": " "}, "actor"),
    ],
)
def test_a_bad_taking_is_refused_and_changes_nothing(
    amount: str, words: dict[str, str], param: str
) -> None:
    till = Till()
    with pytest.raises(errors.LavaError) as refused:
        take(till, amount, **words)
    assert refused.value.param == param
    assert till.lines() == [("grant", 25)]


def test_another_customers_grant_is_not_found() -> None:
    till, other = Till(), Till()
    theirs = CreditGrant.objects.get(connection=other.connection)
    with pytest.raises(errors.NotFound):
        take(till, "1", grant_id=theirs.pk)


# The wire


def post(key: str, path: str, body: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Client().post(path, body, content_type="application/json", headers=headers)


def test_the_endpoint_answers_with_the_request_and_its_void() -> None:
    till = Till()
    row = till.use("r1", "10")
    first = post(till.key, "/v1/requests/r1/void", {"reason": "sent by mistake"})
    assert first.status_code == 200, first.content
    body = first.json()
    assert (body["request_id"], body["status"]) == ("r1", "voided")
    assert body["fee"]["amount"] == "10.0000000000"
    assert body["void"]["reason"] == "sent by mistake"
    assert body["void"]["balance"]["total_remaining"] == "25.0000000000"
    again = post(till.key, f"/v1/requests/{row.public_id}/void/", {"reason": "other"})
    assert again.json() == body
    assert Void.objects.get().actor.startswith("API key test (aks_test_")


def test_the_endpoint_is_for_the_merchant_alone() -> None:
    till, other = Till(), Till()
    row = till.use("r1", "10")
    assert post("", "/v1/requests/r1/void", {"reason": "x"}).status_code == 401
    for name in ("r1", row.public_id, "none"):
        answer = post(other.key, f"/v1/requests/{name}/void", {"reason": "x"})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    assert not Void.objects.exists()


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": 7}, {"reason": "x" * 256}])
def test_the_endpoint_names_a_bad_reason(body: Any) -> None:
    till = Till()
    till.use("r1", "10")
    answer = post(till.key, "/v1/requests/r1/void", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "reason")
    assert not Void.objects.exists()


def test_usage_leaves_out_what_was_taken_back() -> None:
    till = Till()
    till.use("r1", "10")
    till.void(till.use("r2", "5"))
    answer = Client().get(
        "/v1/usage",
        {"start": (till.now - timedelta(days=1)).isoformat()},
        headers={"Authorization": f"Bearer {till.key}"},
    )
    assert answer.json()["totals"]["total_fee_amount"] == "10.0000000000"
