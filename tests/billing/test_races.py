"""Twenty threads at each money verb at once: nothing is lost, nothing is done twice."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from billing import audit, credits, ledger, subscriptions
from billing.models import LedgerEntry
from tests import card_network as cn
from tests.meters.test_charge import Setting, report

pytestmark = pytest.mark.django_db(transaction=True)


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
