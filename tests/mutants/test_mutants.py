"""Faults written by hand, each put into the product and caught by a test with a name.

`python3 manage.py mutants` runs them all. A mutant is a small change of the text of a
SQL function or of a Python verb, or a key dropped from the database; the test that must fail on it
is called as it stands. Nothing outlives its test: SQL is rolled back or put back, and Python is
restored.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from django.db import connection as database

from billing import credits, money, overage, subscriptions
from billing.settlement import paid, unpaid
from lava.demo.sim.world import open_world
from meters import pricing, usage, volume
from tests import factories
from tests.billing import test_draw_properties, test_races, test_told_life
from tests.billing.test_draw_properties import TEN, Lot
from tests.meters import test_charge, test_fee_models, test_voids
from tests.scenarios import test_volume

Story = Any


@dataclass(frozen=True)
class Sql:
    """A change in a SQL function; `old` stands in it once."""

    function: str
    old: str
    new: str

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = source_of(self.function)
        assert sound.count(self.old) == 1, f"{self.old!r} is not once in {self.function}"
        run(sound.replace(self.old, self.new))


@dataclass(frozen=True)
class Python:
    """A change in a function of a module; `old` stands in it once."""

    module: ModuleType
    function: str
    old: str
    new: str

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = inspect.unwrap(getattr(self.module, self.function))
        text = textwrap.dedent(inspect.getsource(sound))
        assert text.count(self.old) == 1, f"{self.old!r} is not once in {self.function}"
        names = dict(vars(self.module))
        exec(text.replace(self.old, self.new), names)
        made = names[self.function]
        monkeypatch.setattr(self.module, self.function, made)


@dataclass(frozen=True)
class Drop:
    """A key that the database no longer keeps."""

    statement: str

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run(self.statement)


def source_of(function: str) -> str:
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef(%s::regproc)", [function])
        found: str = cursor.fetchone()[0]
    return found


def run(sql: str) -> None:
    with database.cursor() as cursor:
        cursor.execute(sql)


def told(name: str) -> Story:
    """One of the lives told in full."""

    def play() -> None:
        with open_world() as world:
            getattr(test_told_life, name)(world)

    return play


def rolls_over() -> None:
    told("test_a_paid_plan_that_rolls_over")()


def silent() -> None:
    told("test_a_silent_network_and_late_usage")()


def blocks() -> None:
    told("test_a_plan_whose_credits_end_and_that_blocks")()


def draw_order() -> None:
    lots = [Lot(2, 0, 5 * TEN, None, 1), Lot(1, 0, 5 * TEN, None, 2), Lot(2, 0, 5 * TEN, 3, 3)]
    test_draw_properties._play(factories.make_merchant(), lots, [(6 * TEN, 0), (6 * TEN, 0)])


def other_body() -> None:
    test_charge.test_the_same_id_with_another_body_is_a_conflict(test_charge.Setting())


def ended_credits() -> None:
    test_charge.test_credits_that_have_ended_pay_nothing(test_charge.Setting())


def other_merchant() -> None:
    test_charge.test_another_merchants_connection_is_not_found(test_charge.Setting())


def kinds() -> None:
    test_fee_models.test_each_kind_of_token_pays_its_rate()


def published_halves() -> None:
    price = pricing.Price("fixed", "tokens_1m", "output", (pricing.Tier(money.round_fee(
        pricing.Decimal(0)), pricing.Decimal("0.00005")),))  # fmt: skip
    fee = pricing.price(price, pricing.Usage(output_tokens=1), before=pricing.Decimal(0))
    assert fee.amount == pricing.Decimal("0.0000000001")


ORDER = "ORDER BY priority, expires_at NULLS LAST, pool, origin_at, id"

MUTANTS: dict[str, tuple[Any, Story]] = {
    "the draw goes by age alone": (
        Sql("billing_spend", ORDER, "ORDER BY origin_at, id"), draw_order,
    ),
    "bundles are drawn before plan credits": (
        Sql("billing_spend", "NULLS LAST, pool,", "NULLS LAST, pool DESC,"), draw_order,
    ),
    "credits without end are drawn first": (
        Sql("billing_spend", "NULLS LAST", "NULLS FIRST"), draw_order,
    ),
    "expiry is ignored by the draw": (
        Sql("billing_spend", "PERFORM billing_expire(p_connection, p_now);", ""), ended_credits,
    ),
    "what is drawn is not counted as overage": (
        Sql("billing_spend", "c.cycle_overage + need", "c.cycle_overage"), rolls_over,
    ),
    "new credits do not pay the debt": (
        Sql("billing_grant", "PERFORM billing_pay_debt(p_connection, p_now);", ""), blocks,
    ),
    "credits pay debt that the card is paying": (
        Sql("billing_pay_debt", "debt - collecting", "debt"), silent,
    ),
    "a void returns to grants that have ended": (
        Sql("billing_unspend", "IF billing_has_ended(", "IF NOT billing_has_ended("), blocks,
    ),
    "a void forgets what was paid of its debt": (
        Sql("billing_unspend", "forgiven < draw.amount", "false"), rolls_over,
    ),
    "a void forgives what the card is paying": (
        Sql("billing_unspend", "debt - collecting", "debt"), silent,
    ),
    "a void leaves the overage of the cycle": (
        Sql("billing_unspend", "cycle_overage - draw.amount", "cycle_overage"), rolls_over,
    ),
    "rounding goes down": (
        Sql("meters_price", "upto := round(round(exact, 40) / divisor, 10)",
            "upto := trunc(round(exact, 40) / divisor, 10)"), rolls_over,
    ),
    "a boundary is in the upper tier": (
        Sql("meters_price", "GREATEST(since, p_starts[i] * scale)",
            "GREATEST(since, p_starts[i] * scale - 1)"), rolls_over,
    ),
    "a flat amount is asked again after a void": (
        Sql("meters_price", "GREATEST(p_before, p_peak)", "p_before"),
        test_fee_models.test_a_void_asks_no_flat_amount_again,
    ),
    "cached tokens pay twice": (
        Sql("meters_kinds", "WHEN 'cache_read' = ANY (p_kinds) THEN p_read",
            "WHEN 'cache_read' = ANY (p_kinds) THEN 0"), kinds,
    ),
    "an allowance is forgotten": (
        Sql("meters_billable", "THEN GREATEST(p_position - p_free, 0)", "THEN p_position"),
        test_fee_models.test_a_free_allowance_is_used_first_and_tiers_count_after_it,
    ),
    "the count never starts again": (
        Sql("meters_charge", "v_window := sub.cycle_index", "v_window := 0"), silent,
    ),
    "the same id with another body is answered": (
        Sql("meters_charge", "request.fingerprint <> p_fingerprint", "false"), other_body,
    ),
    "late usage is not marked": (
        Sql("meters_charge", "happened < sub.cycle_start", "false"), silent,
    ),
    "enforce overlooks the debt": (
        Sql("meters_charge", "sum(remaining), 0) - conn.debt", "sum(remaining), 0)"), silent,
    ),
    "enforce overlooks a blocking plan": (
        Sql("meters_charge", "sub.when_depleted = 'block'", "false"), blocks,
    ),
    "the overage cap is ignored": (
        Sql("meters_charge", "> sub.overage_cap", "> 2 * sub.overage_cap"),
        test_charge.test_an_overage_cap_holds_back_enforced_requests,
    ),
    "a merchant reaches another's connection": (
        Sql("billing_lock", "id = p_connection AND merchant_id = p_merchant",
            "id = p_connection"), other_merchant,
    ),
    "a draw is given back twice": (
        Drop("DROP INDEX a_draw_is_given_back_once"),
        test_voids.test_the_database_refuses_a_second_giving_back,
    ),
    "halves are rounded down in Python": (
        Python(money, "round_fee", "scaled.numerator * 2 + scaled.denominator",
               "scaled.numerator * 2"), published_halves,
    ),
    "the rollover cap is ignored": (
        Python(credits, "roll_over", "max(total - cap, ZERO)", "ZERO * 1"), rolls_over,
    ),
    "rolled credit loses its age": (
        Python(credits, "roll_over", "origin = lot.origin_at", "origin = now"), rolls_over,
    ),
    "a hand takes more than is there": (
        Python(credits, "take", "need > left", "need > 2 * left"), blocks,
    ),
    "bundles outlive the cycle": (
        Python(paid, "_end_of_bundle", "return max(", "return None and max("), rolls_over,
    ),
    "a cycle is opened twice": (
        Python(subscriptions, "advance", "index <= subscription", "index < subscription"),
        rolls_over,
    ),
    "the overage of a cycle goes on into the next": (
        Python(subscriptions, "open_cycle", "cycle_overage=0, low_mark",
               "low_mark"), rolls_over,
    ),
    "an ended subscription keeps its credits": (
        Python(subscriptions, "end", "pool=CreditGrant.Pool.CYCLE", "pool=9"), silent,
    ),
    "what a charge collected is not released": (
        Python(unpaid, "release", "F(\"collecting\") - payment.amount.amount",
               "F(\"collecting\")"), silent,
    ),
    "a declined charge is tried the same day": (
        Python(unpaid, "_pause",
               "timedelta(days=RETRY_DAYS[min(tries, len(RETRY_DAYS)) - 1])",
               "timedelta(hours=1)"), silent,
    ),
    "overage waits for more than the threshold": (
        Python(overage, "_begin", "connection.debt < current.plan.overage_threshold",
               "connection.debt < 2 * current.plan.overage_threshold"), silent,
    ),
    "the card is charged fractions that it cannot pay": (
        Python(overage, "_begin",
               "(connection.debt - connection.collecting - less, connection.currency)",
               "(connection.debt, connection.currency) + 1"), silent,
    ),
    "what a cycle gave back is forgotten": (
        Python(volume, "outcomes", "given=before", "given=ZERO"),
        test_volume.test_settled_early_the_rest_is_given_at_the_end,
    ),
    "a running cycle is settled by its volume": (
        Python(volume, "settle", "last -= 1", "last -= 0"),
        test_volume.test_settled_early_the_rest_is_given_at_the_end,
    ),
    "a volume on the boundary reaches the next tier": (
        Python(pricing, "volume_tier", "< reached", "<= reached"),
        test_volume.test_a_count_on_the_boundary_is_still_in_the_lower_tier,
    ),
    "usage at a price by volume is not kept for its settlement": (
        Sql("meters_charge", "price.volume_starts <> '{}'", "false"),
        test_volume.test_free_plans_that_renew_in_sets_are_settled_too,
    ),
    "a void does not step the count back": (
        Python(usage, "_step_back", "- row.quantity", "- 0"), rolls_over,
    ),
    "a void of an old cycle lowers this cycle's overage": (
        Python(usage, "void", "== (row.subscription_id, row.cycle_index)", "is not None"),
        rolls_over,
    ),
}  # fmt: skip
CATCHING = {test.__name__: test for _, test in MUTANTS.values()}


@pytest.mark.django_db
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant, test = MUTANTS[name]
    mutant.put(monkeypatch)
    # `pytest.raises` inside the test fails with an exception of its own, which is no `Exception`.
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        test()
    assert not isinstance(caught.value, (NameError, TypeError, SyntaxError)), caught.value


@pytest.fixture
def without_the_lock(transactional_db: None, apart: None) -> Iterator[None]:
    sound = source_of("billing_lock")
    # Without the lock all read the same head; a moment's sleep makes them meet for certain.
    run(sound.replace("FOR NO KEY UPDATE", "AND pg_sleep(0.05) IS NOT NULL"))
    yield
    run(sound)


def test_a_dropped_lock_is_caught(without_the_lock: None) -> None:
    with pytest.raises(AssertionError):
        test_races.test_twenty_draws_lose_nothing()


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(CATCHING))
def test_each_catching_test_passes_on_the_sound_product(name: str) -> None:
    CATCHING[name]()


def test_there_are_at_least_twenty() -> None:
    assert len(MUTANTS) >= 20
