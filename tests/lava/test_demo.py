"""`manage.py demo`: the story is real, told once, and says the same logins for ever."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import call_command
from django.utils import timezone

from billing import clock, ids, keys
from billing.models import (
    Connection,
    CreditGrant,
    LedgerEntry,
    Membership,
    Merchant,
    Payment,
    SecretKey,
    Subscription,
    User,
)
from checkout.models import CheckoutSession
from lava.demo.ai_provider.server import Server
from lava.demo.card_network.process import CardNetwork
from lava.demo.story import cast, rhythm
from lava.demo.story.telling import Telling
from lava.management.commands import audit
from meters.gateway import proxy
from meters.models import ForwardToken, GatewayCall, Meter, RequestCost, UsageRequest
from tests import card_network as cn
from tests.lava.test_explain import explain
from tests.meters.test_charge import report

pytestmark = pytest.mark.django_db


@pytest.fixture
def demo(card_network: CardNetwork, settings: Any, tmp_path: Path) -> Any:
    """The command, with a folder of its own for what it keeps."""
    settings.STATE_DIR = tmp_path

    def run(*flags: str) -> Any:
        out = io.StringIO()
        call_command("demo", *flags, stdout=out, stderr=io.StringIO())
        return json.loads(out.getvalue().strip().splitlines()[-1])

    return run


def sandbox(name: str) -> Merchant:
    return Merchant.objects.select_related("organization").get(
        organization__name=name, mode="sandbox"
    )


def who(merchant: Merchant, name: str) -> Connection:
    return next(
        row
        for row in Connection.objects.of(merchant).select_related("customer")
        if row.customer.name == name
    )


def signs_in(console: dict[str, str]) -> User:
    user = User.objects.get(email=console["email"])
    assert user.check_password(console["password"])
    return user


def the_network_agrees(*books: Merchant) -> None:
    """What the card network took of the sandboxes is what their books say."""
    assert cn.taken(books[0]) == sorted(row for book in books for row in cn.ours(book)) != []


def counts() -> dict[str, int]:
    rows = (User, Merchant, SecretKey, Connection, Payment, CheckoutSession, UsageRequest)
    return {model.__name__: model.objects.count() for model in rows}


def test_the_story_is_real_and_told_once(demo: Any, tmp_path: Path) -> None:
    facts = demo()
    now = timezone.now()
    # What `up` prints works.
    assert set(facts) == {"console", "merchants"}
    user = signs_in(facts["console"])
    assert (tmp_path / "demo.json").stat().st_mode & 0o777 == 0o600
    names = [business.name for business in cast.BUSINESSES]
    assert [merchant["name"] for merchant in facts["merchants"]] == names
    books = [sandbox(name) for name in names]
    assert len({book.currency for book in books}) == len({book.time_zone for book in books}) == 2
    for told, book in zip(facts["merchants"], books, strict=True):
        assert set(told) == {
            "name", "secret_key", "meter_slug", "subscription_config_id", "connection_id",
        }  # fmt: skip
        assert keys.find(told["secret_key"]).merchant == book
        assert told["secret_key"].startswith("aks_test_")
        shown = Connection.objects.of(book).by_public_id(told["connection_id"])
        assert shown.subscription.plan.public_id == told["subscription_config_id"]
        assert shown.subscription.plan.meters.filter(slug=told["meter_slug"]).exists()
        assert Membership.objects.get(organization=book.organization).user == user
    # Books, network and clock.
    assert audit.broken() == {}
    the_network_agrees(*books)
    for book in books:
        assert book.clock_offset == timedelta(0)
        at = UsageRequest.objects.of(book).values_list("created_at", flat=True)
        assert len({moment.date() for moment in at}) >= 55
        assert now - timedelta(days=61) < min(at) and now - timedelta(days=2) < max(at) <= now
        assert 1000 < len(at) < 5000
    _the_plot_is_played(*books)
    # Told once: the same facts, and not a row more.
    before = counts()
    assert demo() == facts
    assert counts() == before


def _the_plot_is_played(northwind: Merchant, lumen: Merchant) -> None:
    """Each turn the cast is there for happened, by the product's own doing."""
    heavy = who(northwind, "Mara Lindqvist")
    paid = heavy.payments.filter(purpose="overage", status="succeeded")
    assert paid.count() >= 3
    blocked = who(northwind, "Aisha Bello")
    lines = LedgerEntry.objects.filter(connection=blocked).order_by("seq")
    assert lines.filter(balance_after__lt=0, kind="usage").exists()
    bundle = lines.get(kind="grant", grant__source=CreditGrant.Source.BUNDLE)
    following = lines.filter(seq__gt=bundle.seq).first()
    assert following is not None and following.kind == "debt"
    late = who(northwind, "Elena Sorokina").subscription
    assert late is not None
    assert (late.status, late.next_attempt_at is not None) == (Subscription.Status.PAST_DUE, True)
    assert late.payments.filter(status="failed", purpose="renewal").count() == late.attempts >= 1
    over = Subscription.objects.get(connection=who(northwind, "Callum Reid"))
    assert over.status == Subscription.Status.CANCELLED and over.ended_at == over.cycle_end
    leaving = who(northwind, "Grace Whitfield").subscription
    assert leaving is not None and leaving.pending_change == "cancellation"
    rolled = who(northwind, "Jonas Feld")
    assert rolled.grants.filter(source=CreditGrant.Source.ROLLOVER).exists()
    free = who(northwind, "Noah Kim")
    assert free.subscription is not None and free.subscription.plan.is_free
    assert not free.payments.exists()
    expired = LedgerEntry.objects.filter(merchant=lumen, kind="expire")
    assert expired.exists()
    assert Meter.objects.of(northwind).get(slug="chat").prices.count() == 2
    assert "Overage charged to the card" in explain(heavy)


def test_a_lost_file_makes_a_new_key_and_password(
    demo: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Telling, "tell", _only_the_shown_join)
    first = demo()
    (tmp_path / "demo.json").unlink()
    second = demo()
    assert first["console"]["password"] != second["console"]["password"]
    signs_in(second["console"])
    for old, new in zip(first["merchants"], second["merchants"], strict=True):
        assert old["secret_key"] != new["secret_key"]
        assert old["connection_id"] == new["connection_id"]
        assert keys.find(new["secret_key"])
        working = SecretKey.objects.of(sandbox(new["name"])).filter(revoked_at=None)
        assert working.count() == 1
    assert demo() == second


@pytest.mark.django_db(transaction=True)
def test_a_fresh_demo_has_a_working_gateway(demo: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Every merchant's forward token reaches the local provider by itself, in each dialect, is
    priced in the merchant's own currency, and charges the customer that `up` names."""
    monkeypatch.setattr(Telling, "tell", _only_the_shown_join)
    with local_provider() as url:
        told = demo("--ai-provider", url)
        for merchant in told["merchants"]:
            book = sandbox(merchant["name"])
            for path, body in CALLS:
                answer = forwarded(path, body, merchant["forward_token"])
                assert answer.status_code == 200, answer.content
                assert Decimal(answer.headers["x-lava-charge"]) > 0
            calls = GatewayCall.objects.of(book)
            assert {call.provider for call in calls} == {"local", "local-anthropic", "local-gemini"}
            payers = {ids.public("con", call.connection_id) for call in calls}
            assert payers == {merchant["connection_id"]}
            assert RequestCost.objects.of(book).filter(pk__in=calls.values("pk")).count() == 3
        assert demo("--ai-provider", url) == told
    assert ForwardToken.objects.count() == 2
    # Another port is another address; the token stays.
    with local_provider() as moved:
        again = demo("--ai-provider", moved)
        assert again == told
        token = again["merchants"][0]["forward_token"]
        assert forwarded(*CALLS[0], token).status_code == 200
    (tmp_path / "demo.json").unlink()
    lost = demo("--ai-provider", moved)
    assert lost["merchants"][0]["forward_token"] != token
    assert ForwardToken.objects.filter(revoked_at=None).count() == 2


ASK = [{"role": "user", "content": "Hello"}]
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/forward/local/v1/chat/completions", {"model": "gpt-4.1-mini", "messages": ASK}),
    (
        "/v1/forward/local-anthropic/v1/messages",
        {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": ASK},
    ),
    (
        "/v1/forward/local-gemini/v1beta/models/gemini-2.5-flash:generateContent",
        {"contents": [{"parts": [{"text": "Hello"}]}]},
    ),
]


@contextmanager
def local_provider() -> Iterator[str]:
    """The local AI provider, in a thread."""
    server = Server(0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def forwarded(path: str, body: dict[str, Any], token: str) -> httpx.Response:
    """One call through the product's own gateway, in this process."""

    async def call() -> httpx.Response:
        gateway = proxy.Gateway()
        try:
            transport = httpx.ASGITransport(app=gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://lava") as client:
                headers = {"authorization": f"Bearer {token}"}
                return await client.post(path, json=body, headers=headers)
        finally:
            await gateway.stop()

    return asyncio.run(call())


def test_a_telling_that_was_cut_off_goes_on_where_its_clock_stands(
    demo: Any, monkeypatch: Any
) -> None:
    few = [
        _short(cast.NORTHWIND, "Jonas Feld", "Aisha Bello"),
        _short(cast.LUMEN, "Clara Vogt"),
    ]
    monkeypatch.setattr(cast, "BUSINESSES", few)
    report = Telling._report
    left = [60]

    def cut(self: Telling, use: Any, *, at: Any) -> bool:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return report(self, use, at=at)

    monkeypatch.setattr(Telling, "_report", cut)
    with pytest.raises(KeyboardInterrupt):
        demo()
    assert sandbox("Northwind Voice").clock_offset < timedelta(0)
    facts = demo()
    assert sandbox("Northwind Voice").clock_offset == timedelta(0)
    assert audit.broken() == {}
    books = [sandbox(told["name"]) for told in facts["merchants"]]
    the_network_agrees(*books)
    for book in books:
        phones = list(Connection.objects.of(book).values_list("customer__phone", flat=True))
        assert len(phones) == len(set(phones)) == (2 if book.currency == "USD" else 1)
    blocked = who(sandbox("Northwind Voice"), "Aisha Bello")
    assert blocked.payments.filter(purpose="bundle", status="succeeded").count() == 1


def test_a_crowd_is_added_in_bulk_and_the_books_still_hold(demo: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Telling, "tell", _only_the_shown_join)
    facts = demo("--scale", "300")
    northwind, lumen = (sandbox(business.name) for business in cast.BUSINESSES)
    assert UsageRequest.objects.of(northwind).count() == 300
    assert not UsageRequest.objects.of(lumen).exists()
    assert audit.broken() == {}
    # The product goes on with what was written in bulk: a request of one of them is charged.
    crowd = Connection.objects.of(northwind).filter(customer__phone__startswith="+1555").first()
    assert crowd is not None
    before = crowd.balance
    charged = report(facts["merchants"][0]["secret_key"], crowd, "r1", input_tokens=1000).request
    assert before - charged.charged == charged.total_remaining
    assert demo("--scale", "200") == facts
    assert Connection.objects.of(northwind).count() == 1 + 3 + 2
    assert audit.broken() == {}


def test_with_stripes_own_keys_nothing_is_seeded(demo: Any, settings: Any) -> None:
    settings.STRIPE_KEYS = {"live": ("sk_live_x", "pk_live_x"), "test": ("sk_test_x", "pk_test_x")}
    assert demo() == {}
    assert not User.objects.exists()


def test_usage_is_the_same_each_time_it_is_dealt() -> None:
    began = timezone.now() - timedelta(days=cast.DAYS)
    person = cast.NORTHWIND.customers[0]
    once, again = (list(rhythm.uses(cast.NORTHWIND, began, person)) for _ in range(2))
    assert once == again
    nights = [use for use in once if rhythm.local_hour(cast.NORTHWIND, use.at) < 6]
    assert 0 < len(nights) < len(once) / 10


def _short(business: cast.Business, *names: str) -> cast.Business:
    people = tuple(person for person in business.customers if person.name in names)
    return dataclasses.replace(business, customers=people)


def _only_the_shown_join(self: Telling) -> None:
    """A telling of one scene, for tests of the logins alone."""
    person = next(one for one in self.business.customers if one.name == self.business.shown)
    self._join(person, person.plan, now=self.merchant.now())
    clock.catch_up(self.merchant)
