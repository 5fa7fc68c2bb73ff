"""The sandbox's clock: it may begin in the past while its books are empty, then only goes on."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from billing import clock, credits, errors
from billing.models import Merchant
from tests import factories

pytestmark = pytest.mark.django_db


def back(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


def test_a_fresh_sandbox_begins_in_the_past_and_goes_on_to_the_present() -> None:
    merchant = factories.make_merchant()
    began = clock.begin(merchant, at=back(60))
    assert timedelta(0) <= merchant.now() - began < timedelta(seconds=30)
    plan = factories.make_plan(merchant, price="0", credit="5", rollover_type="none")
    subscription = factories.make_subscription(plan, now=merchant.now())
    reached = clock.catch_up(merchant)
    assert abs(reached - timezone.now()) < timedelta(seconds=5)
    assert Merchant.objects.get(pk=merchant.pk).clock_offset == timedelta(0)
    subscription.refresh_from_db()
    assert subscription.cycle_index >= 1
    assert credits.balance(subscription.connection, now=reached).total == 5


def test_one_that_is_ahead_stays_ahead() -> None:
    merchant = factories.make_merchant()
    clock.advance(merchant, to=timezone.now() + timedelta(days=3))
    before = merchant.clock_offset
    clock.catch_up(merchant)
    assert merchant.clock_offset == before > timedelta(days=2)


def test_books_with_somebody_in_them_never_go_back() -> None:
    merchant = factories.make_merchant()
    factories.make_connection(merchant)
    with pytest.raises(errors.Conflict, match="only moves forward"):
        clock.begin(merchant, at=back(1))


@pytest.mark.parametrize("days", [-1, 366, 400])
def test_it_begins_in_the_past_year_alone(days: float) -> None:
    with pytest.raises(errors.Refused) as refusal:
        clock.begin(factories.make_merchant(), at=back(days))
    assert refusal.value.param == "at"


def test_live_books_run_on_real_time() -> None:
    live = factories.make_merchant(sandbox=False)
    with pytest.raises(errors.Forbidden):
        clock.begin(live, at=back(1))
    live.clock_offset = timedelta(days=-1)
    with pytest.raises(IntegrityError), transaction.atomic():
        live.save()


def test_the_database_refuses_a_clock_over_a_year_behind() -> None:
    merchant = factories.make_merchant()
    merchant.clock_offset = timedelta(days=-366)
    with pytest.raises(IntegrityError, match="at_most_a_year_behind"), transaction.atomic():
        merchant.save()
