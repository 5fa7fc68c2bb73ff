"""Changing plans: an upgrade at once for the value of unused credits, a downgrade at the end."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from moneyed import Money

from billing import (
    audit,
    cards,
    changes,
    clock,
    connections,
    credits,
    errors,
    payments,
    plans,
    renewals,
    stripe,
    subscriptions,
    topups,
    upgrades,
)
from billing.models import (
    Connection,
    Cycle,
    LedgerEntry,
    OutboxMessage,
    Payment,
    Plan,
    Subscription,
)
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.scenarios.test_overage import deliver, event_of

pytestmark = pytest.mark.django_db


class Ladder:
    """Plans of 25 (`studio`), 100 (`scale`) and 5 (`hobby`) a month, and a subscriber of 25."""

    def __init__(self, **plan: Any) -> None:
        self.shop = cn.Shop(**({"rollover_type": "none"} | plan))
        self.studio = self.shop.plan
        self.scale = self.plan("Scale", "100")
        self.hobby = self.plan("Hobby", "5")
        self.connection: Connection = self.shop.subscribe()

    def plan(self, name: str, price: str, credit: str = "", **fields: Any) -> Plan:
        made = factories.make_plan(
            self.shop.merchant,
            name=name,
            price=price,
            credit=credit or price,
            **({"rollover_type": "none"} | fields),
        )
        from meters.models import MeterPlan

        MeterPlan.objects.create(merchant=self.shop.merchant, meter=self.shop.meter, plan=made)
        return made

    @property
    def subscription(self) -> Subscription:
        found: Subscription = Subscription.objects.select_related("plan", "connection").get()
        return found

    def switch(self, plan: Plan) -> Payment | None:
        return upgrades.switch(self.subscription, plan=plan, now=self.shop.now).payment

    def left(self) -> tuple[Decimal, Decimal, Decimal]:
        balance = credits.balance(self.connection, now=self.shop.now)
        return balance.cycle, balance.bundle, balance.debt

    def taken(self) -> list[int]:
        assert cn.taken(self.shop.merchant) == cn.ours(self.shop.merchant)
        rows = Payment.objects.filter(status="succeeded").order_by("settled_at", "pk")
        return [int(row.amount.amount * 100) for row in rows]


def test_an_upgrade_costs_the_new_price_less_the_value_of_unused_credits(
    card_network: CardNetwork,
) -> None:
    it = Ladder()
    it.shop.use(it.connection, "r1", "10.5")
    seen = changes.preview(it.subscription, plan=it.scale, now=it.shop.now)
    assert (seen.is_upgrade, seen.charge, seen.unused_credit, seen.unused_value) == (
        True,
        Money("85.50", "USD"),
        Decimal("14.5"),
        Decimal("14.50"),
    )
    paid = it.switch(it.scale)
    assert paid is not None and (paid.status, paid.amount) == ("succeeded", Money("85.50", "USD"))
    now = it.subscription
    assert (now.plan, now.cycle_index, now.anchor_index) == (it.scale, 1, 1)
    assert now.cycle_start == now.anchor
    assert it.left() == (Decimal(100), Decimal(0), Decimal(0))
    assert it.taken() == [2500, 8550]
    first, second = Cycle.objects.order_by("index")
    assert (first.end, second.price_paid) == (second.start, Decimal(100))


def test_drained_credits_have_no_value(card_network: CardNetwork) -> None:
    it = Ladder()
    it.shop.use(it.connection, "r1", "25")
    it.switch(it.scale)
    assert it.taken() == [2500, 10000]


def test_a_plan_that_gives_more_than_it_costs_is_valued_at_what_was_paid(
    card_network: CardNetwork,
) -> None:
    it = Ladder(credit="30", price="20")
    it.shop.use(it.connection, "r1", "20")
    paid = it.switch(it.scale)
    # 10 of 30 unused at 20: 6.666..., rounded down.
    assert paid is not None and paid.amount.amount == Decimal("93.34")
    assert it.left() == (Decimal(100), Decimal(0), Decimal(0))


def test_drain_upgrade_downgrade_repeat_gives_no_free_credits(card_network: CardNetwork) -> None:
    it = Ladder()
    used = Decimal(0)
    for round_ in range(3):
        for step, plan in enumerate((it.scale, it.hobby)):
            spend = it.left()[0] - step
            it.shop.use(it.connection, f"r{round_}-{step}", str(spend))
            used += spend
            it.switch(plan)
            if plan is it.hobby:
                assert it.subscription.pending_plan == it.hobby
                it.shop.renew(it.connection)
    cycle, bundle, debt = it.left()
    ended = -sum(
        LedgerEntry.objects.filter(kind="expire", reason="").values_list("amount", flat=True)
    )
    paid = Decimal(sum(it.taken())) / 100
    assert used + cycle + bundle + ended - debt == paid


def test_upgrade_after_upgrade_pays_each_step_once(card_network: CardNetwork) -> None:
    it = Ladder()
    top = it.plan("Top", "400")
    it.switch(it.scale)
    it.switch(top)
    assert it.taken() == [2500, 7500, 30000]
    assert it.left()[0] == Decimal(400)


def test_bundles_stay_and_rolled_credits_stay_on_a_plan_that_rolls(
    card_network: CardNetwork,
) -> None:
    it = Ladder(rollover_type="full", bundle_rollover_type="none")
    bundle = factories.make_bundle(it.studio)
    it.shop.use(it.connection, "r1", "5")
    it.shop.renew(it.connection)
    cn.buy(it.connection, bundle, now=it.shop.now)
    assert it.left() == (Decimal(45), Decimal(10), Decimal(0))
    it.switch(it.scale)
    # The 25 of this cycle are given in payment, the 20 rolled from the one before are carried on.
    assert it.left() == (Decimal(120), Decimal(10), Decimal(0))
    assert it.taken()[-1] == 7500


def test_nothing_is_charged_below_zero_and_only_what_it_takes_is_given(
    card_network: CardNetwork,
) -> None:
    it = Ladder(price="240", credit="240", billing_interval="year", rollover_type="full")
    monthly = it.plan("Monthly", "25")
    seen = changes.preview(it.subscription, plan=monthly, now=it.shop.now)
    assert (seen.is_upgrade, seen.charge.amount, seen.unused_credit) == (True, 0, Decimal(25))
    assert it.switch(monthly) is None
    assert it.taken() == [24000]
    # 215 of the year's credits roll on, as that plan promised.
    assert it.left()[0] == Decimal(240)


def test_a_rest_too_small_for_a_card_is_owed_and_paid_from_the_new_credits(
    card_network: CardNetwork,
) -> None:
    it = Ladder()
    bit_more = it.plan("Bit more", "25.30")
    assert it.switch(bit_more) is None
    assert it.taken() == [2500]
    assert it.left() == (Decimal("25"), Decimal(0), Decimal(0))
    lines = LedgerEntry.objects.filter(kind="adjust")
    assert [(line.amount, line.grant) for line in lines] == [(Decimal("-0.30"), None)]


def test_a_downgrade_waits_for_the_end_and_can_be_taken_back(card_network: CardNetwork) -> None:
    it = Ladder()
    seen = changes.preview(it.subscription, plan=it.hobby, now=it.shop.now)
    assert (seen.is_upgrade, seen.charge.amount, seen.price) == (False, 0, Money(5, "USD"))
    assert seen.effective_at == it.subscription.cycle_end
    assert it.switch(it.hobby) is None
    assert (it.subscription.pending_change, it.subscription.plan) == ("downgrade", it.studio)
    subscriptions.resume(it.subscription, now=it.shop.now)
    assert (it.subscription.pending_change, it.subscription.pending_plan) == (None, None)
    it.switch(it.hobby)
    it.connection.customer.email = "mara@tallgrass.example"
    it.connection.customer.save()
    it.shop.renew(it.connection)
    renewals.renew(it.subscription.pk, now=it.shop.now)
    told = OutboxMessage.objects.filter(subject__startswith="You switched to Hobby")
    assert told.count() == 1
    assert (it.subscription.plan, it.subscription.pending_change) == (it.hobby, None)
    assert (it.taken(), it.left()[0]) == ([2500, 500], Decimal(5))


def test_an_upgrade_takes_the_place_of_a_pending_downgrade_or_cancellation(
    card_network: CardNetwork,
) -> None:
    it = Ladder()
    it.switch(it.hobby)
    it.switch(it.scale)
    assert (it.subscription.plan, it.subscription.pending_change) == (it.scale, None)
    subscriptions.cancel(it.subscription, now=it.shop.now)
    it.switch(it.plan("Top", "400"))
    subscription = it.subscription
    assert (subscription.pending_change, subscription.cancelled_at) == (None, None)
    it.shop.renew(it.connection)
    assert it.taken()[-1] == 40000


def test_cancelling_takes_the_place_of_a_downgrade(card_network: CardNetwork) -> None:
    it = Ladder()
    it.switch(it.hobby)
    subscriptions.cancel(it.subscription, now=it.shop.now)
    assert (it.subscription.pending_change, it.subscription.pending_plan) == ("cancellation", None)
    it.shop.renew(it.connection)
    assert (it.subscription.status, it.taken()) == ("cancelled", [2500])


def test_to_a_free_plan_and_back(card_network: CardNetwork) -> None:
    it = Ladder()
    free = it.plan("Free", "0", "3")
    it.switch(free)
    it.shop.renew(it.connection)
    assert (it.subscription.plan, it.left()[0]) == (free, Decimal(3))
    paid = it.switch(it.studio)
    # Credits that cost nothing have no value.
    assert paid is not None and paid.amount.amount == Decimal(25)
    assert it.left()[0] == Decimal(25)


def test_a_decline_changes_nothing_and_the_next_try_is_charged_once(
    card_network: CardNetwork,
) -> None:
    it = Ladder()
    cn.behave_as(card_network, it.connection, cn.DECLINES_LATER)
    failed = it.switch(it.scale)
    assert failed is not None and failed.status == "failed"
    assert (it.subscription.plan, it.left()[0]) == (it.studio, Decimal(25))
    cn.behave_as(card_network, it.connection, cn.GOOD)
    it.switch(it.scale)
    assert it.taken() == [2500, 7500]


@pytest.mark.django_db(transaction=True)
def test_twenty_switches_at_once_charge_once(card_network: CardNetwork) -> None:
    it = Ladder()
    subscription, now = it.subscription, it.shop.now
    answers = cn.at_once(20, lambda: upgrades.switch(subscription, plan=it.scale, now=now))
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert {getattr(answer, "code", answer) for answer in refused} <= {
        "payment_under_way",
        "already_subscribed",
    }
    assert it.taken() == [2500, 7500]
    assert it.left()[0] == Decimal(100)


@pytest.mark.django_db(transaction=True)
def test_draws_while_the_upgrade_is_paid_are_each_charged_once(card_network: CardNetwork) -> None:
    it = Ladder()
    subscription, now = it.subscription, it.shop.now
    turn = iter(range(20))

    def act() -> Any:
        number = next(turn)
        if number == 7:
            return upgrades.switch(subscription, plan=it.scale, now=now)
        return it.shop.use(it.connection, f"r{number}", "1")

    answers = cn.at_once(20, act)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    cycle, _, debt = it.left()
    paid = Decimal(sum(it.taken())) / 100
    assert cycle - debt + 19 == paid


def test_credits_spent_while_the_page_was_open_are_owed(card_network: CardNetwork) -> None:
    it = Ladder()
    payment = upgrades.begin(it.subscription, plan=it.scale, key="page", now=it.shop.now)
    assert payment is not None and payment.amount.amount == Decimal(75)
    payments.present(payment, now=it.shop.now)
    it.shop.use(it.connection, "r1", "25")
    payment.refresh_from_db()
    stripe.confirm_intent(payment, card_id=it.connection.card.card_id)
    for _ in range(2):
        assert payments.refresh(payment, now=it.shop.now).status == "succeeded"
    # 25 were counted at 25 and then spent: 125 used and left for 100 paid, so 25 are owed.
    assert it.left() == (Decimal(75), Decimal(0), Decimal(0))
    assert it.subscription.plan == it.scale


def test_the_same_page_asks_the_same_price_and_its_event_settles_once(
    card_network: CardNetwork,
) -> None:
    it = Ladder()
    first = upgrades.begin(it.subscription, plan=it.scale, key="page", now=it.shop.now)
    again = upgrades.begin(it.subscription, plan=it.scale, key="page", now=it.shop.now)
    assert first is not None and first == again
    payments.present(first, now=it.shop.now)
    first.refresh_from_db()
    stripe.confirm_intent(first, card_id=cards.from_test_card(it.shop.merchant, cn.GOOD))
    body, signature = event_of(first)
    for _ in range(3):
        assert deliver(body, signature).status_code == 200
    assert (it.subscription.plan, it.left()[0]) == (it.scale, Decimal(100))
    assert it.taken() == [2500, 7500]


def test_a_page_whose_cycle_is_over_cannot_be_paid(card_network: CardNetwork) -> None:
    it = Ladder()
    payment = upgrades.begin(it.subscription, plan=it.scale, key="page", now=it.shop.now)
    assert payment is not None
    it.shop.renew(it.connection)
    with pytest.raises(errors.Conflict) as refused:
        payments.present(payment, now=it.shop.now)
    assert refused.value.code == "terms_changed"


def test_paid_for_a_cycle_that_is_over_it_is_flagged_and_gives_nothing(
    card_network: CardNetwork,
) -> None:
    it = Ladder()
    payment = upgrades.begin(it.subscription, plan=it.scale, key="page", now=it.shop.now)
    assert payment is not None
    payments.present(payment, now=it.shop.now)
    it.shop.renew(it.connection)
    payment.refresh_from_db()
    stripe.confirm_intent(payment, card_id=it.connection.card.card_id)
    settled = payments.refresh(payment, now=it.shop.now)
    assert settled.status == "succeeded" and settled.flag
    assert it.subscription.plan == it.studio


def test_the_renewal_waits_for_an_upgrade_without_an_answer(card_network: CardNetwork) -> None:
    it = Ladder()
    cn.fault(card_network, "drop", times=1)
    payment = it.switch(it.scale)
    assert payment is not None and payment.status == "unknown"
    for act in (
        lambda: it.switch(it.scale),
        lambda: changes.schedule(it.subscription, plan=it.hobby, now=it.shop.now),
    ):
        with pytest.raises(errors.Conflict) as refused:
            act()
        assert refused.value.code == "payment_under_way"
    end = it.subscription.cycle_end
    clock.advance(it.shop.merchant, to=end, run=False)
    assert renewals.renew(it.subscription.pk, now=end) is None
    assert payments.refresh(payment, now=end).status == "succeeded"
    assert (it.subscription.plan, it.taken()) == (it.scale, [2500, 7500])


@pytest.mark.parametrize("used", ["", "1"])
def test_credits_that_end_while_the_answer_is_awaited_are_not_owed(
    card_network: CardNetwork, used: str
) -> None:
    it = Ladder()
    cn.fault(card_network, "drop", times=1)
    payment = it.switch(it.scale)
    assert payment is not None and payment.status == "unknown"
    end = it.subscription.cycle_end
    it.shop.use(it.connection, "r1", "5")
    clock.advance(it.shop.merchant, to=end, run=False)
    if used:
        # A charge enters the end of the credits before the answer comes.
        it.shop.use(it.connection, "r2", used)
    assert payments.refresh(payment, now=it.shop.now).status == "succeeded"
    # 25 were counted, and 5 of them spent before they ended; what came after them is owed too.
    assert it.left() == (Decimal(95) - Decimal(used or 0), 0, 0)
    assert not [rule.name for rule in audit.RULES if rule.rows(1)]


def test_past_due_an_upgrade_begins_now_and_the_gap_is_on_record(card_network: CardNetwork) -> None:
    it = Ladder()
    end = it.subscription.cycle_end
    cn.behave_as(card_network, it.connection, cn.DECLINES_LATER)
    clock.advance(it.shop.merchant, to=end + timedelta(hours=5))
    assert it.subscription.status == "past_due"
    cn.behave_as(card_network, it.connection, cn.GOOD)
    it.switch(it.scale)
    subscription = it.subscription
    assert (subscription.status, subscription.past_due_since) == ("active", None)
    states = Cycle.objects.order_by("index").values_list("state", flat=True)
    assert list(states) == ["granted", "skipped", "granted"]
    assert it.taken() == [2500, 10000]


def test_an_anchor_of_the_31st_survives_a_downgrade_in_february(card_network: CardNetwork) -> None:
    it = Ladder()
    merchant = it.shop.merchant
    start = datetime(2028, 1, 31, 9, 0, tzinfo=UTC)
    clock.advance(merchant, to=start - timedelta(days=1), run=False)
    renewals.renew(it.subscription.pk, now=it.shop.now)
    top = it.plan("Top", "400")
    clock.advance(merchant, to=start)
    it.switch(top)
    it.switch(it.hobby)
    ends = []
    for _ in range(3):
        ends.append(it.subscription.cycle_end.date().isoformat())
        it.shop.renew(it.connection)
    assert ends == ["2028-02-29", "2028-03-31", "2028-04-30"]
    assert it.subscription.plan == it.hobby


def test_a_downgrade_to_another_interval_stands_on_the_end_of_the_cycle(
    card_network: CardNetwork,
) -> None:
    it = Ladder()
    yearly = it.plan("Yearly", "250", billing_interval="year")
    assert not changes.is_upgrade(it.studio, yearly)
    end = it.subscription.cycle_end
    it.switch(yearly)
    it.shop.renew(it.connection)
    subscription = it.subscription
    assert (subscription.plan, subscription.anchor, subscription.cycle_start) == (yearly, end, end)
    assert subscription.cycle_end.year == end.year + 1


def test_a_top_up_goes_on_with_the_same_bundle_of_the_new_plan_or_ends(
    card_network: CardNetwork,
) -> None:
    it = Ladder()
    topups.configure(it.subscription, bundle=factories.make_bundle(it.studio), now=it.shop.now)
    twin = factories.make_bundle(it.scale)
    assert changes.preview(it.subscription, plan=it.scale, now=it.shop.now).keeps_top_up
    it.switch(it.scale)
    assert it.subscription.auto_top_up_bundle == twin
    top = it.plan("Top", "400")
    assert not changes.preview(it.subscription, plan=top, now=it.shop.now).keeps_top_up
    it.switch(top)
    assert it.subscription.auto_top_up_bundle is None


def test_what_cannot_be_is_refused_and_changes_nothing(card_network: CardNetwork) -> None:
    it = Ladder()
    foreign = factories.make_plan(factories.make_merchant(), price="500")
    gone = plans.archive(it.plan("Gone", "300"), now=it.shop.now)
    euro = it.plan("Euro", "300")
    Plan.objects.filter(pk=euro.pk).update(price_currency="EUR")
    for plan, kind in (
        (foreign, errors.NotFound),
        (gone, errors.Conflict),
        (Plan.objects.get(pk=euro.pk), errors.Conflict),
        (it.studio, errors.Conflict),
    ):
        with pytest.raises(kind):
            upgrades.switch(it.subscription, plan=plan, now=it.shop.now)
    connections.set_enabled(it.connection, enabled=False, now=it.shop.now)
    with pytest.raises(errors.Conflict):
        it.switch(it.scale)
    connections.set_enabled(it.connection, enabled=True, now=it.shop.now)
    connections.delete(it.connection, now=it.shop.now)
    with pytest.raises(errors.Conflict):
        it.switch(it.scale)
    assert (it.subscription.plan, it.taken()) == (it.studio, [2500])


def test_what_is_owed_is_charged_before_the_upgrade(card_network: CardNetwork) -> None:
    it = Ladder()
    it.shop.use(it.connection, "r1", "33")
    it.switch(it.scale)
    assert it.taken() == [2500, 800, 10000]
    assert it.left() == (Decimal(100), Decimal(0), Decimal(0))


@pytest.mark.django_db(transaction=True)
def test_all_changes_at_once_end_in_one_of_them(card_network: CardNetwork) -> None:
    it = Ladder()
    subscription, now = it.subscription, it.shop.now
    acts = (
        lambda: changes.schedule(subscription, plan=it.hobby, now=now),
        lambda: subscriptions.cancel(subscription, now=now),
        lambda: subscriptions.resume(subscription, now=now),
        lambda: upgrades.switch(subscription, plan=it.scale, now=now),
    )
    turn = iter(range(20))
    answers = cn.at_once(20, lambda: acts[next(turn) % 4]())
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert {getattr(answer, "code", answer) for answer in refused} <= {
        "payment_under_way",
        "already_subscribed",
        "nothing_pending",
    }
    assert it.taken() == [2500, 7500]
    assert it.subscription.plan == it.scale


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_each_cent_paid_is_used_left_or_ended(
    card_network: CardNetwork, seed: int
) -> None:
    """On plans that give a credit for a unit of money: paid = used + ended + left, exactly."""
    dice = random.Random(seed)
    it = Ladder(rollover_type=dice.choice(["full", "none"]), overage_threshold=Decimal(10))
    used = Decimal(0)
    for step in range(18):
        act = dice.choice(["use", "use", "drain", "up", "down", "renew", "pack", "resume", "page"])
        cycle, bundle, _ = it.left()
        if act in ("use", "drain"):
            most = cycle + bundle + (5 if act == "use" else 0)
            fee = Decimal(dice.randrange(0, int(most * 100) + 1)) / 100 if act == "use" else cycle
            it.shop.use(it.connection, f"r{step}", str(fee))
            used += fee
        elif act in ("up", "down"):
            with suppress(errors.Conflict):
                it.switch(it.scale if act == "up" else dice.choice([it.hobby, it.studio]))
        elif act == "renew":
            it.shop.renew(it.connection)
        elif act == "pack":
            pack = it.subscription.plan.live_bundles.first() or factories.make_bundle(
                it.subscription.plan
            )
            cn.buy(it.connection, pack, now=it.shop.now)
        elif act == "resume":
            with suppress(errors.Conflict):
                subscriptions.resume(it.subscription, now=it.shop.now)
        elif it.subscription.plan != it.scale:
            page = upgrades.begin(it.subscription, plan=it.scale, key=f"p{step}", now=it.shop.now)
            fee = min(cycle, Decimal(4))
            it.shop.use(it.connection, f"r{step}", str(fee))
            used += fee
            if page is not None:
                payments.present(page, now=it.shop.now)
                payments.confirm(page, card_id=it.connection.card.card_id, now=it.shop.now)
        left = credits.balance(it.connection, now=it.shop.now).total
        ended = LedgerEntry.objects.filter(kind="expire", reason="")
        gone = -sum(ended.values_list("amount", flat=True), Decimal(0))
        assert Decimal(sum(it.taken())) / 100 == used + gone + left, (step, act)
