"""Holds: what is set aside is spent by its holder or by nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection as database
from django.db import connections
from django.utils import timezone

from billing import audit, credits, errors, holds
from billing import connections as people
from billing.models import Connection, Hold
from tests import factories
from tests.meters.test_charge import Setting, report

pytestmark = pytest.mark.django_db


@pytest.fixture
def it() -> Setting:
    """25 of credits, and a plan that stops when they run out."""
    return Setting(when_depleted="block", price="0")


def place(it: Setting, amount: str, **kwargs: Any) -> Hold:
    return holds.place(it.merchant, it.connection.pk, amount=Decimal(amount), now=it.now, **kwargs)


def held(it: Setting) -> Decimal:
    it.connection.refresh_from_db()
    return it.connection.held


def sound() -> bool:
    return not [row for rule in audit.RULES for row in rule.rows()]


def test_what_is_held_cannot_be_held_again(it: Setting) -> None:
    place(it, "20")
    with pytest.raises(errors.PaymentRequired) as refused:
        place(it, "5.0000000001")
    assert refused.value.details["available"] == "5.0000000000"
    place(it, "5")
    assert held(it) == 25 and sound()


def test_what_is_held_cannot_be_spent_with_enforce(it: Setting) -> None:
    place(it, "20")
    with pytest.raises(errors.PaymentRequired) as refused:
        report(it.key, it.connection, input_tokens=2_000_000, enforce=True)
    assert refused.value.details["available"] == "5.0000000000"
    assert report(it.key, it.connection, "r2", input_tokens=1_666_666, enforce=True)


def test_usage_that_has_run_is_recorded_whatever_is_held(it: Setting) -> None:
    place(it, "20")
    report(it.key, it.connection, input_tokens=4_000_000)
    assert credits.balance(it.connection, now=it.now).total == 13
    with pytest.raises(errors.PaymentRequired) as refused:
        place(it, "1")
    assert refused.value.details["available"] == "0"
    assert sound()


def test_a_released_hold_is_free_again_and_once(it: Setting) -> None:
    hold = place(it, "20")
    assert holds.release(hold, now=it.now).state == Hold.State.RELEASED
    assert holds.release(hold, now=it.now).ended_at == it.now
    assert held(it) == 0 and sound()


def test_a_balance_shows_what_is_held(it: Setting) -> None:
    place(it, "20")
    found = credits.balance(it.connection, now=it.now)
    assert (found.total, found.held, found.available) == (25, 20, 5)


def test_the_sweep_gives_back_what_a_dead_holder_left(it: Setting) -> None:
    place(it, "20", expires_in=timedelta(minutes=1))
    kept = place(it, "1", expires_in=timedelta(minutes=10))
    assert holds.sweep(now=it.now + timedelta(seconds=59)) == 0
    assert holds.sweep(now=it.now + timedelta(seconds=60)) == 1
    assert holds.sweep(now=it.now + timedelta(seconds=60)) == 0
    assert held(it) == 1 and sound()
    kept.refresh_from_db()
    assert kept.state == Hold.State.OPEN


def test_an_overage_plan_holds_beyond_the_credits_up_to_its_cap() -> None:
    free = Setting()
    assert place(free, "1000")
    capped = Setting(overage_cap=Decimal(5))
    place(capped, "30")
    with pytest.raises(errors.PaymentRequired):
        place(capped, "0.0000000001")
    with pytest.raises(errors.PaymentRequired):
        report(capped.key, capped.connection, input_tokens=1, enforce=True)


def test_credits_that_have_ended_cannot_be_held() -> None:
    it = Setting(when_depleted="block", price="0", rollover_type="none")
    with pytest.raises(errors.PaymentRequired):
        holds.place(it.merchant, it.connection.pk, amount=Decimal(1), now=it.subscription.cycle_end)


@pytest.mark.parametrize("amount", ["0", "-1", "1000000000000"])
def test_an_amount_that_is_none_is_refused(it: Setting, amount: str) -> None:
    with pytest.raises(errors.Invalid):
        place(it, amount)
    with pytest.raises(errors.Invalid):
        place(it, "1", expires_in=timedelta(days=2))


def test_another_merchants_connection_is_not_found(it: Setting) -> None:
    other = Setting()
    with pytest.raises(errors.NotFound):
        holds.place(other.merchant, it.connection.pk, amount=Decimal(1), now=it.now)


def test_no_hold_without_a_subscription_or_on_a_disabled_connection(it: Setting) -> None:
    alone = factories.make_connection(it.merchant)
    with pytest.raises(errors.Forbidden):
        holds.place(it.merchant, alone.pk, amount=Decimal(1), now=it.now)
    people.set_enabled(it.connection, enabled=False, now=it.now)
    with pytest.raises(errors.Forbidden):
        place(it, "1")


def test_the_database_keeps_a_hold_of_a_connection_with_its_merchant(it: Setting) -> None:
    other = Setting()
    hold = place(it, "1")
    with pytest.raises(Exception, match="a_hold_is_of_its_connections_merchant"):
        Hold.objects.filter(pk=hold.pk).update(merchant=other.merchant)
        with database.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("draws", [40])
def test_parallel_holds_and_enforced_draws_pass_exactly_what_there_is(draws: int) -> None:
    """25 of credits, 40 takers of 1 each, half of them holds: 25 pass, whoever comes first."""
    it = Setting(when_depleted="block", price="0")
    million = 333_333
    passed: list[str] = []
    gate = threading.Barrier(8)

    def take(number: int) -> None:
        try:
            if number % 2:
                place(it, "1")
            else:
                report(it.key, it.connection, f"r{number}", input_tokens=million, enforce=True)
            passed.append("ok")
        except errors.PaymentRequired:
            pass

    def work(numbers: list[int], act: Callable[[int], None]) -> None:
        gate.wait()
        try:
            for number in numbers:
                act(number)
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=work, args=(list(range(place, draws, 8)), take))
        for place in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = Connection.objects.get(pk=it.connection.pk)
    left = credits.balance(row, now=timezone.now())
    assert len(passed) == 25
    assert 0 <= left.total - left.held < Decimal("0.001") and sound()
