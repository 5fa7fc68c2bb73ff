"""Fee models through the whole charge: flat amounts, an allowance, packages, rates by kind."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing import audit as money_audit
from billing import errors
from meters import audit as usage_audit
from meters import prices, usage
from meters.models import Meter, UsageRequest
from meters.pricing import Tier
from tests import factories
from tests.meters.gateway import books
from tests.meters.test_charge import report
from tests.meters.test_holds_api import race

pytestmark = pytest.mark.django_db


class Till:
    """A customer with 1000 of credit, and a way to publish a meter and use it."""

    def __init__(self) -> None:
        self.merchant = factories.make_merchant()
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(self.merchant, price="0", credit="1000")
        self.connection = factories.make_subscription(self.plan, now=self.merchant.now()).connection
        self.count = 0

    def meter(self, *tiers: Tier, **terms: Any) -> Meter:
        meter = prices.create_meter(
            self.merchant, slug="it", name="It", actor="Ana", now=self.merchant.now(),
            terms=prices.Terms(**({"tiers": tiers, "unit": "requests"} | terms)),
        )  # fmt: skip
        prices.attach(meter, self.plan)
        return meter

    def use(self, **used: Any) -> UsageRequest:
        self.count += 1
        row: UsageRequest = report(
            self.key, self.connection, f"r{self.count}", meter_slug="it", **used
        ).request
        return row

    def fees(self, times: int) -> list[Decimal]:
        return [self.use().fee for _ in range(times)]


@pytest.fixture(autouse=True)
def the_books_hold(db: None) -> Any:
    yield
    for rule in (*money_audit.RULES, *usage_audit.RULES):
        assert not rule.rows(), rule.name


def tier(start: int, rate: str, flat: str = "0", kind: str = "") -> Tier:
    return Tier(Decimal(start), Decimal(rate), Decimal(flat), kind)


def test_a_flat_amount_is_asked_with_the_first_unit_of_its_tier() -> None:
    till = Till()
    till.meter(tier(0, "1", flat="5"), tier(2, "0.5", flat="3"))
    assert till.fees(4) == [6, 1, Decimal("3.5"), Decimal("0.5")]
    row = UsageRequest.objects.get(request_id="r3")
    assert row.slices == [[1, "0", "3.0000000000"], [1, "1", "0.5000000000"]]


def test_a_flat_amount_is_asked_anew_each_cycle_where_the_count_is() -> None:
    from billing import clock

    till = Till()
    till.meter(tier(0, "1", flat="5"), tier_window="cycle")
    assert till.fees(2) == [6, 1]
    clock.advance(till.merchant, to=clock.next_renewal(till.merchant))
    assert till.fees(2) == [6, 1]


def test_a_void_asks_no_flat_amount_again() -> None:
    till = Till()
    till.meter(tier(0, "1"), tier(2, "1", flat="7"))
    first, second = till.use(), till.use()
    third = till.use()
    assert third.fee == 8
    usage.void(second, reason="x", actor="Ana", now=till.merchant.now())
    usage.void(first, reason="x", actor="Ana", now=till.merchant.now())
    assert till.fees(4) == [1, 1, 1, 1]
    row = UsageRequest.objects.get(request_id="r4")
    assert (row.position_before, row.peak_before) == (1, 3)


def test_a_free_allowance_is_used_first_and_tiers_count_after_it() -> None:
    till = Till()
    till.meter(tier(0, "2"), tier(2, "1"), free_allowance=Decimal(3))
    assert till.fees(7) == [0, 0, 0, 2, 2, 1, 1]
    assert UsageRequest.objects.get(request_id="r1").slices == []


@pytest.mark.parametrize(
    ("rounding", "expected"), [("up", [300, 0, 0, 300]), ("down", [0, 0, 300, 0])]
)
def test_packages_are_paid_begun_or_used_up(rounding: str, expected: list[int]) -> None:
    till = Till()
    till.meter(tier(0, "100"), package_size=Decimal(3), package_rounding=rounding)
    assert till.fees(4) == expected


def test_packages_of_tokens_behind_an_allowance() -> None:
    till = Till()
    till.meter(
        tier(0, "10"), unit="tokens_1m", free_allowance=Decimal(500), package_size=Decimal(1000)
    )
    assert till.use(input_tokens=500).fee == 0
    assert till.use(input_tokens=1).fee == Decimal("0.01")
    assert till.use(input_tokens=999).fee == 0
    assert till.use(input_tokens=2001).fee == Decimal("0.03")


def test_each_kind_of_token_pays_its_rate() -> None:
    till = Till()
    till.meter(
        tier(0, "3", kind="input"), tier(0, "15", kind="output"),
        tier(0, "0.3", kind="cache_read"), tier(0, "3.75", kind="cache_write"),
        unit="tokens_1m",
    )  # fmt: skip
    row = till.use(
        input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=600_000,
        cache_write_tokens=200_000,
    )  # fmt: skip
    # 200k at 3, 100k at 15, 600k at 0.3, 200k at 3.75
    assert row.fee == Decimal("0.6") + Decimal("1.5") + Decimal("0.18") + Decimal("0.75")
    assert len(row.slices) == 4
    assert UsageRequest.objects.get(pk=row.pk).quantity == 1_100_000


def test_the_terms_come_back_as_they_were_published() -> None:
    till = Till()
    meter = till.meter(
        tier(0, "1", flat="5"), tier(2, "0.5"), free_allowance=Decimal(3),
        package_size=Decimal(2), package_rounding="down",
    )  # fmt: skip
    assert meter.price is not None
    terms = prices.of(meter.price)
    assert prices.publish(meter, terms=terms, actor="Ben", now=till.merchant.now()).version == 1
    changed = prices.Terms(**{**_fields(terms), "free_allowance": Decimal(4)})
    assert prices.publish(meter, terms=changed, actor="Ben", now=till.merchant.now()).version == 2


@pytest.mark.django_db(transaction=True)
def test_prices_published_at_once_are_versions_after_each_other() -> None:
    till = Till()
    meter = till.meter(tier(0, "1"))

    def publish(number: int) -> int:
        terms = prices.Terms(tiers=(tier(0, f"{number + 2}"),), unit="requests")
        made = prices.publish(meter, terms=terms, actor="Ben", now=till.merchant.now())
        return made.version

    assert sorted(race(publish, 6)) == [2, 3, 4, 5, 6, 7]


def test_a_unit_stays_while_a_call_runs_that_will_be_counted_in_it() -> None:
    till = Till()
    meter = till.meter(tier(0, "1"), unit="tokens_1m")
    call = books.hold(till.merchant, connection=till.connection, meter=meter)
    terms = prices.Terms(tiers=(tier(0, "1"),), unit="requests")
    with pytest.raises(errors.Conflict) as refused:
        prices.publish(meter, terms=terms, actor="Ben", now=till.merchant.now())
    assert refused.value.code == "meter_was_used"
    books.settle(call, status="error", billed=False)
    assert prices.publish(meter, terms=terms, actor="Ben", now=till.merchant.now()).version == 2


def _fields(terms: prices.Terms) -> dict[str, Any]:
    return {name: getattr(terms, name) for name in prices.Terms.__slots__}


def test_the_wire_shows_the_terms_and_the_slices() -> None:
    till = Till()
    meter = till.meter(
        tier(0, "3", kind="input"), tier(0, "15", kind="output"), unit="tokens_1m"
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {till.key}"}
    body = Client().get(f"/v1/meters/{meter.public_id}", headers=headers).json()
    assert [(one["kind"], one["rate"]) for one in body["tiers"]] == [
        ("input", "3.0000000000"), ("output", "15.0000000000"),
    ]  # fmt: skip
    assert (body["free_allowance"], body["package_size"], body["package_rounding"]) == (0, 0, "up")
    told = {
        "request_id": "w1", "connection_id": till.connection.public_id, "meter_slug": "it",
        "input_tokens": 1000, "output_tokens": 10, "cache_read_tokens": 400,
    }  # fmt: skip
    answer = Client().post("/v1/requests", told, content_type="application/json", headers=headers)
    assert answer.status_code == 200, answer.content
    charged = answer.json()
    assert charged["model_usage"]["cache_read_tokens"] == 400
    assert [part["tier"]["kind"] for part in charged["fee"]["breakdown"]] == ["input", "output"]
    assert charged["fee"]["amount"] == "0.0031500000"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"cache_read_tokens": -1}, "cache_read_tokens"),
        ({"cache_write_tokens": 1.5}, "cache_write_tokens"),
        ({"input_tokens": 5, "cache_read_tokens": 6}, "input_tokens"),
    ],
)
def test_bad_counts_are_named_and_change_nothing(fields: dict[str, Any], param: str) -> None:
    till = Till()
    till.meter(tier(0, "3"), unit="tokens_1m")
    told = {"request_id": "w1", "connection_id": till.connection.public_id, "meter_slug": "it"}
    answer = Client().post(
        "/v1/requests", told | fields, content_type="application/json",
        headers={"Authorization": f"Bearer {till.key}"},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not UsageRequest.objects.exists()


def test_tiers_by_volume_over_the_wire_count_by_cycle_without_saying_so() -> None:
    till = Till()
    headers = {"Authorization": f"Bearer {till.key}"}
    told = {
        "name": "Search", "rate_type": "fixed", "tier_type": "requests", "tier_mode": "volume",
        "tiers": [{"start": "0", "rate": "0.10"}, {"start": "5", "rate": "0.04"}],
    }  # fmt: skip
    answer = Client().post("/v1/meters", told, content_type="application/json", headers=headers)
    made = answer.json()
    assert (made["tier_mode"], made["tier_window"]) == ("volume", "cycle")
    assert [one["start"] for one in made["tiers"]] == [0, 5]
    # Said otherwise, it is refused.
    answer = Client().patch(
        f"/v1/meters/{made['meter_id']}", {"tier_window": "lifetime"},
        content_type="application/json", headers=headers,
    )  # fmt: skip
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tier_window")


def test_a_refused_flat_amount_is_named_as_it_was_sent() -> None:
    till = Till()
    told = {
        "name": "Search", "rate_type": "fixed", "tier_type": "requests", "tier_mode": "volume",
        "tiers": [
            {"start": "0", "rate": "0.10"}, {"start": "5", "rate": "0.04", "flat_amount": "2"},
        ],
    }  # fmt: skip
    answer = Client().post(
        "/v1/meters", told, content_type="application/json",
        headers={"Authorization": f"Bearer {till.key}"},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tiers[1].flat_amount")
