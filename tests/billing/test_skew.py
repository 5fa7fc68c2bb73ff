"""Machines whose clocks are each within a minute of the database's spend the same credits."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from billing import audit, balances, credits, errors, holds, renewals
from billing.models import CreditGrant
from meters import batch, pricing, usage
from tests import factories
from tests.meters.test_charge import Setting, report

pytestmark = pytest.mark.django_db

# Between a machine that is 55 seconds ahead of the database and one that is so much behind.
AHEAD = timedelta(seconds=110)
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


@pytest.mark.parametrize("in_sets", [True, False])
def test_they_roll_over_and_are_cut_in_sets_as_one_by_one(in_sets: bool) -> None:
    merchant = factories.make_merchant()
    plan = factories.make_plan(
        merchant, price="0", credit="25", billing_interval="day", rollover_cap=Decimal(10)
    )
    now = timezone.now()
    began = now - timedelta(days=1, seconds=1)
    subscription = factories.make_subscription(plan, now=began)
    CreditGrant.objects.update(effective_at=now + AHEAD)
    if in_sets:
        renewals.renew_set(now, merchant=merchant)
    else:
        renewals.renew(subscription.pk, now=now)
    assert credits.balance(subscription.connection, now=now).total == 10 + 25


def test_credits_that_begin_later_wait(it: Setting) -> None:
    CreditGrant.objects.update(effective_at=it.now + timedelta(minutes=5))
    assert left(it) == {Decimal(0)}
    with pytest.raises(errors.PaymentRequired):
        charge_enforced(it)
    with pytest.raises(errors.PaymentRequired):
        holds.place(it.merchant, it.connection.pk, amount=Decimal(1), now=it.now)
