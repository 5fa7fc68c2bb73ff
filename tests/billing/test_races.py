"""Twenty threads at each money verb at once: nothing is lost, nothing is done twice."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from billing import audit, connections, credits, errors, holds, ledger, renewals, subscriptions
from billing.models import Cycle, Event, Hold, LedgerEntry, Subscription
from meters import holds as held_work
from meters import pricing, usage
from tests import card_network as cn
from tests.meters.test_charge import Setting, report

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("apart")]


def the_books_hold(answers: list[Any]) -> None:
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    for rule in audit.RULES:
        assert not rule.rows(1), rule.name


def test_twenty_draws_lose_nothing() -> None:
    it = Setting(price="0")
    numbers = iter(range(20))
    answers = cn.at_once(
        20, lambda: report(it.key, it.connection, f"r{next(numbers)}", input_tokens=500_000)
    )
    the_books_hold(answers)
    it.connection.refresh_from_db()
    assert it.connection.balance == -5
    left = sorted(answer.request.total_remaining for answer in answers)
    assert left == [Decimal(25) - Decimal("1.5") * n for n in range(20, 0, -1)]


def test_twenty_gifts_are_twenty() -> None:
    it = Setting(price="0")

    def give() -> None:
        with transaction.atomic():
            locked = ledger.lock(it.connection.pk)
            credits.give(locked, amount=Decimal(1), reason="x", actor="x", now=it.now)

    the_books_hold(cn.at_once(20, give))
    it.connection.refresh_from_db()
    assert it.connection.balance == 45


def test_twenty_takings_take_only_what_is_there() -> None:
    it = Setting(price="0")

    def take() -> bool:
        try:
            with transaction.atomic():
                locked = ledger.lock(it.connection.pk)
                credits.take(locked, amount=Decimal(2), reason="x", actor="x", now=it.now)
        except Exception as error:
            return type(error).__name__ != "Refused"
        return True

    answers = cn.at_once(20, take)
    the_books_hold(answers)
    assert answers.count(True) == 12
    assert LedgerEntry.objects.filter(kind="adjust").count() == 12


def test_twenty_at_once_open_a_cycle_once() -> None:
    it = Setting(price="0")
    end = it.subscription.cycle_end
    answers = cn.at_once(20, lambda: subscriptions.advance(it.subscription, index=1, now=end))
    the_books_hold(answers)
    assert answers.count(True) == 1


def held(it: Setting, amount: str) -> Hold:
    return holds.place(it.merchant, it.connection.pk, amount=Decimal(amount), now=it.now)


def test_twenty_holds_set_aside_no_more_than_there_is() -> None:
    it = Setting(price="0", when_depleted="block")

    def place() -> bool:
        try:
            held(it, "2")
        except errors.PaymentRequired:
            return False
        return True

    answers = cn.at_once(20, place)
    the_books_hold(answers)
    assert answers.count(True) == 12
    it.connection.refresh_from_db()
    assert it.connection.held == 24


def settled(it: Setting, hold: Hold, request_id: str) -> Any:
    told = usage.Report(
        request_id=request_id,
        connection=it.connection.pk,
        meter_slug="chat",
        meter=None,
        usage=pricing.Usage(input_tokens=1_000_000),
        model="",
        metadata={},
        timestamp=None,
        enforce=False,
    )
    return held_work.settle(hold, told=told, key=it.key)


def test_twenty_at_once_settle_a_hold_once() -> None:
    it = Setting(price="0", when_depleted="block")
    hold = held(it, "20")
    answers = cn.at_once(20, lambda: settled(it, Hold.objects.get(pk=hold.pk), "r1"))
    the_books_hold(answers)
    assert [answer.replayed for answer in answers].count(False) == 1
    it.connection.refresh_from_db()
    assert (it.connection.held, it.connection.balance) == (0, 22)


def test_a_hold_is_settled_or_released_or_expired_and_never_two_of_them() -> None:
    it = Setting(price="0", when_depleted="block")
    hold = held(it, "20")
    late = hold.expires_at
    acts = (
        lambda row: holds.release(row, now=it.now),
        lambda row: holds.expire(row.pk, now=late),
        lambda row: settled(it, row, "r1"),
        lambda row: settled(it, row, "r2"),
    )
    turn = iter(range(20))
    answers = cn.at_once(20, lambda: acts[next(turn) % 4](Hold.objects.get(pk=hold.pk)))
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert {getattr(answer, "code", answer) for answer in refused} <= {
        "hold_settled",
        "hold_released",
    }
    the_books_hold([answer for answer in answers if answer not in refused])
    it.connection.refresh_from_db()
    charged = LedgerEntry.objects.filter(kind="usage").count()
    assert (it.connection.held, it.connection.balance) == (0, 25 - 3 * charged)
    hold.refresh_from_db()
    assert charged == (hold.state == Hold.State.SETTLED)


def test_twenty_sweepers_enter_an_end_once() -> None:
    it = Setting(price="0", rollover_type="none")
    now = it.now + timedelta(days=1)
    with transaction.atomic():
        credits.grant(
            ledger.lock(it.connection.pk), source="bundle", amount=Decimal(5), now=it.now,
            expires_at=now,
        )  # fmt: skip

    def expire() -> Decimal:
        with transaction.atomic():
            return credits.expire(ledger.lock(it.connection.pk), now=now)

    answers = cn.at_once(20, expire)
    the_books_hold(answers)
    assert sorted(answers) == [Decimal(0)] * 19 + [Decimal(5)]
    assert LedgerEntry.objects.filter(kind="expire").count() == 1


def test_cancelled_and_renewed_at_once_it_is_one_of_the_two() -> None:
    it = Setting(price="0")
    end = it.subscription.cycle_end
    turn = iter(range(20))

    def act() -> Any:
        number = next(turn)
        if number % 3 == 0:
            return subscriptions.cancel(it.subscription, now=end)
        if number % 3 == 1:
            return renewals.renew_set(end, merchant=it.merchant)
        return renewals.renew(it.subscription.pk, now=end)

    answers = cn.at_once(20, act)
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert {getattr(answer, "code", answer) for answer in refused} <= {"subscription_ended"}
    the_books_hold([answer for answer in answers if answer not in refused])
    it.subscription.refresh_from_db()
    renewed = it.subscription.status == Subscription.Status.ACTIVE
    assert Cycle.objects.count() == 1 + renewed
    assert credits.balance(it.connection, now=end).total == (50 if renewed else 0)


def test_deleted_under_twenty_draws_each_answered_draw_is_in_the_books() -> None:
    it = Setting(price="0")
    numbers = iter(range(20))

    def act() -> Any:
        number = next(numbers)
        if number == 10:
            return connections.delete(it.connection, now=it.now)
        return report(it.key, it.connection, f"r{number}", input_tokens=500_000)

    answers = cn.at_once(20, act)
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert {type(answer) for answer in refused} <= {errors.NotFound, errors.Forbidden}
    drawn = [answer for answer in answers if answer is not None and answer not in refused]
    the_books_hold(drawn)
    # The one that empties the credits has a line for the debt too.
    lines = LedgerEntry.objects.filter(kind="usage").values("request_id").distinct()
    assert lines.count() == len(drawn)
    assert Event.objects.filter(name="subscription.cancelled").count() == 1
