"""The end game of a renewal that is not paid: grace, tries on their days, one mail a stage."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing import clock, plans, renewals
from billing.models import Connection, OutboxMessage, Payment, Subscription
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(card_network: CardNetwork) -> cn.Shop:
    return cn.Shop(rollover_type="none")


@pytest.fixture
def connection(shop: cn.Shop, card_network: CardNetwork) -> Connection:
    made = shop.subscribe()
    made.customer.email = "kim@customer.example"
    made.customer.save()
    cn.behave_as(card_network, made, cn.DECLINES_LATER)
    return made


def mails() -> list[str]:
    rows = OutboxMessage.objects.order_by("pk").values_list("subject", flat=True)
    return [row for row in rows if "Receipt" not in row]


def tries() -> int:
    return Payment.objects.filter(purpose="renewal").count()


def test_one_mail_a_stage_then_it_ends(shop: cn.Shop, connection: Connection) -> None:
    end = connection.subscription.cycle_end
    told = []
    for day in range(9):
        clock.advance(shop.merchant, to=end + timedelta(days=day, hours=1))
        told.append(len(mails()))
    assert [subject.split()[0] for subject in mails() if "credits" not in subject] == [
        "Northwind",
        "Last",
        "Your",
    ]
    # The first decline, and that the credits of the cycle are gone; day 5: the last warning; day 7.
    assert told == [2, 2, 2, 2, 2, 3, 3, 4, 4]
    assert Subscription.objects.get().status == "cancelled"
    assert tries() == 5


def test_the_gateway_may_serve_until_grace_is_over(shop: cn.Shop, connection: Connection) -> None:
    subscription = connection.subscription
    assert subscription.grace_ends_at is None
    end = subscription.cycle_end
    clock.advance(shop.merchant, to=end)
    assert connection.subscription.grace_ends_at == end + timedelta(days=3)
    plans.set_limits(shop.plan, low_credit_threshold=None, grace_days=0)
    assert connection.subscription.grace_ends_at == end


def test_paid_again_nothing_is_overdue(
    shop: cn.Shop, connection: Connection, card_network: CardNetwork
) -> None:
    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end + timedelta(days=2))
    cn.behave_as(card_network, connection, cn.GOOD)
    clock.advance(shop.merchant, to=end + timedelta(days=4))
    subscription = connection.subscription
    assert (subscription.status, subscription.grace_ends_at) == ("active", None)


def test_a_worker_that_slept_through_tries_makes_no_two_in_a_day(
    shop: cn.Shop, connection: Connection
) -> None:
    subscription = connection.subscription
    end = subscription.cycle_end
    counts = []
    for moment in (
        end,
        end + timedelta(days=6),
        end + timedelta(days=6, hours=1),
        end + timedelta(days=6, hours=23),
        end + timedelta(days=7, hours=1),
        end + timedelta(days=7, hours=2),
    ):
        for _ in range(3):
            renewals.renew(subscription.pk, now=moment)
        counts.append(tries())
    assert counts == [1, 2, 2, 2, 3, 3]


def test_beat_and_workers_twice_make_one_try_a_day(shop: cn.Shop, connection: Connection) -> None:
    from billing import sweep

    end = connection.subscription.cycle_end
    clock.advance(shop.merchant, to=end + timedelta(days=1), run=False)
    for _ in range(3):
        sweep.run(shop.merchant, now=shop.now)
    assert tries() == 1
    assert [mail for mail in mails() if "could not charge" in mail] == mails()[:1]
