"""Machines whose clocks differ by less than a minute spend one and the same credits."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import audit, balances, credits, errors, holds
from billing.models import CreditGrant
from meters import batch, pricing, usage
from tests import factories
from tests.meters.test_charge import Setting, report

pytestmark = pytest.mark.django_db

AHEAD = timedelta(seconds=45)
GIVEN = Decimal(100)


@pytest.fixture
def it() -> Setting:
    """A plan with no credits that stops when they run out; and 100, given by a machine whose clock
    is ahead of ours."""
    shop = Setting(when_depleted="block", price="0", credit="0")
    factories.give(shop.connection, str(GIVEN), now=shop.now + AHEAD)
    return shop


def sound() -> bool:
    return not [row for rule in audit.RULES for row in rule.rows()]


def left(it: Setting) -> set[Decimal]:
    """What is left, as each says who asks."""
    return {
        credits.balance(it.connection, now=it.now).total,
        balances.read(it.key, it.connection.public_id).total,
        sum(
            (row.remaining for row in CreditGrant.objects.all() if row.is_live(it.now)), Decimal(0)
        ),
    }


def charge(it: Setting) -> Any:
    return report(it.key, it.connection, input_tokens=1_000_000).request.draws


def charge_enforced(it: Setting) -> Any:
    return report(it.key, it.connection, input_tokens=1_000_000, enforce=True).request.draws


def charge_many(it: Setting) -> Any:
    told = usage.Report(
        request_id="b1", connection=it.connection.pk, meter_slug="chat", meter=None,
        usage=pricing.Usage(input_tokens=1_000_000), model="", metadata={}, timestamp=None,
        enforce=False,
    )  # fmt: skip
    (answer,) = batch.report(it.key, sandbox=True, told=[told])
    assert not isinstance(answer, errors.LavaError)
    return answer.request.draws


@pytest.mark.parametrize("how", [charge, charge_enforced, charge_many])
def test_credits_of_a_clock_that_is_ahead_are_spent_by_the_others(it: Setting, how: Any) -> None:
    assert left(it) == {GIVEN}
    grant = CreditGrant.objects.get()
    draws = how(it)
    # Drawn from the credits: nothing of it is owed, so no card is asked for it.
    assert [(name, Decimal(amount)) for name, amount in draws] == [(str(grant.pk), Decimal(3))]
    assert left(it) == {GIVEN - 3}
    assert sound()


def test_they_can_be_set_aside(it: Setting) -> None:
    holds.place(it.merchant, it.connection.pk, amount=GIVEN, now=it.now)
    assert sound()


def test_credits_that_begin_later_wait(it: Setting) -> None:
    CreditGrant.objects.update(effective_at=it.now + timedelta(minutes=5))
    assert left(it) == {Decimal(0)}
    with pytest.raises(errors.PaymentRequired):
        charge_enforced(it)
    with pytest.raises(errors.PaymentRequired):
        holds.place(it.merchant, it.connection.pk, amount=Decimal(1), now=it.now)
