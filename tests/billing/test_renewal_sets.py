"""Renewals of price 0 in sets: the same, line for line, as one by one."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection as database
from django.db import transaction
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from billing import audit, connections, credits, ids, ledger, periods, renewals
from billing.models import (
    Connection,
    CreditGrant,
    Cycle,
    Event,
    LedgerEntry,
    Merchant,
    Subscription,
)
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db

ZONES = ("UTC", "Asia/Kolkata", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")


def ask(sql: str, *params: Any) -> Any:
    with database.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0]


def spend(connection: Connection, amount: Decimal, now: datetime) -> None:
    with transaction.atomic():
        ledger.lock(connection.pk)
        ledger.call(
            "SELECT billing_spend(%s, %s, %s, %s)",
            connection.pk,
            amount,
            ids.new(sandbox=True),
            now,
        )


def state(connection: Connection) -> dict[str, Any]:
    """Everything that says something about a connection, without the ids made on the way."""
    grants = list(CreditGrant.objects.filter(connection=connection).order_by("created_at", "pk"))
    cycles = list(Cycle.objects.filter(subscription__connection=connection).order_by("index"))
    order = {grant.pk: (grant.source, grant.origin_at, grant.amount) for grant in grants}
    number = {cycle.pk: cycle.index for cycle in cycles}
    subscription = Subscription.objects.get(connection=connection)
    head = Connection.objects.get(pk=connection.pk)
    return {
        "head": [
            getattr(head, name)
            for name in (
                "entry_count",
                "balance",
                "debt",
                "collecting",
                "cycle_overage",
                "depleted_at",
                "depleted_told",
                "low_mark",
                "low_at",
                "low_told",
            )
        ],
        "subscription": [
            getattr(subscription, name)
            for name in (
                "status",
                "cycle_index",
                "cycle_start",
                "cycle_end",
                "anchor",
                "anchor_index",
                "attempts",
                "pending_change",
                "next_attempt_at",
                "past_due_since",
            )
        ],
        "cycles": [
            (
                row.index,
                row.start,
                row.end,
                row.state,
                row.place,
                row.anchor,
                row.time_zone,
                row.plan_id,
                row.created_at,
                row.owed,
            )
            for row in cycles
        ],
        "grants": sorted(
            (
                row.source,
                row.pool,
                row.amount,
                row.remaining,
                row.effective_at,
                str(row.expires_at),
                row.origin_at,
                row.priority,
                number.get(row.cycle_id),
                row.reason,
                row.actor,
                row.created_at,
            )
            for row in grants
        ),
        "lines": [
            (
                line.seq,
                line.kind,
                line.amount,
                line.balance_after,
                order.get(line.grant_id),
                line.reason,
                line.actor,
                line.occurred_at,
            )
            for line in LedgerEntry.objects.filter(connection=connection).order_by("seq")
        ],
        "events": sorted(
            (
                row.name,
                json.dumps(
                    {
                        k: v
                        for k, v in row.data.items()
                        if k not in ("subscription_id", "payment_id")
                    },
                    sort_keys=True,
                ),
                row.created_at,
            )
            for row in Event.objects.filter(connection=connection)
        ),
    }


def random_state(dice: random.Random, merchant: Merchant, start: datetime) -> Connection:
    plan = factories.make_plan(
        merchant,
        price="0",
        credit=dice.choice(["0", "5", "12.3456789"]),
        when_depleted=dice.choice(["block", "overage"]),
        billing_interval=dice.choice(["day", "week", "month", "year"]),
        rollover_type=dice.choice(["full", "full", "none"]),
        bundle_rollover_type=dice.choice(["full", "none"]),
        rollover_cap=dice.choice([None, Decimal(0), Decimal("3.5"), Decimal(7)]),
        low_credit_threshold=dice.choice([None, Decimal(4), Decimal(20)]),
    )
    connection = factories.make_subscription(plan, now=start).connection
    end = connection.subscription.cycle_end
    moment = start
    for _ in range(dice.randrange(5)):
        moment += (end - moment) * Decimal(dice.choice(["0.1", "0.3"])).__float__()
        amount = Decimal(dice.randrange(1, 60000)) / 10000
        if dice.random() < 0.5:
            left = credits.balance(connection, now=moment).total
            spend(connection, min(amount, left) if dice.random() < 0.9 else amount, moment)
        else:
            with transaction.atomic():
                credits.grant(
                    ledger.lock(connection.pk),
                    source=dice.choice(["bundle", "cycle", "rollover"]),
                    amount=amount,
                    now=moment,
                    expires_at=dice.choice([None, moment + timedelta(days=2), end]),
                    origin_at=moment - timedelta(days=dice.randrange(3)),
                )
    return connection


@pytest.mark.parametrize("seed", range(6))
def test_a_set_says_the_same_as_one_by_one(seed: int) -> None:
    dice = random.Random(seed)
    seen = []
    for by_set in (True, False):
        dice.seed(seed)
        merchant = factories.make_merchant(zone=dice.choice(ZONES))
        start = datetime(2026, dice.choice([1, 3, 10]), 29, 1, 30, tzinfo=UTC)
        rows = [random_state(dice, merchant, start) for _ in range(12)]
        late = dice.choice([timedelta(0), timedelta(hours=3), timedelta(days=100)])
        now = max(row.subscription.cycle_end for row in rows[:4]) + late
        if by_set:
            while renewals.renew_set(now, merchant=merchant, most=5):
                pass
        for row in rows:
            renewals.renew(row.subscription.pk, now=now)
        assert not renewals.renew_set(now, merchant=merchant)
        seen.append([state(row) for row in rows])
    for one, other in zip(*seen, strict=True):
        one["cycles"] = [row[:7] + row[8:] for row in one["cycles"]]
        other["cycles"] = [row[:7] + row[8:] for row in other["cycles"]]
        for part in one:
            assert (part, one[part]) == (part, other[part])
    # Falls of long ago that nobody was told of are not what is asked here, nor are the credits that
    # the dice rolled over from nowhere.
    not_asked = ("nothing_is_stuck", "what_rolls_over_arrives")
    rules = [rule for rule in audit.RULES if rule.name not in not_asked]
    assert not {rule.name: rule.rows() for rule in rules if rule.rows()}


def free_shop(count: int, **plan: Any) -> tuple[Merchant, list[Connection], datetime]:
    merchant = factories.make_merchant()
    made = factories.make_plan(merchant, price="0", credit="5", when_depleted="block", **plan)
    rows = [factories.make_subscription(made).connection for _ in range(count)]
    return merchant, rows, rows[0].subscription.cycle_end


def test_what_is_not_plain_is_left_to_the_other_way() -> None:
    merchant, rows, end = free_shop(6)
    from billing import changes, subscriptions

    other = factories.make_plan(merchant, price="0", credit="1", when_depleted="block")
    spend(rows[0], Decimal(9), factories.NOW)
    connections.set_enabled(rows[1], enabled=False, now=factories.NOW)
    changes.schedule(rows[2].subscription, plan=other, now=factories.NOW)
    subscriptions.cancel(rows[3].subscription, now=factories.NOW)
    assert renewals.renew_set(end - timedelta(microseconds=1), merchant=merchant) == 0
    assert renewals.renew_set(end, merchant=merchant) == 2
    assert renewals.renew_set(end, merchant=merchant) == 0
    for row in rows:
        renewals.renew(row.subscription.pk if row.subscription else ids.new(sandbox=True), now=end)
    assert [Cycle.objects.filter(subscription__connection=row).count() for row in rows] == [
        2,
        1,
        2,
        1,
        2,
        2,
    ]


def test_it_goes_on_where_it_stopped_and_renews_each_once() -> None:
    merchant, rows, end = free_shop(7)
    counts = []
    while count := renewals.renew_set(end, merchant=merchant, most=3):
        counts.append(count)
    assert counts == [3, 3, 1]
    assert {credits.balance(row, now=end).total for row in rows} == {Decimal(10)}
    assert Event.objects.filter(name="subscription.renewed").count() == 7


@pytest.mark.django_db(transaction=True)
def test_twenty_workers_in_both_ways_at_once_renew_each_once() -> None:
    merchant, rows, end = free_shop(8)
    turn = iter(range(20))

    def act() -> Any:
        if next(turn) % 2:
            return renewals.renew_set(end, merchant=merchant, most=4)
        return [renewals.renew(row.subscription.pk, now=end) for row in rows]

    answers = cn.at_once(20, act)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    while renewals.renew_set(end, merchant=merchant):
        pass
    assert {credits.balance(row, now=end).total for row in rows} == {Decimal(10)}
    assert Cycle.objects.count() == 16


@pytest.mark.django_db(transaction=True)
def test_a_connection_in_use_is_passed_by_and_found_again() -> None:
    import threading

    merchant, rows, end = free_shop(3)
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            ledger.lock(rows[1].pk)
            locked.set()
            done.wait(30)
        database.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(30)
    assert renewals.renew_set(end, merchant=merchant) == 2
    done.set()
    thread.join()
    assert renewals.renew_set(end, merchant=merchant) == 1


@given(
    anchor=st.datetimes(
        min_value=datetime(2024, 1, 1), max_value=datetime(2027, 12, 31), timezones=st.just(UTC)
    ),
    every=st.sampled_from(["day", "week", "month", "year"]),
    place=st.integers(0, 60),
    zone=st.sampled_from((*ZONES, "America/Santiago", "Pacific/Chatham", "Asia/Kathmandu")),
)
@example_settings(max_examples=150)
def test_bounds_in_sql_are_those_of_python(
    anchor: datetime, every: str, place: int, zone: str
) -> None:
    cycle = periods.cycle(anchor, every, place, zone)
    assert ask("SELECT billing_boundary(%s, %s, %s, %s)", anchor, every, place, zone) == cycle.start
    assert ask("SELECT billing_place_at(%s, %s, 0, %s, %s)", anchor, every, zone, cycle.start) == (
        periods.index_at(anchor, every, zone, cycle.start)
    )


@pytest.mark.parametrize(
    ("zone", "anchor"),
    [
        ("Europe/Berlin", datetime(2026, 10, 24, 0, 30, tzinfo=UTC)),  # 02:30, twice the next day
        ("Europe/Berlin", datetime(2026, 3, 28, 1, 30, tzinfo=UTC)),  # 02:30, skipped the next day
        ("Australia/Lord_Howe", datetime(2026, 4, 3, 15, 15, tzinfo=UTC)),  # half an hour, twice
        ("America/New_York", datetime(2026, 10, 31, 5, 30, tzinfo=UTC)),  # 01:30, twice
    ],
)
def test_a_wall_time_that_comes_twice_or_never_is_one_instant_in_both(
    zone: str, anchor: datetime
) -> None:
    for place in range(4):
        expected = periods.cycle(anchor, "day", place, zone).start
        assert ask("SELECT billing_boundary(%s, 'day', %s, %s)", anchor, place, zone) == expected


def test_ids_in_sql_are_those_of_python() -> None:
    for sandbox in (True, False):
        key = ids.new(sandbox=sandbox)
        assert ask("SELECT billing_public_id('sub', %s)", key) == ids.public("sub", key)
        tail = ask("SELECT billing_id_tail(%s, gen_random_uuid())", sandbox)
        assert len(tail) == 19
        assert ids.is_sandbox(UUID(f"{key.hex[:12]}{tail}0")) == sandbox
    merchant, _, end = free_shop(3)
    renewals.renew_set(end + timedelta(days=100), merchant=merchant)
    made = [
        *Cycle.objects.filter(index__gt=0).values_list("pk", flat=True),
        *CreditGrant.objects.filter(cycle__index__gt=0).values_list("pk", flat=True),
        *Event.objects.filter(name="subscription.renewed").values_list("pk", flat=True),
    ]
    assert len(set(made)) == len(made) == 3 * (4 + 2 + 1)
    assert all(ids.is_sandbox(key) for key in made)
    assert all(abs(ids.made_at(key) - datetime.now(UTC)) < timedelta(minutes=5) for key in made)
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for written in (moment, moment + timedelta(microseconds=1200)):
        assert ask("SELECT billing_iso(%s)", written) == written.isoformat()


def test_only_zones_that_both_know_alike_are_renewed_in_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert all(renewals.zones_agree(zone, 2026, 11) for zone in ZONES)
    assert not renewals.zones_agree("Factory/Nowhere", 2026, 11)
    merchant, rows, end = free_shop(2)
    monkeypatch.setattr(renewals, "zones_agree", lambda *_: False)
    assert renewals.renew_set(end, merchant=merchant) == 0
    renewals.renew(rows[0].subscription.pk, now=end)
    assert credits.balance(rows[0], now=end).total == Decimal(10)
