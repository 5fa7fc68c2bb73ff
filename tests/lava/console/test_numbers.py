"""The overview's numbers: each is the sum of its rows, over the days that were asked for."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import Sum
from moneyed import Money

from billing import credits, ledger, refunds, upgrades
from billing.models import CreditGrant, Payment, Subscription
from lava.console import numbers, periods
from lava.demo.card_network.process import CardNetwork
from meters import rollups
from meters.models import UsageRequest
from tests import card_network as cn
from tests import factories
from tests.lava.console.shop import Shop
from tests.lava.console.test_wall import address

pytestmark = pytest.mark.django_db


def facts(shop: Shop, **query: str) -> numbers.Facts:
    merchant = shop.sandbox.merchant
    now = merchant.now()
    period = periods.read(query, now=now, zone=merchant.time_zone)
    return numbers.facts(merchant, now=now, period=period)


def tile(found: numbers.Facts, name: str) -> numbers.Tile:
    return next(one for one in numbers.tiles(found) if one.name == name)


@pytest.mark.parametrize("summed", [False, True])
def test_usage_is_the_requests_to_the_last_digit_summed_or_not(ours: Shop, summed: bool) -> None:
    books = ours.sandbox
    for number in range(5):
        books.use(f"more-{number}", 123_457 + number, provider_cost=Decimal("0.0001"))
    if summed:
        rollups.compact()
    found = facts(ours)
    rows = UsageRequest.objects.of(books.merchant)
    charged = rows.aggregate(sum=Sum("charged"))["sum"]
    assert tile(found, "Usage charged").amount == charged
    (series,) = found.series
    assert (series.count, series.quantity) == (6, rows.aggregate(sum=Sum("quantity"))["sum"])
    costed = rows.exclude(provider_cost=None)
    assert series.cost == costed.aggregate(sum=Sum("provider_cost"))["sum"] == Decimal("0.0005")
    assert series.charged_with_cost == costed.aggregate(sum=Sum("charged"))["sum"]


def test_outstanding_credit_is_by_month_of_end_and_what_was_given_is_not_paid_for(
    ours: Shop,
) -> None:
    books, now = ours.sandbox, ours.sandbox.merchant.now()
    before = facts(ours)
    end = datetime(now.year + 1, 3, 10, tzinfo=UTC)
    from django.db import transaction

    with transaction.atomic():
        locked = ledger.lock(books.connection.pk)
        credits.grant(
            locked, source="bundle", amount=Decimal(20), now=now, expires_at=end,
            payment=books.payment,
        )  # fmt: skip
        credits.give(locked, amount=Decimal(7), reason="x", actor="y", now=now)
    found = facts(ours)
    left = CreditGrant.objects.of(books.merchant).aggregate(sum=Sum("remaining"))["sum"]
    assert found.outstanding == left == before.outstanding + 27
    ends = {row.month: row for row in found.credit}
    assert ends[date(end.year, 3, 1)].left == 20
    # Paid 25, of which 1 went back, for 20 of credit: at most its face value counts.
    assert found.deferred == before.deferred + 20


def test_churn_counts_who_was_there_and_left_in_the_time(ours: Shop) -> None:
    books = ours.sandbox
    now = books.merchant.now()
    assert facts(ours).pulse.churn is None
    row = Subscription.objects.get(pk=books.subscription.pk)
    Subscription.objects.filter(pk=row.pk).update(
        started_at=now - timedelta(days=40), ended_at=now, status="cancelled"
    )
    found = facts(ours, days="7")
    assert (found.pulse.there, found.pulse.lost, found.pulse.churn) == (1, 1, 100)
    assert tile(found, "Churn").words == "100.0 %"
    assert facts(ours, days="90").pulse.churn is None


def test_breakage_is_what_ended_unused(ours: Shop) -> None:
    from django.db import transaction

    books = ours.sandbox
    with transaction.atomic():
        locked = ledger.lock(books.connection.pk)
        ended = credits.end(locked, pool=1, now=books.merchant.now())
    assert ended == 22
    assert tile(facts(ours), "Breakage").amount == 22


def of(shop: cn.Shop) -> numbers.Facts:
    period = periods.read({}, now=shop.now, zone="UTC")
    return numbers.facts(shop.merchant, now=shop.now, period=period)


def test_after_a_refund_in_part_what_is_left_is_deferred_whole(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    payment = cn.buy(connection, factories.make_bundle(shop.plan), now=shop.now)
    refunds.refund(payment, amount=Money(4, "USD"), reason="x", actor="Ana", key="k", now=shop.now)
    found = of(shop)
    assert (found.outstanding, found.deferred) == (31, 31)


def test_credits_given_in_payment_are_deferred_with_the_new_and_no_breakage(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop(rollover_type="none")
    bigger = factories.make_plan(shop.merchant, price="100", credit="100", name="Scale")
    connection = shop.subscribe()
    shop.use(connection, "r1", "5")
    upgrades.switch(connection.subscription, plan=bigger, now=shop.now)
    found = of(shop)
    # Paid 25 and 80, of which 5 were used.
    assert (found.outstanding, round(found.deferred, 10)) == (100, 100)
    assert tile(found, "Breakage").amount == 0


def test_revenue_is_of_the_days_asked_for_and_opens_just_its_payments(ours: Shop) -> None:
    books = ours.sandbox
    today = books.merchant.now().date()
    Payment.objects.filter(pk=books.payment.pk).update(
        settled_at=datetime(today.year, today.month, today.day, tzinfo=UTC) - timedelta(days=9)
    )
    assert tile(facts(ours, days="7"), "Revenue").amount == 0
    first, last = today - timedelta(days=10), today - timedelta(days=9)
    found = facts(ours, **{"from": first.isoformat(), "to": last.isoformat()})
    revenue = tile(found, "Revenue")
    assert revenue.amount == 25
    assert books.payment.public_id in ours.client().get(revenue.url).content.decode()
    assert books.payment.public_id not in (
        ours.client().get(tile(facts(ours, days="7"), "Revenue").url).content.decode()
    )


@pytest.mark.parametrize(
    "query",
    [{"days": "5"}, {"days": "x"}, {"from": "2026-01-05", "to": "2026-01-01"},
     {"from": "2020-01-01", "to": "2026-01-01"}, {"from": "no", "to": "no"}],
)  # fmt: skip
def test_a_time_that_cannot_be_read_is_the_usual_one(query: dict[str, str]) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    period = periods.read(query, now=now, zone="UTC")
    assert (period.days, period.last) == (30, date(2026, 3, 1))


def test_a_period_keeps_local_days_over_a_change_of_the_clocks() -> None:
    now = datetime(2026, 3, 30, 12, tzinfo=UTC)
    period = periods.read({"days": "7"}, now=now, zone="Europe/Amsterdam")
    assert (period.end - period.start.astimezone(UTC)) == timedelta(days=7) - timedelta(hours=1)
    assert period.before.last == date(2026, 3, 23) and period.before.days == 7


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("usage", "northwind plan"), ("plans", "Northwind plan"), ("credit", "22"),
     ("numbers", "Credits outstanding")],
)  # fmt: skip
def test_each_chart_and_number_is_a_csv(ours: Shop, name: str, wanted: str) -> None:
    answer: Any = ours.client().get(address(f"export-{name}", {}), {"days": "30"})
    rows = list(csv.reader(io.StringIO(answer.getvalue().decode())))
    assert len(rows) > 1 and len({len(row) for row in rows}) == 1
    text = " ".join(" ".join(row) for row in rows)
    assert (wanted in text) or name == "usage"


def test_what_needs_somebody_is_said_with_its_page(ours: Shop) -> None:
    page = ours.client().get("/console/").content.decode()
    if "Needs you" in page:
        assert "1 gap to mend" in page and "/console/reconcile" in page
    rows = numbers.needs(facts(ours))
    assert {row["url"] for row in rows} >= {"/console/reconcile"}
