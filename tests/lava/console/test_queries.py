"""What a page costs: at most so many queries, and no more of them with more rows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection as database
from django.db import transaction
from django.test.utils import CaptureQueriesContext

from billing import credits, events, keys, ledger, outbox
from billing.models import CreditGrant, Membership, Payment
from meters.gateway import keyring, spendkeys
from tests import factories
from tests.lava.console.shop import Books, Shop, signed_in
from tests.lava.console.test_wall import CASES, EVERY, address
from tests.meters.gateway import books as gateway

pytestmark = pytest.mark.django_db
# Session, user, memberships and books: every page pays these before it begins.
FRAME = 3
MOST = 12
PAGES = sorted(name for name, method, _ in EVERY if method == "get")


def fill(books: Books) -> None:
    """Many rows in every list."""
    merchant, now = books.merchant, books.merchant.now()
    for number in range(12):
        plan = factories.make_plan(merchant, name=f"Plan {number}")
        factories.make_meter(merchant, plan, books.plan, slug=f"meter-{number}")
        factories.make_bundle(plan)
        connection = factories.make_connection(merchant, now=now)
        factories.make_subscription(plan, connection=connection, now=now)
        factories.make_card(connection)
        factories.give(books.connection, "1", now=now)
        _buy(books, number)
        books.use(f"job-{number}", 100_000)
        keys.make(merchant, name=f"Key {number}")
        books.ask(f"Gift {number}", by="Ana Ruiz")
        token, _ = spendkeys.make(
            merchant, name=f"Token {number}", now=now, connection=books.connection,
            meter=books.meter,
        )  # fmt: skip
        gateway.call(merchant, token=token, connection=books.connection, meter=books.meter)
        gateway.block(merchant, token=token, connection=connection)
        provider = keyring.add_provider(
            merchant, slug=f"llm-{number}", name=f"LLM {number}",
            base_url=f"https://llm-{number}.example/v1", now=now,
        )  # fmt: skip
        keyring.set_key(merchant, provider=provider.slug, key="sk-12345678", actor="x", now=now)
        keyring.set_price(
            merchant, provider=provider.slug, model="m", rates={"input": Decimal(1)}, actor="x",
            now=now,
        )  # fmt: skip
        outbox.text(merchant, to="+14155550100", body="123456", now=now)
        events.record(merchant, "connection.created", now=now, connection=connection)
        person = factories.make_user(f"more-{number}@team.example")
        Membership.objects.create(
            user=person, organization=merchant.organization, role=Membership.Role.VIEWER
        )


def _buy(books: Books, number: int) -> None:
    """A bundle that was paid for, as its settlement grants it."""
    bundle = factories.make_bundle(books.plan, cost="1", credit=str(number + 1))
    payment = Payment.objects.create(
        merchant=books.merchant, connection=books.connection, purpose=Payment.Purpose.BUNDLE,
        amount=bundle.cost, bundle=bundle, status=Payment.Status.SUCCEEDED, card=books.card,
        key=f"bought:{number}", intent_id=f"pi_bought_{number}", receipt_number=f"B-{number}",
        created_at=books.merchant.now(), settled_at=books.merchant.now(),
    )  # fmt: skip
    with transaction.atomic():
        ledger.lock(books.connection.pk)
        credits.grant(
            books.connection, source=CreditGrant.Source.BUNDLE, amount=bundle.credit_amount,
            now=books.merchant.now(), payment=payment, bundle=bundle,
        )  # fmt: skip


def asked(client: Any, where: str) -> list[str]:
    with CaptureQueriesContext(database) as found:
        assert client.get(where).status_code == 200
    return [row["sql"] for row in found.captured_queries]


def test_a_page_asks_little_and_no_more_with_more_rows(ours: Shop) -> None:
    client = ours.client()
    where = {
        name: address(name, CASES[name].ids(ours, ours.sandbox)) + CASES[name].query
        for name in PAGES
    }
    where |= {"clock": f"{where['clock']}?go=renewal", "search": f"{where['search']}?q=northwind"}
    few = {name: asked(client, page) for name, page in where.items()}
    fill(ours.sandbox)
    many = {name: asked(client, page) for name, page in where.items()}
    counts = {name: len(queries) for name, queries in many.items()}
    too_many = {name: (count, many[name]) for name, count in counts.items() if count > MOST}
    assert not too_many, {name: count for name, (count, _) in too_many.items()}
    grown = {name: len(rows) for name, rows in few.items() if counts[name] > len(rows)}
    assert not grown


def test_every_page_pays_for_the_frame_alone_before_it_begins(ours: Shop) -> None:
    assert len(asked(ours.client(), address("search", {}))) == FRAME


def test_books_of_many_businesses_cost_no_more(ours: Shop, theirs: Shop) -> None:
    Membership.objects.create(
        user=ours.people[Membership.Role.OWNER],
        organization=theirs.organization,
        role=Membership.Role.VIEWER,
    )
    client = signed_in(ours.people[Membership.Role.OWNER])
    assert len(asked(client, address("search", {}))) == FRAME
