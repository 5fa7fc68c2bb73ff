"""The list under the search field: what typing finds, in few queries, in the open books alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing.models import Membership
from tests import factories
from tests.lava.console.shop import Books, Shop
from tests.lava.console.test_queries import FRAME, fill

pytestmark = pytest.mark.django_db
Role = Membership.Role
LIVE = "/console/search/live"


def found(client: Client, text: str) -> list[str]:
    """Where the list leads."""
    return re.findall(r'role="option"[^>]*href="([^"]*)"', _page(client, text))


def _page(client: Client, text: str) -> str:
    answer = client.get(LIVE, {"q": text})
    assert answer.status_code == 200
    return answer.content.decode()


def everything(books: Books) -> list[str]:
    """A way to find each kind of row, by words and by id."""
    used: Any = books.request
    return [
        "quill.example", "Quill", books.connection.customer.phone, books.plan.name,
        books.meter.slug, books.payment.receipt_number, used.request_id,
        books.connection.public_id, books.plan.public_id, books.meter.public_id,
        books.payment.public_id, used.public_id,
    ]  # fmt: skip


def test_typing_finds_customers_requests_plans_meters_payments_and_pages(ours: Shop) -> None:
    books, client = ours.sandbox, ours.client()
    used: Any = books.request
    for text, where in (
        ("nor quil", f"/console/connections/{books.connection.public_id}"),
        ("5551001", f"/console/connections/{books.connection.public_id}"),
        ("wind pl", f"/console/plans/{books.plan.public_id}"),
        ("wind-met", f"/console/meters/{books.meter.public_id}"),
        ("no-1", f"/console/payments/{books.payment.public_id}"),
        (used.request_id, f"/console/requests/{used.public_id}"),
        ("recon", "/console/reconcile"),
        ("sandbox cl", "/console/clock"),
        ("import", "/console/imports/new"),
    ):
        assert where in found(client, text), text
    # A whole id is the one row of it.
    assert found(client, f" {used.public_id} ") == [f"/console/requests/{used.public_id}"]
    assert "Nothing found" in _page(client, "nothing such")
    assert _page(client, "n").strip() == "" and _page(client, "").strip() == ""


def test_nothing_of_another_business_or_of_the_other_books_is_found(
    ours: Shop, theirs: Shop
) -> None:
    client = ours.client()
    for books in (theirs.sandbox, theirs.live):
        texts = everything(books) if books.request else [books.plan.name, books.plan.public_id]
        for text in texts:
            page = _page(client, text)
            assert not any(public_id in page for public_id in books.public_ids - {text}), text
            assert books.word not in page.replace(text, ""), text
    assert found(client, ours.live.plan.name) == [] == found(client, ours.live.plan.public_id)
    assert found(client, ours.sandbox.plan.name) != []


def test_what_a_role_may_not_begin_is_not_offered(ours: Shop) -> None:
    assert found(ours.client(Role.DEVELOPER), "make a") == [
        "/console/plans/new", "/console/meters/new", "/console/gateway/tokens/new",
    ]  # fmt: skip
    assert found(ours.client(Role.VIEWER), "make a") == []
    assert "/console/imports/new" in found(ours.client(Role.SUPPORT), "import")
    client = ours.client()
    client.post("/console/environment", {"mode": "live"})
    assert "/console/clock" not in found(client, "clock")


def test_it_asks_little_and_no_more_with_more_rows(ours: Shop) -> None:
    client = ours.client()

    def asked(text: str) -> int:
        with CaptureQueriesContext(database) as queries:
            _page(client, text)
        return len(queries)

    # One of each kind; one for a whole id; none for a letter.
    wanted = {"quill": 5, "northwind": 5, ours.sandbox.plan.public_id: 1, "n": 0}
    assert {text: asked(text) - FRAME for text in wanted} == wanted
    fill(ours.sandbox)
    for number in range(9):
        connection = factories.make_connection(ours.sandbox.merchant)
        connection.customer.last_name = f"Quill {number}"
        connection.customer.save()
    assert {text: asked(text) - FRAME for text in wanted} == wanted
    # A few of each kind are enough.
    assert len(found(client, "quill")) == 4
