"""The one-trip charge: what it writes, what it refuses, what it answers."""

from __future__ import annotations

import dataclasses
import json
import threading
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.db import connection as database
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from billing import connections as people
from billing import errors, keys
from billing.models import Connection, CreditGrant, LedgerEntry, SecretKey
from meters import pricing, usage
from meters.models import UsageRequest
from tests import factories

pytestmark = pytest.mark.django_db


def report(key: str, connection: Connection, request_id: str = "r1", **fields: Any) -> Any:
    values: dict[str, Any] = {
        "model": "",
        "metadata": {},
        "timestamp": None,
        "enforce": False,
        "meter": None,
        "meter_slug": "chat",
    }
    used = {name: fields.pop(name) for name in list(fields) if name in pricing.Usage.__slots__}
    return usage.report(
        key,
        sandbox=True,
        told=usage.Report(
            request_id=request_id,
            connection=connection.pk,
            usage=pricing.Usage(**used),
            **(values | fields),
        ),
    )


class Setting:
    """A merchant with a plan of 25, a graduated meter and one subscriber."""

    def __init__(self, **plan: Any) -> None:
        self.merchant = factories.make_merchant()
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(self.merchant, **plan)
        self.meter = factories.make_meter(
            self.merchant, self.plan, tiers=[("0", "3"), ("10000000", "2")]
        )
        self.now = timezone.now()
        self.subscription = factories.make_subscription(self.plan, now=self.now)
        self.connection = self.subscription.connection


@pytest.fixture
def it() -> Setting:
    return Setting()


def test_a_request_over_a_boundary_is_priced_in_slices(it: Setting) -> None:
    charged = report(it.key, it.connection, input_tokens=8_000_000, output_tokens=4_000_000)
    assert charged.request.fee == Decimal("34")
    assert charged.request.slices == [
        [0, "10000000", "30.0000000000"],
        [1, "2000000", "4.0000000000"],
    ]


def test_a_draw_spans_grants_and_the_rest_is_debt(it: Setting) -> None:
    factories.give(it.connection, "5", now=it.now)
    charged = report(it.key, it.connection, input_tokens=12_000_000)
    assert [Decimal(amount) for _, amount in charged.request.draws] == [25, 5, 4]
    assert charged.request.draws[-1][0] is None
    it.connection.refresh_from_db()
    assert (it.connection.balance, it.connection.debt) == (Decimal(-4), Decimal(4))


def test_the_same_id_and_body_is_answered_again_and_not_charged(it: Setting) -> None:
    first = report(it.key, it.connection, input_tokens=1_000_000)
    again = report(it.key, it.connection, input_tokens=1_000_000)
    assert again.replayed and not first.replayed
    assert again.request.pk == first.request.pk
    assert again.request.total_remaining == first.request.total_remaining == Decimal(22)
    assert UsageRequest.objects.count() == 1


def test_the_same_id_with_another_body_is_a_conflict(it: Setting) -> None:
    report(it.key, it.connection, input_tokens=1)
    with pytest.raises(errors.Conflict) as refused:
        report(it.key, it.connection, input_tokens=2)
    assert (refused.value.code, refused.value.param) == ("request_id_reused", "request_id")


def test_the_same_id_of_another_merchant_is_its_own(it: Setting) -> None:
    other = Setting()
    report(it.key, it.connection, input_tokens=1)
    assert not report(other.key, other.connection, input_tokens=2).replayed


def test_another_merchants_connection_is_not_found(it: Setting) -> None:
    other = Setting()
    with pytest.raises(errors.NotFound):
        report(other.key, it.connection, input_tokens=1)
    assert UsageRequest.objects.count() == 0


def test_a_revoked_key_stops_with_the_next_request(it: Setting) -> None:
    report(it.key, it.connection, input_tokens=1)
    keys.revoke(SecretKey.objects.get(merchant=it.merchant))
    with pytest.raises(errors.Unauthenticated):
        report(it.key, it.connection, "r2", input_tokens=1)


def test_a_meter_that_is_not_on_the_plan_is_refused_and_writes_nothing(it: Setting) -> None:
    factories.make_meter(it.merchant, slug="other")
    with pytest.raises(errors.Forbidden) as refused:
        report(it.key, it.connection, meter_slug="other", input_tokens=1)
    assert refused.value.code == "meter_not_on_plan"
    assert not UsageRequest.objects.exists()


def test_a_percentage_meter_without_a_cost_is_refused(it: Setting) -> None:
    factories.make_meter(
        it.merchant, it.plan, slug="cost", rate_type="percentage", tiers=[("0", "20")]
    )
    with pytest.raises(errors.Refused) as refused:
        report(it.key, it.connection, meter_slug="cost", input_tokens=1)
    assert refused.value.code == "cost_unknown"
    charged = report(
        it.key, it.connection, meter_slug="cost", input_tokens=1, provider_cost=Decimal("0.5")
    )
    assert charged.request.fee == Decimal("0.1")


def test_ninety_seconds_at_ten_cents_a_minute_cost_fifteen_cents(it: Setting) -> None:
    factories.make_meter(it.merchant, it.plan, slug="voice", unit="minutes", tiers=[("0", "0.10")])
    charged = report(it.key, it.connection, meter_slug="voice", input_seconds=Decimal(90))
    assert charged.request.fee == Decimal("0.15")


@pytest.mark.parametrize(
    ("shift", "code"),
    [(timedelta(minutes=6), "timestamp_in_future"), (timedelta(days=-31), "timestamp_too_old")],
)
def test_timestamps_out_of_reach_are_refused(it: Setting, shift: timedelta, code: str) -> None:
    with pytest.raises(errors.Refused) as refused:
        report(it.key, it.connection, input_tokens=1, timestamp=it.merchant.now() + shift)
    assert (refused.value.code, refused.value.param) == (code, "timestamp")


def test_late_usage_draws_from_the_current_credits_and_is_marked(it: Setting) -> None:
    charged = report(it.key, it.connection, input_tokens=1, timestamp=it.now - timedelta(days=2))
    assert charged.request.late


def test_enforce_refuses_what_credits_do_not_cover_on_a_blocking_plan() -> None:
    it = Setting(when_depleted="block")
    with pytest.raises(errors.PaymentRequired):
        report(it.key, it.connection, input_tokens=9_000_000, enforce=True)
    assert not UsageRequest.objects.exists()
    it.connection.refresh_from_db()
    assert it.connection.balance == Decimal(25)


def test_usage_that_has_run_is_recorded_below_zero_on_a_blocking_plan() -> None:
    it = Setting(when_depleted="block")
    charged = report(it.key, it.connection, input_tokens=9_000_000)
    assert charged.request.total_remaining == Decimal(-2)


def test_an_overage_cap_holds_back_enforced_requests() -> None:
    it = Setting(overage_cap=Decimal(1))
    with pytest.raises(errors.PaymentRequired):
        report(it.key, it.connection, input_tokens=9_000_000, enforce=True)
    assert report(it.key, it.connection, input_tokens=8_500_000, enforce=True).request.fee


def test_credits_that_have_ended_pay_nothing(it: Setting) -> None:
    CreditGrant.objects.filter(connection=it.connection).update(
        effective_at=it.now - timedelta(days=2), expires_at=it.now - timedelta(days=1)
    )
    charged = report(it.key, it.connection, input_tokens=1_000_000)
    assert charged.request.draws == [[None, "3.0000000000"]]
    kinds = list(
        LedgerEntry.objects.filter(connection=it.connection).values_list("kind", flat=True)
    )
    assert kinds == ["grant", "expire", "usage"]


def test_a_price_edited_now_counts_from_the_next_request(it: Setting) -> None:
    from meters.models import MeterPrice

    first = report(it.key, it.connection, input_tokens=1_000_000)
    price = MeterPrice(
        merchant=it.merchant,
        meter=it.meter,
        version=2,
        tier_starts=[Decimal(0)],
        tier_rates=[Decimal(1)],
    )
    price.save()
    it.meter.price = price
    it.meter.save()
    second = report(it.key, it.connection, "r2", input_tokens=1_000_000)
    assert (first.request.fee, second.request.fee) == (Decimal(3), Decimal(1))
    assert UsageRequest.objects.get(request_id="r1").price.version == 1


def test_a_deleted_connection_takes_no_more_requests(it: Setting) -> None:
    people.delete(it.connection, now=it.now)
    with pytest.raises(errors.NotFound):
        report(it.key, it.connection, input_tokens=1)


def test_a_request_points_at_nothing_of_another_merchant(it: Setting) -> None:
    other = Setting()
    mine = report(it.key, it.connection, input_tokens=1).request
    sibling = factories.make_meter(it.merchant, it.plan, slug="other")
    for column, value in (
        ("merchant_id", other.merchant.pk),
        ("connection_id", other.connection.pk),
        ("meter_id", other.meter.pk),
        ("price_id", other.meter.price_id),
        ("meter_id", sibling.pk),
        ("price_id", sibling.price_id),
    ):
        with pytest.raises(IntegrityError), transaction.atomic(), database.cursor() as cursor:
            cursor.execute(
                f"UPDATE meters_usagerequest SET {column} = %s WHERE id = %s", [value, mine.pk]
            )


def test_a_charge_is_one_trip(it: Setting, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        report(it.key, it.connection, input_tokens=1)


amounts = st.decimals(min_value=0, max_value=10**6, places=10)
tiers = st.lists(st.integers(1, 10**7), max_size=5, unique=True).flatmap(
    lambda starts: st.lists(amounts, min_size=len(starts) + 1, max_size=len(starts) + 1).map(
        lambda rates: tuple(
            pricing.Tier(start=Decimal(start), rate=rate)
            for start, rate in zip([0, *sorted(starts)], rates, strict=True)
        )
    )
)
by_kind = st.lists(amounts, min_size=4, max_size=4).flatmap(
    lambda rates: st.sampled_from(
        [("input", "output"), ("output", "cache_read", "input"), pricing.KINDS]
    ).map(
        lambda kinds: tuple(
            pricing.Tier(Decimal(0), rate, kind=kind)
            for kind, rate in zip(kinds, rates, strict=False)
        )
    )
)


@st.composite
def prices(draw: st.DrawFn) -> pricing.Price:
    """Any price that may be published."""
    if draw(st.integers(0, 3)) == 0:
        return pricing.Price("fixed", "tokens_1m", "input+output", draw(by_kind))
    rate_type = draw(st.sampled_from(pricing.RATE_TYPES))
    flats = draw(st.one_of(st.just([]), st.lists(amounts, min_size=6, max_size=6)))
    return pricing.Price(
        rate_type=rate_type,
        unit=draw(st.sampled_from(pricing.UNITS)),
        token_basis=draw(st.sampled_from(pricing.TOKEN_BASES)),
        tiers=tuple(
            dataclasses.replace(tier, flat=flats[place] if flats else Decimal(0))
            for place, tier in enumerate(draw(tiers))
        ),
        free_allowance=Decimal(draw(st.sampled_from([0, 0, 1, 1000, 10**7]))),
        package_size=Decimal(
            draw(st.sampled_from([0, 0, 1, 7, 1000, 10**6])) if rate_type == "fixed" else 0
        ),
        package_rounding=draw(st.sampled_from(pricing.PACKAGE_ROUNDINGS)),
    )


@example_settings(max_examples=300)
@given(
    price=prices(),
    counts=st.tuples(*[st.integers(0, 10**7)] * 4),
    cached=st.tuples(*[st.integers(0, 10**7)] * 2),
    seconds=st.decimals(min_value=0, max_value=10**6, places=6),
    before=st.one_of(st.integers(0, 10**8).map(Decimal), st.just(Decimal(0))),
    back=st.one_of(st.none(), st.integers(1, 10**7)),
    cost=st.decimals(min_value=0, max_value=1000, places=10),
)
def test_the_database_prices_as_python_does(
    price: pricing.Price,
    counts: tuple[int, int, int, int],
    cached: tuple[int, int],
    seconds: Decimal,
    before: Decimal,
    back: int | None,
    cost: Decimal,
) -> None:
    pricing.validate(price)
    counts = (counts[0] + sum(cached), *counts[1:])
    used = pricing.Usage(
        *counts,
        input_seconds=seconds,
        provider_cost=cost,
        cache_read_tokens=cached[0],
        cache_write_tokens=cached[1],
    )
    peak = None if back is None else before + back
    fee = pricing.price(price, used, before=before, flats_from=peak)
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT meters_quantity(%s, %s, %s, %s, %s, %s, %s, 0)",
            [price.unit, price.token_basis, *counts, seconds],
        )
        counted = cursor.fetchone()[0]
        cursor.execute(
            "SELECT * FROM meters_price(%s, %s, %s::numeric[], %s::numeric[], %s, %s, %s,"
            " %s::numeric[], %s, %s, %s, %s, meters_kinds(%s::text[], %s, %s, %s, %s))",
            [
                price.rate_type,
                price.unit,
                [tier.start for tier in price.tiers],
                [tier.rate for tier in price.tiers],
                counted,
                before,
                cost,
                [tier.flat for tier in price.tiers],
                price.free_allowance,
                price.package_size,
                price.package_rounding,
                peak,
                [tier.kind for tier in price.tiers if tier.kind],
                counts[0],
                counts[1],
                *cached,
            ],
        )
        amount, slices = cursor.fetchone()

    assert (amount, counted) == (fee.amount, fee.quantity)
    assert [(place, Decimal(part), Decimal(cut)) for place, part, cut in json.loads(slices)] == [
        (part.tier, part.quantity, part.amount) for part in fee.slices
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("together", [False, True], ids=["processes", "threads"])
def test_a_hundred_parallel_posts_of_one_id_are_one_charge(
    together: bool, request: pytest.FixtureRequest
) -> None:
    if not together:
        request.getfixturevalue("apart")
    it = Setting()
    answers: list[Any] = []

    def post() -> None:
        try:
            answers.append(report(it.key, it.connection, input_tokens=1_000_000))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=post) for _ in range(20)]
    for _ in range(5):
        threads = [threading.Thread(target=post) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 100
    assert {answer.request.total_remaining for answer in answers} == {Decimal(22)}
    assert sum(not answer.replayed for answer in answers) == 1
    assert UsageRequest.objects.count() == 1
