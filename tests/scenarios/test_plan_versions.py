"""Versions of a plan: who has subscribed stays on theirs until moved, one by one, resumably."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, InternalError, transaction

from billing import errors, moves, plans, subscriptions, sweep, topups
from billing.models import Connection, Event, Plan, PlanMove, Subscription
from lava.demo.card_network.process import CardNetwork
from meters import prices
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db

NEXT, ONCE = PlanMove.When.NEXT_CYCLE, PlanMove.When.AT_ONCE


class Family:
    """A plan of 25 with three subscribers, and its second version at 30."""

    def __init__(self, count: int = 3, **terms: Any) -> None:
        self.shop = cn.Shop(rollover_type="none")
        self.bundle = factories.make_bundle(self.shop.plan)
        self.first = self.shop.plan
        self.people: list[Connection] = [self.shop.subscribe() for _ in range(count)]
        self.second = prices.new_plan_version(
            self.first,
            terms=replace(terms_of(self.first), **({"price": Decimal(30)} | terms)),
            now=self.shop.now,
        )

    def of(self, number: int) -> Subscription:
        found: Subscription = Subscription.objects.select_related("plan").get(
            connection=self.people[number]
        )
        return found

    def move(self, when: str, *, most: int | None = None) -> PlanMove:
        job = moves.start(
            self.first, to_plan=self.second, when=when, actor="Ana Ruiz", now=self.shop.now
        )
        return moves.run(job.pk, now=self.shop.now, most=most)


def terms_of(plan: Plan) -> plans.Terms:
    return plans.Terms(
        name=plan.name,
        price=plan.price.amount,
        included_credit=plan.included_credit,
        billing_interval=plan.billing_interval,
        rollover_type=plan.rollover_type,
    )


def test_a_new_version_has_the_meters_and_bundles_and_nobody_is_moved(
    card_network: CardNetwork,
) -> None:
    it = Family()
    assert (it.second.version, it.second.family) == (2, it.first)
    assert [meter.slug for meter in it.second.meters.all()] == ["chat"]
    assert [(row.cost, row.credit_amount) for row in it.second.live_bundles] == [
        (it.bundle.cost, it.bundle.credit_amount)
    ]
    it.first.refresh_from_db()
    assert it.first.archived_at is not None and it.second.archived_at is None
    assert [(row.version, row.subscribers) for row in plans.versions(it.second)] == [(1, 3), (2, 0)]
    it.shop.renew(it.people[0])
    assert it.of(0).plan == it.first
    assert [minor for _, minor, _ in cn.taken(it.shop.merchant)].count(3000) == 0


def test_sold_terms_stay_whoever_writes(card_network: CardNetwork) -> None:
    it = Family(1)
    with pytest.raises(errors.Conflict) as refused:
        plans.update(it.first, terms=replace(terms_of(it.first), price=Decimal(26)))
    assert refused.value.code == "plan_has_subscribers"
    with pytest.raises((IntegrityError, InternalError)), transaction.atomic():
        Plan.objects.filter(pk=it.first.pk).update(billing_interval="year")
    third = plans.new_version(it.second, terms=terms_of(it.second), now=it.shop.now)
    assert (third.version, third.family) == (3, it.first)


def test_moved_with_the_next_cycle_each_pays_the_new_price_from_then_on(
    card_network: CardNetwork,
) -> None:
    it = Family(2)
    seen = moves.preview(it.first, to_plan=it.second, when=NEXT, now=it.shop.now)
    assert [(row.from_price.amount, row.to_price.amount, row.left) for row in seen] == [
        (25, 30, "")
    ] * 2
    assert {row.effective_at for row in seen} == {it.of(0).cycle_end, it.of(1).cycle_end}
    job = it.move(NEXT)
    assert (job.state, job.moved, job.left) == ("done", 2, 0)
    assert (it.of(0).plan, it.of(0).pending_change) == (it.first, "move")
    it.shop.renew(it.people[1])
    assert {it.of(0).plan, it.of(1).plan} == {it.second}
    assert [minor for _, minor, _ in cn.taken(it.shop.merchant)].count(3000) == 2
    assert plans.versions(it.first)[1].subscribers == 2


def test_moved_at_once_the_running_cycle_stays_as_it_was_paid(card_network: CardNetwork) -> None:
    it = Family(1)
    topups.configure(it.of(0), bundle=it.bundle, now=it.shop.now)
    before = it.of(0)
    job = it.move(ONCE)
    assert (job.moved, job.left) == (1, 0)
    after = it.of(0)
    assert (after.plan, after.cycle_end) == (it.second, before.cycle_end)
    assert after.auto_top_up_bundle == it.second.live_bundles.get()
    assert len(cn.taken(it.shop.merchant)) == 1
    it.shop.renew(it.people[0])
    assert [minor for _, minor, _ in cn.taken(it.shop.merchant)].count(3000) == 1


def test_who_leaves_or_changes_anyway_is_left(card_network: CardNetwork) -> None:
    it = Family(3)
    subscriptions.cancel(it.of(0), now=it.shop.now)
    from billing import changes

    cheap = factories.make_plan(it.shop.merchant, price="5", name="Cheap")
    changes.schedule(it.of(1), plan=cheap, now=it.shop.now)
    seen = moves.preview(it.first, to_plan=it.second, when=ONCE, now=it.shop.now)
    assert [row.left for row in seen] == ["cancels", "another_change", ""]
    job = it.move(ONCE)
    assert (job.moved, job.left) == (1, 2)
    assert [it.of(number).plan for number in range(3)] == [it.first, it.first, it.second]


def test_a_job_that_stopped_goes_on_where_it_was(card_network: CardNetwork) -> None:
    it = Family(3)
    job = it.move(NEXT, most=1)
    assert (job.state, job.moved) == ("running", 1)
    again = moves.start(it.first, to_plan=it.second, when=NEXT, actor="Ana", now=it.shop.now)
    assert again == job
    with pytest.raises(errors.Conflict):
        moves.start(it.first, to_plan=it.second, when=ONCE, actor="Ana", now=it.shop.now)
    sweep.run(it.shop.merchant, now=it.shop.now)
    job.refresh_from_db()
    assert (job.state, job.moved, job.left) == ("done", 3, 0)
    assert moves.run(job.pk, now=it.shop.now).moved == 3
    assert Event.objects.filter(name="subscription.changed").count() == 3


@pytest.mark.django_db(transaction=True)
def test_twenty_workers_move_each_once(card_network: CardNetwork) -> None:
    it = Family(4)
    job = moves.start(it.first, to_plan=it.second, when=NEXT, actor="Ana", now=it.shop.now)
    now = it.shop.now
    answers = cn.at_once(20, lambda: moves.run(job.pk, now=now))
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    job.refresh_from_db()
    assert (job.state, job.moved, job.left) == ("done", 4, 0)
    assert Event.objects.filter(name="subscription.changed").count() == 4


def test_another_interval_comes_with_the_next_cycle_alone(card_network: CardNetwork) -> None:
    it = Family(1, price=Decimal(250), billing_interval="year")
    with pytest.raises(errors.Conflict):
        it.move(ONCE)
    end = it.of(0).cycle_end
    it.move(NEXT)
    it.shop.renew(it.people[0])
    assert (it.of(0).plan, it.of(0).anchor) == (it.second, end)


def test_only_between_versions_of_one_plan(card_network: CardNetwork) -> None:
    it = Family(1)
    other = factories.make_plan(it.shop.merchant, name="Other")
    for to_plan in (other, it.first):
        with pytest.raises(errors.Conflict):
            moves.preview(it.first, to_plan=to_plan, when=NEXT, now=it.shop.now)
    with pytest.raises(errors.Invalid):
        moves.start(it.first, to_plan=it.second, when="some day", actor="Ana", now=it.shop.now)
    with pytest.raises(errors.Invalid):
        moves.start(it.first, to_plan=it.second, when=NEXT, actor=" ", now=it.shop.now)


def test_a_move_can_be_taken_back_before_the_cycle_ends(card_network: CardNetwork) -> None:
    it = Family(1)
    it.move(NEXT)
    subscriptions.resume(it.of(0), now=it.shop.now)
    it.shop.renew(it.people[0])
    assert it.of(0).plan == it.first
