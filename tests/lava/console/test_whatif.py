"""What if: a draft is tried on real usage, shown, and nothing is saved."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from billing.models import Plan, Subscription
from meters import replay_past, replay_plans
from meters.models import MeterPrice
from tests import factories
from tests.lava.console.shop import Shop
from tests.lava.console.test_wall import meter_form, plan_form

pytestmark = pytest.mark.django_db


def draft(shop: Shop, **fields: str) -> Any:
    where = f"/console/meters/{shop.sandbox.meter.public_id}/what-if"
    return shop.client().post(where, meter_form(shop, shop.sandbox) | fields)


def test_a_dearer_draft_says_who_pays_more_and_saves_nothing(ours: Shop) -> None:
    versions = MeterPrice.objects.count()
    page = draft(ours, **{"tier-0-rate": "4.5"}).content.decode()
    # 1 million tokens: 3.00 today, 4.50 with the draft.
    for text in ("$4.50", "+$1.50", "+50.0 %", "Northwind Quill", "Draft of version 2"):
        assert text in page, text
    assert MeterPrice.objects.count() == versions


def test_a_cheaper_draft_leaves_nobody_paying_more(ours: Shop) -> None:
    page = draft(ours, **{"tier-0-rate": "1"}).content.decode()
    assert "Nobody pays more" in page and "−$2.00" in page


def test_the_draft_that_was_tried_is_the_one_that_is_published(ours: Shop) -> None:
    page = draft(ours, **{"tier-0-rate": "4.5"}).content.decode()
    form = page.split(f'action="/console/meters/{ours.sandbox.meter.public_id}"')[1]
    assert 'name="tier-0-rate" value="4.5"' in form.split("</form>")[0]


def test_a_draft_that_cannot_be_read_goes_back_to_the_builder(ours: Shop) -> None:
    answer = draft(ours, **{"tier-0-rate": "much"})
    assert answer.status_code == 422
    assert b'value="much"' in answer.content


def test_a_share_of_cost_says_what_it_cannot_price(ours: Shop) -> None:
    page = draft(ours, kind="percent", **{"tier-0-rate": "20"}).content.decode()
    assert "without a provider" in page


def plan_draft(shop: Shop, key: str = "", **fields: Any) -> Any:
    where = f"/console/plans/{key or shop.sandbox.plan.public_id}/what-if"
    form = plan_form(shop, shop.sandbox) | {"meters": [shop.sandbox.meter.public_id]}
    return shop.client().post(where, form | fields)


@pytest.fixture
def used(ours: Shop) -> Shop:
    """The shop with a customer of long ago, who used 2.00 yesterday."""
    now = ours.sandbox.merchant.now()
    Subscription.objects.update(started_at=now - timedelta(days=800))
    ours.sandbox.use("yesterday", 1_000_000, timestamp=now - timedelta(days=1))
    return ours


def test_a_draft_plan_says_revenue_and_who_pays_more_and_saves_nothing(used: Shop) -> None:
    before = Plan.objects.count()
    page = plan_draft(
        used, version_of=used.sandbox.plan.public_id, price="30", included_credit="1"
    ).content.decode()
    # 25 today; 30 and 1 past the credit of 1 with the draft.
    for text in ("$31.00", "+$6.00", "+24.0 %", "Northwind Quill", "Make the version"):
        assert text in page, text
    assert Plan.objects.count() == before
    used.sandbox.plan.refresh_from_db()
    assert used.sandbox.plan.price.amount == 25


def test_who_joined_within_the_month_and_who_is_left_out_is_said(
    used: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = used.sandbox
    assert "joined within it" not in plan_draft(used).content.decode()
    now = books.merchant.now()
    factories.make_subscription(books.plan, now=now - timedelta(days=2))
    page = plan_draft(used).content.decode()
    assert "1 of them joined within it and counts from then on" in page
    monkeypatch.setattr(replay_plans, "MOST_CUSTOMERS", 1)
    assert "1 who came later is left out" in plan_draft(used).content.decode()


def test_too_much_to_go_through_one_by_one_is_said_with_its_mend(
    used: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_past, "MOST_REQUESTS", 0)
    answer = plan_draft(used, version_of=used.sandbox.plan.public_id, price="30",
                        included_credit="1", when_depleted="block")  # fmt: skip
    page = answer.content.decode()
    assert answer.status_code == 422 and "would be gone through one by one" in page
    assert 'name="people"' in page and 'value="30"' in page


def test_a_new_plan_is_tried_on_everybody(used: Shop) -> None:
    page = plan_draft(used, "new", price="20").content.decode()
    assert "Nobody pays more" in page and "beside the plan each is on" in page


def test_a_draft_plan_is_tried_on_chosen_customers(used: Shop, theirs: Shop) -> None:
    chosen = used.sandbox.connection.public_id
    page = plan_draft(used, people=chosen, months="3").content.decode()
    assert f'value="{chosen}"' in page and "The last 3 months" in page
    foreign = theirs.sandbox.connection.public_id
    page = plan_draft(used, people=foreign).content.decode()
    assert f"There is no connection {foreign}" in page and "Zanzibar" not in page


def test_a_draft_plan_that_cannot_be_read_goes_back_to_the_builder(ours: Shop) -> None:
    answer = plan_draft(ours, included_credit="much")
    assert answer.status_code == 422
    assert b'value="much"' in answer.content
    assert f'action="/console/plans/{ours.sandbox.plan.public_id}"'.encode() in answer.content


def test_what_if_lists_meters_and_plans(ours: Shop) -> None:
    page = ours.client().get("/console/what-if").content.decode()
    assert "Try a price" in page and "Try other terms" in page
