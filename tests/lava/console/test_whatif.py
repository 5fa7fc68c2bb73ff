"""What if: a draft is tried on real usage, shown, and nothing is saved."""

from __future__ import annotations

from typing import Any

import pytest

from meters.models import MeterPrice
from tests.lava.console.shop import Shop
from tests.lava.console.test_wall import meter_form

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
