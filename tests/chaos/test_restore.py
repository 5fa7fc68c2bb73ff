"""Books restored to a point in time: the card network has taken what they know nothing of. Every
difference is found, what can be entered is entered, and nothing is charged twice.

The restore is a savepoint that is rolled back: the charges in between were real, over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from io import StringIO

import pytest
import time_machine
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from billing import clock, credits, refunds, sweep, topups
from billing.models import Connection, LedgerEntry, Payment, Plan
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


@contextmanager
def restored() -> Iterator[None]:
    """What is done inside is done at the network, and forgotten in the books."""
    point = transaction.savepoint()
    yield
    transaction.savepoint_rollback(point)


def reconciled(later: timedelta = timedelta(minutes=2)) -> tuple[str, str]:
    """What the command finds, mends, and finds again; later, when nothing is on its way."""
    with time_machine.travel(timezone.now() + later, tick=True):
        first, second = StringIO(), StringIO()
        with pytest.raises(SystemExit):
            call_command("reconcile", stdout=first)
        try:
            call_command("reconcile", "--mend", stdout=second, stderr=StringIO())
        except SystemExit:
            pass
    return first.getvalue(), second.getvalue()


def left(connection: Connection, shop: cn.Shop) -> credits.Balance:
    """What there is once all is entered, some minutes on."""
    return credits.balance(connection, now=shop.now + timedelta(minutes=5))


def assert_all_is_well(shop: cn.Shop) -> None:
    assert cn.taken(shop.merchant) == cn.ours(shop.merchant)
    out = StringIO()
    call_command("audit", stdout=out)
    assert out.getvalue() == ""


def test_a_renewal_and_an_overage_that_were_lost_are_entered_and_not_charged_again(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "before", "36")
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end, run=False)
    with restored():
        sweep.run(shop.merchant, now=end)
        made = Payment.objects.filter(status="succeeded").values_list("purpose", flat=True)
        assert sorted(made) == ["overage", "renewal", "subscription"]
    charged = cn.taken(shop.merchant)
    assert len(charged) == 3 and Payment.objects.count() == 1

    found, rest = reconciled()
    assert found.count("GAP not_ours") == 2
    assert rest == ""
    # Only now the workers start: there is nothing left for them to charge.
    sweep.run(shop.merchant, now=shop.now)
    assert cn.taken(shop.merchant) == charged
    balance = left(connection, shop)
    assert (balance.total, balance.debt) == (Decimal(25), Decimal(0))
    assert_all_is_well(shop)


def test_a_bundle_and_a_top_up_that_were_lost_are_given(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    topups.configure(connection.subscription, bundle=bundle, threshold=Decimal(5), now=shop.now)
    with restored():
        cn.buy(connection, bundle, now=shop.now)
    shop.use(connection, "low", "22")
    with restored():
        assert topups.top_up(connection.pk, now=shop.now) is not None
    found, rest = reconciled()
    assert found.count("GAP not_ours") == 2 and rest == ""
    assert left(connection, shop).total == Decimal(25 + 20 - 22)
    # Enough is there: the next look buys nothing more.
    assert topups.top_up(connection.pk, now=shop.now) is None
    assert_all_is_well(shop)


def test_a_customer_who_came_after_the_backup_is_left_for_a_person(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    with restored():
        shop.subscribe()
    found, rest = reconciled()
    assert found.count("GAP not_ours") == rest.count("GAP not_ours") == 1
    assert not Connection.objects.exists() and not Payment.objects.exists()


def test_what_was_charged_again_before_anybody_reconciled_is_not_entered_twice(
    card_network: CardNetwork,
) -> None:
    """Workers that were started too early: the second charge stands, the first is shown."""
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end, run=False)
    with restored():
        sweep.run(shop.merchant, now=end)
    sweep.run(shop.merchant, now=end)
    found, rest = reconciled()
    assert found.count("GAP not_ours") == rest.count("GAP not_ours") == 1
    assert Payment.objects.filter(purpose="renewal", status="succeeded").count() == 1
    assert left(connection, shop).total == Decimal(50)


def test_a_refund_that_was_lost_takes_its_credits(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    payment = Payment.objects.get()
    with restored():
        refunds.refund(payment, reason="gift", actor="ana", key="r1", now=shop.now)
    found, rest = reconciled()
    assert "GAP refund_not_entered" in found and rest == ""
    assert left(connection, shop).total == 0
    assert_all_is_well(shop)


def test_an_upgrade_that_was_lost_is_made_on_its_terms(card_network: CardNetwork) -> None:
    from billing import upgrades

    shop = cn.Shop()
    connection = shop.subscribe()
    pro: Plan = factories.make_plan(shop.merchant, price="100", credit="120", name="Pro")
    with restored():
        upgrades.switch(connection.subscription, plan=pro, now=shop.now)
    found, rest = reconciled()
    assert found.count("GAP not_ours") == 1 and rest == ""
    connection.refresh_from_db()
    assert connection.subscription.plan == pro
    assert left(connection, shop).total == Decimal(120)
    assert_all_is_well(shop)


def test_what_was_lost_is_entered_for_the_day_it_was_paid(card_network: CardNetwork) -> None:
    """Mended days after: receipt and cycle say when the card paid, on the merchant's own clock."""
    shop = cn.Shop()
    connection = shop.subscribe()
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end, run=False)
    with restored():
        sweep.run(shop.merchant, now=end)
    paid = shop.now
    found, rest = reconciled(timedelta(days=4))
    assert found.count("GAP not_ours") == 1 and rest == ""
    payment = Payment.objects.get(purpose="renewal")
    assert payment.settled_at is not None
    for moment in (payment.created_at, payment.settled_at):
        assert abs(moment - paid) < timedelta(minutes=1)
    line = LedgerEntry.objects.filter(payment=payment).get()
    assert (line.kind, line.occurred_at) == ("grant", payment.settled_at)


def test_a_lost_payment_is_not_entered_before_what_the_books_say_since(
    card_network: CardNetwork,
) -> None:
    """Usage came after the restore: the ledger goes forward only."""
    shop = cn.Shop()
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    with restored():
        cn.buy(connection, bundle, now=shop.now)
    clock.advance(shop.merchant, to=shop.now + timedelta(days=2), run=False)
    shop.use(connection, "since", "1")
    reconciled()
    assert left(connection, shop).total == Decimal(34)
    lines = LedgerEntry.objects.filter(connection=connection).order_by("seq")
    assert [line.kind for line in lines] == ["grant", "usage", "grant"]
    assert lines[2].occurred_at >= lines[1].occurred_at
    assert_all_is_well(shop)


def test_a_plan_whose_renewals_were_lost_with_it_is_not_renewed_at_once(
    card_network: CardNetwork,
) -> None:
    """They name a subscription that is gone, so a person looks; begun in the past, the plan would
    be due at once and what they paid be charged again."""
    shop = cn.Shop(billing_interval="day")
    connection = factories.make_connection(shop.merchant, now=shop.now)
    with restored():
        cn.subscribe(shop.plan, now=shop.now, connection=connection)
        shop.renew(connection)
    assert len(cn.taken(shop.merchant)) == 2
    shop.merchant.refresh_from_db()
    later = timedelta(days=1, hours=1)
    begins = shop.now + later
    _, rest = reconciled(later)
    assert rest.count("GAP not_ours") == 1
    with time_machine.travel(timezone.now() + later, tick=True):
        sweep.run(shop.merchant, now=shop.now)
    assert len(cn.taken(shop.merchant)) == 2
    current = connection.subscription
    assert current.cycle_index == 0 and current.cycle_start >= begins
