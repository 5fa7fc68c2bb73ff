"""What a forecast says a cycle by volume will give back: by the counts, as the requests say it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext

from billing import clock, closing, subscriptions
from billing.models import Connection
from meters import prices, pricing, usage, volume
from meters.models import UsageRequest
from tests import factories
from tests.meters.test_charge import report

pytestmark = pytest.mark.django_db
THOUSAND = 1000


class Books:
    """A merchant with three subscribers on a plan of no price, and a meter by volume."""

    def __init__(self) -> None:
        self.merchant = factories.make_merchant()
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(self.merchant, price="0", credit="0")
        self.meter = factories.make_meter(self.merchant, self.plan)
        self.dice = random.Random(7)
        self.count = 0

    def publish(self, first: str = "30", second: str = "10", **terms: Any) -> None:
        tiers = [(0, first), (8 * THOUSAND, second)]
        prices.publish(
            self.meter,
            terms=prices.Terms(
                tiers=[pricing.Tier(start=Decimal(at), rate=Decimal(rate)) for at, rate in tiers],
                tier_mode="volume",
                tier_window="cycle",
                **terms,
            ),
            actor="ana",
            now=self.merchant.now(),
        )

    def subscribe(self) -> list[Connection]:
        return [
            factories.make_subscription(self.plan, now=self.merchant.now()).connection
            for _ in range(3)
        ]

    def renew(self, people: list[Connection]) -> None:
        clock.advance(self.merchant, to=max(person.subscription.cycle_end for person in people))

    def use(self, people: list[Connection], *, voids: bool = True, **fields: Any) -> None:
        """A dozen requests each, a third of them late, a quarter taken back."""
        for person in people:
            for number in range(12):
                self.count += 1
                now = self.merchant.now()
                done = report(
                    self.key,
                    person,
                    f"r{self.count}",
                    timestamp=now - timedelta(days=9) if number % 3 == 1 else None,
                    **(fields or {"input_tokens": self.dice.randrange(1, 5 * THOUSAND)}),
                )
                if voids and number % 4 == 2:
                    row = UsageRequest.objects.get(pk=done.request.pk)
                    usage.void(row, reason="double", actor="ana", now=now)


def by_requests(keys: list[UUID]) -> dict[UUID, Decimal]:
    """The same, the way a settlement reckons it."""
    found: dict[UUID, Decimal] = defaultdict(Decimal)
    for outcome in volume.outcomes(keys):
        found[outcome.subscription_id] += outcome.due
    return {key: amount for key, amount in found.items() if amount}


def asked(act: Callable[[], Any]) -> tuple[Any, list[str]]:
    with CaptureQueriesContext(database) as found:
        answer = act()
    return answer, [row["sql"] for row in found.captured_queries]


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.mark.parametrize("rates", [("30", "10"), ("0.0375", "0.0001")])
def test_counts_say_what_the_requests_say_and_no_request_is_read(
    books: Books, rates: tuple[str, str]
) -> None:
    books.publish(*rates)
    clock.advance(books.merchant, to=books.merchant.now() + 2 * volume.LONGEST_CALL)
    people = books.subscribe()
    books.use(people)
    keys = [person.subscription.pk for person in people]
    told, queries = asked(lambda: dict(closing.expected(keys)))
    assert told == by_requests(keys) and len(told) == 3
    assert len(queries) == 2 and not any("usagerequest" in query for query in queries)
    # Settled early, the rest is what was used since.
    volume.settle(keys[0], now=books.merchant.now(), early=True)
    assert keys[0] not in closing.expected(keys)
    books.use(people, voids=False)
    assert dict(closing.expected(keys)) == by_requests(keys)
    # And so in the next cycle, on its own count.
    books.renew(people)
    books.use(people[:2])
    told, queries = asked(lambda: dict(closing.expected(keys)))
    assert told == by_requests(keys) and len(told) == 2
    assert not any("usagerequest" in query for query in queries)


@pytest.mark.parametrize(
    ("terms", "used"),
    [
        # A rate that rounds at every request.
        ({"first": "0.00377", "second": "0.00001"}, {"input_tokens": 4991}),
        # What is taken back may have been free, or have begun a package.
        ({"free_allowance": Decimal(9000)}, {"input_tokens": 4991}),
        ({"package_size": Decimal(7000)}, {"input_tokens": 4991}),
        (
            {"unit": "minutes", "first": "0.07", "second": "0.01"},
            {"input_seconds": Decimal("600000.123457")},
        ),
    ],
)
def test_what_the_counts_do_not_say_is_read_from_the_requests(
    books: Books, terms: dict[str, Any], used: dict[str, Any]
) -> None:
    books.publish(**terms)
    clock.advance(books.merchant, to=books.merchant.now() + 2 * volume.LONGEST_CALL)
    people = books.subscribe()
    books.use(people, **used)
    keys = [person.subscription.pk for person in people]
    told, queries = asked(lambda: dict(closing.expected(keys)))
    assert told == by_requests(keys) and len(told) == 3
    assert len(queries) <= 4


def test_a_cycle_of_two_prices_is_read_from_the_requests(books: Books) -> None:
    books.publish()
    people = books.subscribe()
    books.use(people)
    books.publish("90", "40")
    books.use(people)
    keys = [person.subscription.pk for person in people]
    told, queries = asked(lambda: dict(closing.expected(keys)))
    assert told == by_requests(keys) and len(told) == 3
    assert any("usagerequest" in query for query in queries)
    # Once that cycle is over the newer price is the only one.
    books.renew(people)
    books.use(people)
    told, queries = asked(lambda: dict(closing.expected(keys)))
    assert told == by_requests(keys) and len(told) == 3
    assert not any("usagerequest" in query for query in queries)


def test_more_customers_cost_no_more_queries_and_nobody_by_volume_one(books: Books) -> None:
    people = books.subscribe()
    books.use(people)
    keys = [person.subscription.pk for person in people]
    assert len(asked(lambda: closing.expected(keys))[1]) == 1
    books.publish()
    people += [row for _ in range(3) for row in books.subscribe()]
    books.use(people)
    keys = [person.subscription.pk for person in people]
    assert len(keys) == 12
    told, queries = asked(lambda: dict(closing.expected(keys)))
    assert told == by_requests(keys) and len(queries) <= 4
    # Whose plan has ended is settled by its end, and expected no more.
    subscriptions.end(people[0].subscription, now=books.merchant.now())
    assert dict(closing.expected(keys)) == by_requests(keys)
