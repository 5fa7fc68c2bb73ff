"""A merchant's endpoints in the console: what they may hear, and what they were told to hear."""

from __future__ import annotations

import re

import pytest

from billing import events
from billing.models import WebhookEndpoint
from tests.lava.console.shop import Shop
from tests.lava.console.test_wall import address

pytestmark = pytest.mark.django_db
OFFERED = r'name="events" value="([^"]+)"'


def test_every_event_is_offered_by_its_name_and_what_was_marked_is_heard(ours: Shop) -> None:
    console = ours.client()
    page = console.get(address("webhook-new", {})).content.decode()
    assert sorted(re.findall(OFFERED, page)) == sorted(events.NAMES)
    made = {"name": "Books", "url": "https://books.example.com/hook", "events": "payment.failed"}
    answer = console.post(address("webhook-new", {}), made)
    assert answer.status_code == 200, answer.content
    row = WebhookEndpoint.objects.get(name="Books")
    assert row.events == ["payment.failed"]
    page = console.get(address("webhook", {"key": row.public_id})).content.decode()
    assert re.findall(OFFERED + " checked", page) == row.events
