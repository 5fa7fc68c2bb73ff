"""A draft plan replayed: every figure against one reckoned by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection as database
from django.test.utils import CaptureQueriesContext
from moneyed import Money

from billing import errors, plans
from billing.models import LedgerEntry, Payment, Subscription
from meters import prices, pricing, replay_past, replay_plans, rollups, usage, volume
from meters.models import UsageRequest
from meters.replay_plans import Bill, Comparison, Offer
from tests import factories
from tests.meters.test_charge import report

pytestmark = pytest.mark.django_db


class Story:
    """A plan of 25 for 25 a month at 3 a million, and its customers' past month."""

    def __init__(self) -> None:
        self.merchant = factories.make_merchant()
        self.key = factories.make_key(self.merchant)
        self.plan = factories.make_plan(self.merchant)
        self.meter = factories.make_meter(self.merchant, self.plan)
        now = self.merchant.now()
        self.now = now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
        self.count = 0

    def customer(self, *, days: float = 800) -> Any:
        """Somebody who joined so many days ago."""
        row = factories.make_subscription(self.plan, now=self.now)
        Subscription.objects.filter(pk=row.pk).update(started_at=self.now - timedelta(days=days))
        return row.connection

    def use(self, person: Any, fee: str, *, days_ago: float = 1, cost: str | None = None) -> None:
        """A request that was charged `fee`, so many days ago."""
        self.count += 1
        tokens = Decimal(fee) / 3 * 1_000_000
        assert tokens == int(tokens)
        fields = {} if cost is None else {"provider_cost": Decimal(cost)}
        report(
            self.key,
            person,
            f"r{self.count}",
            input_tokens=int(tokens),
            timestamp=self.now - timedelta(days=days_ago),
            **fields,
        )

    def draft(self, **terms: Any) -> Offer:
        offer = replay_plans.of(self.plan)
        return replace(offer, terms=replace(offer.terms, **terms))

    def compare(self, draft: Offer, *, months: int = 1) -> Comparison:
        return replay_plans.compare(
            self.merchant, draft, months=months, now=self.now, plan=self.plan
        )

    def bill(self, draft: Offer, *, since_days: int = 14) -> Bill:
        """The only customer's bill over whole weeks that end now."""
        (row,) = self.plan.subscriptions.all()
        (found,) = replay_plans.replay(
            self.merchant,
            draft,
            people=[row.connection_id],
            since=self.now - timedelta(days=since_days),
            until=self.now,
        )
        return found


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_dearer_plan_with_less_credit(story: Story) -> None:
    heavy, light = story.customer(), story.customer()
    story.use(heavy, "30", cost="6")
    story.use(heavy, "3", cost="1.5")
    story.use(light, "6")
    found = story.compare(story.draft(price=Decimal(20), included_credit=Decimal(5)))
    # Today 25 + 25, and the heavy one 8 past 25. Draft: 20 + 28 and 20 + 1.
    assert (found.today.revenue, found.draft.revenue) == (Decimal(58), Decimal(69))
    assert (found.draft.price, found.draft.overage) == (Decimal(40), Decimal(29))
    assert found.draft.cost == Decimal("7.5")
    assert found.draft.margin == (Decimal(69) - Decimal("7.5")) * 100 / 69
    assert found.draft.without_cost == 6
    ((before, after),) = found.rises
    assert (before.connection_id, before.total, after.total) == (heavy.pk, 33, 48)
    assert found.falls == 1
    worst = found.draft.worst
    assert worst is not None and (worst.connection_id, worst.total) == (heavy.pk, 48)
    assert (found.today.run_out, found.draft.run_out) == (1, 2)


def test_what_came_back_by_volume_is_not_asked_for(story: Story) -> None:
    falling = [
        pricing.Tier(start=Decimal(start), rate=Decimal(rate))
        for start, rate in ((0, "3"), (10_000_000, "1"))
    ]
    prices.publish(
        story.meter,
        terms=prices.Terms(tiers=falling, tier_mode="volume", tier_window="cycle"),
        actor="ana",
        now=story.now,
    )
    heavy, light = story.customer(), story.customer()
    story.use(heavy, "36")
    story.use(light, "33")
    for person in (heavy, light):
        volume.settle(person.subscription.pk, now=story.now - timedelta(hours=1), early=True)
    found = story.compare(story.draft(included_credit=Decimal(12)))
    by_person = {after.connection_id: (before, after) for before, after in found.pairs}
    before, after = by_person[heavy.pk]
    # 36 less 25 is 11 past the credit; 24 of it came back, of which 13 is credit again.
    assert (before.overage, before.left, after.overage, after.left) == (0, 13, 0, 0)
    before, after = by_person[light.pk]
    # 33 past 12 of credit is 21, and 22 came back.
    assert (before.overage, before.left, after.overage, after.left) == (0, 14, 0, 1)


def test_a_plan_that_stops_refuses_what_does_not_fit_and_serves_what_does(story: Story) -> None:
    person = story.customer()
    for fee, cost in (("6", "1"), ("9", "2"), ("3", "4")):
        story.use(person, fee, cost=cost)
    found = story.compare(story.draft(when_depleted="block", included_credit=Decimal(10)))
    # 6 fits, 9 does not, 3 does again.
    (_, bill) = found.pairs[0]
    assert (bill.served, bill.refused, bill.left, bill.cost) == (9, 1, 1, 5)
    assert (bill.total, bill.owed, bill.runs_out, bill.requests) == (25, 0, True, 2)


def test_a_cap_lets_through_so_much_past_the_credit(story: Story) -> None:
    person = story.customer()
    for fee in ("9", "3", "3", "0.3"):
        story.use(person, fee)
    found = story.compare(story.draft(included_credit=Decimal(10), overage_cap=Decimal(2)))
    # 9; 3 needs 2 past; the next 3 and 0.30 do not fit any more.
    (_, bill) = found.pairs[0]
    assert (bill.served, bill.refused, bill.overage, bill.total) == (12, 2, 2, 27)


def test_weeks_carry_what_is_left_up_to_a_limit(story: Story) -> None:
    person = story.customer()
    story.use(person, "3", days_ago=10)
    story.use(person, "15", days_ago=3)
    draft = story.draft(billing_interval="week", price=Decimal(5), included_credit=Decimal(9))
    # Two weeks: 6 carried, 15 at hand; nothing past it, nothing left.
    bill = story.bill(draft)
    assert (bill.price, bill.overage, bill.left, bill.runs_out) == (10, 0, 0, True)
    capped = replace(draft, terms=replace(draft.terms, rollover_cap=Decimal(4)))
    assert story.bill(capped).overage == 2
    ends = replace(draft, terms=replace(draft.terms, rollover_type="none"))
    assert story.bill(ends).overage == 6
    # A plan that stops: what was carried serves.
    stops = replace(draft, terms=replace(draft.terms, when_depleted="block"))
    assert (story.bill(stops).served, story.bill(stops).refused) == (18, 0)
    stops = replace(stops, terms=replace(stops.terms, rollover_type="none"))
    assert (story.bill(stops).served, story.bill(stops).refused) == (3, 1)


def test_a_cycle_that_is_cut_short_counts_by_its_share(story: Story) -> None:
    person = story.customer()
    story.use(person, "9", days_ago=3)
    # 10 days: a week, and 3/7 of one: 7 + 3.00 paid, 14 + 6.00 given, of which 9 is used.
    draft = story.draft(billing_interval="week", price=Decimal(7), included_credit=Decimal(14))
    bill = story.bill(draft, since_days=10)
    assert (bill.price, bill.left) == (10, 11)


def test_who_joined_within_the_time_is_billed_from_then_on(story: Story) -> None:
    late = story.customer(days=7)
    story.use(late, "9")
    draft = story.draft(billing_interval="week", price=Decimal(7), included_credit=Decimal(14))
    # Of four weeks the last.
    bill = story.bill(draft, since_days=28)
    assert (bill.price, bill.left, bill.overage) == (7, 5, 0)
    # Half of it: half the price, half the credit.
    Subscription.objects.update(started_at=story.now - timedelta(days=3.5))
    bill = story.bill(draft, since_days=28)
    assert (bill.price, bill.left, bill.overage) == (Decimal("3.5"), 0, 2)
    # A limit is of that half too.
    stops = replace(draft, terms=replace(draft.terms, when_depleted="block"))
    bill = story.bill(stops, since_days=28)
    assert (bill.served, bill.refused) == (0, 1)
    capped = replace(draft, terms=replace(draft.terms, overage_cap=Decimal(2)))
    assert story.bill(capped, since_days=28).refused == 1


def test_who_joined_within_the_time_is_counted_and_who_joined_after_it_is_not(
    story: Story,
) -> None:
    old, late = story.customer(), story.customer(days=1)
    story.customer(days=-0.001)
    found = story.compare(story.draft())
    assert [before.connection_id for before, _ in found.pairs] == sorted([old.pk, late.pk])
    assert (found.joined, found.left_out) == (1, 0)
    assert "1 joined within it and count from then on." in ask(story.plan.public_id)
    assert json.loads(ask(story.plan.public_id, "--json"))["joined_within"] == 1


def test_more_customers_than_can_be_billed_are_said_to_be_left_out(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = [story.customer() for _ in range(4)]
    monkeypatch.setattr(replay_plans, "MOST_CUSTOMERS", 2)
    found = story.compare(story.draft())
    assert [before.connection_id for before, _ in found.pairs] == [first.pk, second.pk]
    assert found.left_out == 2
    assert "2 customers who came later are left out." in ask(story.plan.public_id)


def test_requests_are_read_only_where_a_limit_may_stop_them_and_only_so_many(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy, light = story.customer(), story.customer()
    for _ in range(3):
        story.use(heavy, "9")
        story.use(light, "3")

    def queries(draft: Offer) -> list[str]:
        with CaptureQueriesContext(database) as found:
            story.compare(draft)
        return [row["sql"] for row in found if "usagerequest" in row["sql"]]

    stops = story.draft(when_depleted="block", included_credit=Decimal(15))
    assert queries(story.draft()) == []
    (query,) = queries(stops)
    assert heavy.pk.hex in query and light.pk.hex not in query
    monkeypatch.setattr(replay_past, "MOST_REQUESTS", 2)
    with pytest.raises(errors.Invalid) as refusal:
        story.compare(stops)
    assert refusal.value.param == "people"
    monkeypatch.setattr(replay_past, "MOST_REQUESTS", 3)
    assert story.compare(stops).draft.refused == 2


def test_late_and_voided_requests_count_where_the_work_was_done(story: Story) -> None:
    person = story.customer()
    story.use(person, "3", days_ago=10)
    story.use(person, "6", days_ago=3)
    story.use(person, "9", days_ago=3)
    row = UsageRequest.objects.get(request_id="r3")
    usage.void(row, reason="double", actor="ana", now=story.now)
    draft = story.draft(billing_interval="week", included_credit=Decimal(5), rollover_type="none")
    before = story.bill(draft)
    # 3 in the first week, within its 5; 6 in the second, 1 past them.
    assert (before.served, before.overage, before.requests) == (9, 1, 2)
    rollups.compact()
    assert story.bill(draft) == before


def test_less_than_a_smallest_charge_stays_owed_and_comes_off_the_next_credit(
    story: Story,
) -> None:
    person = story.customer()
    story.use(person, "9.30", days_ago=10)
    draft = story.draft(billing_interval="week", included_credit=Decimal(9))
    bill = story.bill(draft)
    assert (bill.overage, bill.owed, bill.left) == (0, 0, Decimal("8.7"))
    story.use(person, "9", days_ago=3)
    bill = story.bill(draft)
    assert (bill.overage, bill.owed) == (0, Decimal("0.30"))
    story.use(person, "0.300003", days_ago=2)
    bill = story.bill(draft)
    assert (bill.overage, bill.owed) == (Decimal("0.60"), Decimal("0.000003"))


def test_a_meter_the_draft_lacks_is_refused(story: Story) -> None:
    other = factories.make_meter(story.merchant, slug="other")
    story.use(story.customer(), "3")
    found = story.compare(replace(story.draft(), meters=frozenset({other.pk})))
    assert (found.today.served, found.draft.served, found.draft.refused) == (3, 0, 1)


def test_bundles_are_bought_again_at_the_drafts_terms(story: Story) -> None:
    person = story.customer()
    bundle = factories.make_bundle(story.plan)
    Payment(
        merchant=story.merchant, connection=person, purpose=Payment.Purpose.BUNDLE,
        status=Payment.Status.SUCCEEDED, amount=Money(20, "USD"), key="bundle", bundle=bundle,
        quantity=2, credit_amount=Decimal(20), settled_at=story.now - timedelta(days=2),
    ).save()  # fmt: skip
    story.use(person, "60")
    found = story.compare(replace(story.draft(), bundles={bundle.pk: (Decimal(9), Decimal(12))}))
    # Today 25 + 2 x 10 and 60 - 45 past; the draft 25 + 2 x 9 and 60 - 49 past.
    (today, draft) = found.pairs[0]
    assert (today.bundles, today.overage, today.total) == (20, 15, 60)
    assert (draft.bundles, draft.overage, draft.total) == (18, 11, 54)
    gone = story.compare(replace(story.draft(), bundles={}))
    assert (gone.draft.bundles, gone.draft.overage) == (0, 35)


def test_the_same_plan_changes_nothing_and_nothing_is_written(story: Story) -> None:
    story.use(story.customer(), "30")
    lines = LedgerEntry.objects.count()
    found = story.compare(story.draft(), months=12)
    assert all(today == draft for today, draft in found.pairs)
    assert (found.today.price, found.rises, found.falls) == (300, [], 0)
    assert LedgerEntry.objects.count() == lines


def test_terms_no_plan_can_have_are_refused(story: Story) -> None:
    with pytest.raises(errors.Invalid):
        story.compare(story.draft(price=Decimal("0.10")))


@pytest.mark.parametrize(
    ("now", "months", "since", "until"),
    [
        ("2026-03-31T12:00", 1, "2026-02-28T12:00", "2026-03-28T12:00"),
        ("2026-01-15T00:00", 1, "2025-12-15T00:00", "2026-01-15T00:00"),
        ("2024-02-29T08:14", 12, "2023-02-28T08:00", "2024-02-28T08:00"),
    ],
)
def test_months_are_whole(story: Story, now: str, months: int, since: str, until: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    found = replay_plans.last_months(story.merchant, months=months, now=at)
    assert [moment.astimezone(UTC).isoformat()[:16] for moment in found] == [since, until]


def ask(*words: str) -> str:
    out = StringIO()
    call_command("whatif", *words, stdout=out)
    return out.getvalue()


def test_the_command_says_the_same_figures(story: Story) -> None:
    heavy = story.customer()
    story.use(heavy, "33")
    words = (story.plan.public_id, "--price", "20", "--included-credit", "5")
    found = json.loads(ask(*words, "--json"))
    amounts = [Decimal(found[side]["revenue"]) for side in ("today", "draft")]
    assert amounts == [33, 48]
    assert found["customers"][0]["connection"] == heavy.public_id
    assert (found["pay_more"], found["draft"]["run_out"]) == (1, 1)
    text = ask(*words, "--connection", heavy.public_id)
    for part in ("$33.00", "$48.00", "+$15.00", heavy.public_id, "1 pay more, 0 pay less."):
        assert part in text, part


def test_the_command_reads_meters_caps_and_bundles(story: Story) -> None:
    story.use(story.customer(), "33")
    bundle = factories.make_bundle(story.plan)
    words = (story.plan.public_id, "--json", "--overage-cap", "none", "--bundle")
    found = json.loads(ask(*words, f"{bundle.public_id}=none", "--meters", "chat"))
    assert found["draft"] == found["today"]
    for wrong in (
        (*words, bundle.public_id),
        (story.plan.public_id, "--meters", "nope"),
        (story.plan.public_id, "--price", "much"),
        (story.plan.public_id, "--months", "13"),
        ("sc_test_nobody",),
    ):
        with pytest.raises(CommandError):
            ask(*wrong)


def test_plans_terms_are_what_is_read(story: Story) -> None:
    assert replay_plans.of(story.plan).terms == plans.of(story.plan)
