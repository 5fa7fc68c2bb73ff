"""The clock's page: what it lists is what runs, and a step sent twice is taken once."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from billing.models import Membership, Subscription
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests.lava.console.shop import Shop

pytestmark = pytest.mark.django_db
Role = Membership.Role


def target(page: Any) -> str:
    found = re.search(r'type="hidden" name="to" value="([^"]+)"', page.content.decode())
    assert found is not None
    return found.group(1)


def test_a_step_sent_twice_is_taken_once(ours: Shop) -> None:
    client, merchant = ours.client(Role.DEVELOPER), ours.sandbox.merchant
    to = target(client.get("/console/clock", {"go": "week"}))
    done = client.post("/console/clock", {"to": to})
    assert done.status_code == 302
    merchant.refresh_from_db()
    first = merchant.clock_offset
    assert timedelta(days=6) < first < timedelta(days=8)
    again = client.post("/console/clock", {"to": to})
    assert again.status_code == 409
    assert b"only moves forward" in again.content
    merchant.refresh_from_db()
    assert merchant.clock_offset == first
    assert b"What happened since" in client.get(done["Location"]).content


@pytest.mark.parametrize(
    "to", ["", "tomorrow", "2026-11-24", "2026-11-24T10:00", "2001-01-01T00:00:00+00:00",
           "2999-01-01T00:00:00+00:00"],
)  # fmt: skip
def test_an_instant_that_is_none_moves_nothing(ours: Shop, to: str) -> None:
    assert ours.client().post("/console/clock", {"to": to}).status_code == 409
    ours.sandbox.merchant.refresh_from_db()
    assert not ours.sandbox.merchant.clock_offset


@pytest.mark.parametrize("to", ["2001-01-01T00:00", "2999-01-01T00:00", "soon"])
def test_a_date_that_cannot_be_gone_to_is_said(ours: Shop, to: str) -> None:
    assert ours.client().get("/console/clock", {"to": to}).status_code == 409


def test_without_subscribers_there_is_no_renewal_to_go_to(ours: Shop) -> None:
    Subscription.objects.all().update(status="cancelled")
    answer = ours.client().get("/console/clock", {"go": "renewal"})
    assert answer.status_code == 409 and b"Nobody is subscribed" in answer.content


def test_the_list_is_what_runs(ours: Shop, card_network: CardNetwork) -> None:
    """The renewal it lists is made, with the sum it said; the page then tells what happened."""
    books = ours.sandbox
    paying = cn.subscribe(books.plan, now=books.merchant.now())
    client = ours.client()
    end = paying.subscription.cycle_end
    local = (end + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M")
    page = client.get("/console/clock", {"to": local})
    text = page.content.decode()
    # Two renewals: one card pays 25, the other connection's card is unknown to the network.
    assert text.count(">Renewal<") == 2 and "$50.00" in text
    assert client.post("/console/clock", {"to": target(page)}).status_code == 302
    paying.refresh_from_db()
    assert paying.subscription.cycle_index == 1
    assert cn.taken(books.merchant)[-1][1] == 2500


def test_a_reader_sees_the_clock_and_has_no_button(ours: Shop) -> None:
    page = ours.client(Role.VIEWER).get("/console/clock", {"go": "day"})
    assert page.status_code == 200
    assert b"Advance to" not in page.content
