"""What a process of the gateway keeps between its calls, and what a crash of the database takes:
nobody is served by what is no longer true, and nothing that ran is free."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import connection as database
from django.utils import timezone

from billing import keys
from billing.models import SecretKey
from meters import prices, pricing, tasks
from meters.gateway import callers, keyring, proxy, spendkeys, sweep, targets
from meters.gateway.models import ForwardToken, GatewayCall, ModelPrice, Provider, ProviderKey
from meters.gateway.store import Store
from tests import factories
from tests.meters.gateway import books
from tests.meters.gateway.direct import OUR, Direct
from tests.meters.gateway.live import PROVIDER_KEY
from tests.meters.gateway.test_live_faults import usage
from tests.meters.gateway.upstream_server import Script, Upstream

Change = Callable[[Direct], Any]


@pytest.fixture
def direct(transactional_db: object) -> Iterator[Direct]:
    upstream = Upstream()
    upstream.answers(Script([json.dumps({"usage": usage()}).encode()]))
    yield Direct(upstream)
    upstream.close()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How often the database was asked who calls."""
    asked: list[Any] = []
    ask = Store.caller

    async def caller(store: Store, told: Any) -> Any:
        asked.append(told)
        return await ask(store, told)

    monkeypatch.setattr(Store, "caller", caller)
    return asked


def around(direct: Direct, change: Change, **call: Any) -> tuple[int, int]:
    """The answers before and after a change, in one process."""

    async def both(gateway: proxy.Gateway) -> tuple[int, int]:
        before = await direct.call(gateway, **call)
        await asyncio.to_thread(_apart, change, direct)
        return before.status, (await direct.call(gateway, **call)).status

    found: tuple[int, int] = direct.run(both)
    return found


def _apart(change: Change, direct: Direct) -> None:
    try:
        change(direct)
    finally:
        database.close()


def test_a_caller_is_asked_for_once(direct: Direct, trips: list[Any]) -> None:
    async def ten(gateway: proxy.Gateway) -> list[int]:
        return [(await direct.call(gateway)).status for _ in range(10)]

    assert direct.run(ten) == [200] * 10
    assert len(trips) == 1
    direct.sound()


def revoke_token(direct: Direct) -> None:
    spendkeys.revoke(ForwardToken.objects.get(), now=timezone.now())


def pause_token(direct: Direct) -> None:
    spendkeys.update(ForwardToken.objects.get(), now=timezone.now(), status="paused")


def end_token(direct: Direct) -> None:
    ForwardToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))


def bind_token(direct: Direct) -> None:
    ForwardToken.objects.update(allowed_models=["another"])


def archive_provider(direct: Direct) -> None:
    keyring.archive_provider(Provider.objects.get(), now=timezone.now())


def revoke_provider_key(direct: Direct) -> None:
    keyring.revoke_key(ProviderKey.objects.get(), now=timezone.now())


def archive_meter(direct: Direct) -> None:
    detach_meter(direct)
    prices.archive(direct.meter, now=timezone.now())


def detach_meter(direct: Direct) -> None:
    prices.detach(direct.meter, direct.connection.subscriptions.get().plan)


def disable(direct: Direct) -> None:
    type(direct.connection).objects.update(status="disabled")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (revoke_token, 401),
        (pause_token, 403),
        (end_token, 401),
        (bind_token, 403),
        (archive_provider, 403),
        (revoke_provider_key, 403),
        (archive_meter, 404),
        (detach_meter, 403),
        (disable, 403),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_whatever_ends_a_callers_right_ends_it_at_once(
    direct: Direct, change: Change, status: int
) -> None:
    assert around(direct, change) == (200, status)
    assert len(direct.upstream.requests) == 1
    direct.sound()


def test_a_revoked_secret_key_ends_at_once(direct: Direct) -> None:
    direct.token = direct.key

    def revoke(direct: Direct) -> None:
        keys.revoke(SecretKey.objects.get(merchant=direct.merchant))

    assert around(direct, revoke) == (200, 401)


def test_what_was_refused_by_what_is_kept_is_asked_again(direct: Direct, trips: list[Any]) -> None:
    """A provider that is added serves the next call of a process that knew of none."""

    def add(direct: Direct) -> None:
        now = timezone.now()
        keyring.add_provider(
            direct.merchant, slug="second", name="Second", base_url=f"{direct.upstream.url}/v1",
            private=True, now=now,
        )  # fmt: skip
        keyring.set_key(direct.merchant, provider="second", key=PROVIDER_KEY, actor="x", now=now)

    path = OUR.replace("replay", "second")

    async def steps(gateway: proxy.Gateway) -> list[int]:
        found = [(await direct.call(gateway)).status]
        found.append((await direct.call(gateway, path=path)).status)
        await asyncio.to_thread(_apart, add, direct)
        found.append((await direct.call(gateway, path=path)).status)
        return found

    assert direct.run(steps) == [200, 403, 200]


def test_a_price_counts_from_the_next_call_on(direct: Direct) -> None:
    """The meter begins to take a share of the provider's cost, which is then looked for."""

    def share(direct: Direct) -> None:
        now = timezone.now()
        keyring.set_price(
            direct.merchant, provider="replay", model="*", actor="x", now=now,
            rates={"input": Decimal(10), "output": Decimal(10)},
        )  # fmt: skip
        terms = prices.Terms(
            tiers=[pricing.Tier(start=Decimal(0), rate=Decimal(50))], rate_type="percentage"
        )
        prices.publish(direct.meter, terms=terms, actor="x", now=now)

    assert around(direct, share) == (200, 200)
    first, second = direct.calls()
    assert first.charged > 0 and second.charged > 0
    assert ModelPrice.objects.get().model == "*"
    direct.sound()


def test_a_hold_that_a_crash_took_is_made_again_and_charged_once(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold does not wait for the disk. The call runs on, and pays."""
    settle = Store.settle
    lost: list[int] = []

    async def crashed(store: Store, call_id: Any, told: Any) -> Any:
        if not lost:
            lost.append(await asyncio.to_thread(_forget, call_id))
        return await settle(store, call_id, told)

    monkeypatch.setattr(Store, "settle", crashed)
    answer = direct.ask()
    assert answer.status == 200 and "x-lava-charge" in answer.headers
    assert lost == [1]
    (call,) = direct.calls()
    assert call.status == "completed" and call.charged > 0
    token = ForwardToken.objects.get()
    assert token.held == 0 and token.total_spent == call.charged
    direct.sound()


def test_a_settlement_that_fails_for_whatever_reason_is_tried_again(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client does not wait for that. Here a function is missing for a moment."""
    settle = Store.settle
    tries: list[Any] = []

    async def missing(store: Store, call_id: Any, told: Any) -> Any:
        tries.append(call_id)
        if len(tries) < 3:
            raise psycopg.errors.UndefinedFunction("function meters_charge does not exist")
        return await settle(store, call_id, told)

    monkeypatch.setattr(Store, "settle", missing)
    answer = direct.ask()
    assert answer.status == 200 and answer.ended and "x-lava-charge" not in answer.headers
    assert len(tries) == 3 and len(set(tries)) == 1
    (call,) = direct.calls()
    assert call.status == "completed" and call.charged > 0
    direct.sound()


@pytest.mark.django_db
def test_a_dead_call_that_cannot_be_settled_keeps_no_other_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    merchant = factories.make_merchant(sandbox=False)
    broken, other = books.hold(merchant), books.hold(merchant)
    GatewayCall.objects.filter(pk=broken).update(seen_at=timezone.now() - timedelta(hours=2))
    GatewayCall.objects.filter(pk=other).update(seen_at=timezone.now() - timedelta(hours=1))
    settle = sweep.settle

    def failing(call_id: Any, *, now: datetime) -> Any:
        if call_id == broken:
            raise psycopg.errors.NumericValueOutOfRange
        return settle(call_id, now=now)

    monkeypatch.setattr(sweep, "settle", failing)
    tasks.sweep_calls()
    assert GatewayCall.objects.get(pk=other).status == "abandoned"
    assert GatewayCall.objects.get(pk=broken).status == "pending"


def _forget(call_id: Any) -> int:
    """As if the transaction of the hold had never come to the disk."""
    with database.cursor() as cursor:
        cursor.execute(
            "UPDATE meters_forwardtoken t SET held = t.held - g.held, requests = t.requests - 1,"
            " total_requests = total_requests - 1"
            " FROM meters_gatewaycall g WHERE g.id = %s AND t.id = g.token_id",
            [call_id],
        )
        cursor.execute("DELETE FROM meters_gatewaycall WHERE id = %s", [call_id])
        gone = cursor.rowcount
        cursor.execute(
            "WITH gone AS (DELETE FROM billing_hold WHERE id = %s RETURNING connection_id, amount)"
            " UPDATE billing_connection c SET held = c.held - gone.amount FROM gone"
            " WHERE c.id = gone.connection_id",
            [call_id],
        )
    database.close()
    return gone


def test_no_more_callers_are_kept_than_there_is_room_for(
    direct: Direct, monkeypatch: pytest.MonkeyPatch, trips: list[Any]
) -> None:
    monkeypatch.setattr("meters.gateway.callers.MOST", 1)
    other = factories.make_key(direct.merchant)

    async def by_turns(gateway: proxy.Gateway) -> int:
        for _ in range(2):
            await direct.call(gateway)
            await direct.call(gateway, headers={"authorization": f"Bearer {other}"})
        return len(gateway.kept)

    assert direct.run(by_turns) == 1
    assert len(trips) == 4


def test_the_connection_used_last_is_used_next_and_none_is_lost(
    direct: Direct, settings: Any
) -> None:
    """One after the other all go by one connection; many at once share as many as there may be."""
    settings.GATEWAY_DB_POOL = 3

    async def steps(gateway: proxy.Gateway) -> tuple[int, int, list[int]]:
        store = gateway.store
        for _ in range(5):
            await direct.call(gateway)
        alone = len(store._resting)
        many = await asyncio.gather(*(direct.call(gateway) for _ in range(30)))
        assert store._waiting == 0
        return alone, len(store._resting), [answer.status for answer in many]

    alone, after, statuses = direct.run(steps)
    assert alone == 1 and 1 <= after <= 3
    assert statuses == [200] * 30
    direct.sound()


def test_a_connection_that_broke_is_not_kept(direct: Direct) -> None:
    async def steps(gateway: proxy.Gateway) -> list[int]:
        found = [(await direct.call(gateway)).status]
        await asyncio.to_thread(_end_connections)
        # What rests has ended, and is not used again.
        for _ in range(3):
            found.append((await direct.call(gateway)).status)
        return found

    assert direct.run(steps) == [200] * 4
    direct.sound()


def _end_connections() -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
            " AND query LIKE '%%meters_settle%%'"
        )
        assert cursor.fetchone()[0] >= 1
    database.close()


def test_a_key_is_opened_and_a_target_found_once_for_a_kept_caller(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where the way there has a query, which may hold a key; and anew for a new key."""
    opened: list[bytes] = []
    found: list[tuple[str, str]] = []

    def open_it(sealed: bytes) -> str:
        opened.append(sealed)
        return secrets_open(sealed)

    def resolve(path: str, query: str, **kwargs: Any) -> targets.Target:
        found.append((path, query))
        return targets_resolve(path, query, **kwargs)

    secrets_open, targets_resolve = callers.secrets.open, callers.targets.resolve
    monkeypatch.setattr(callers.secrets, "open", open_it)
    monkeypatch.setattr(callers.targets, "resolve", resolve)

    async def steps(gateway: proxy.Gateway) -> list[int]:
        statuses = [(await direct.call(gateway)).status for _ in range(3)]
        assert (len(opened), found) == (1, [(OUR, "")])
        statuses += [(await direct.call(gateway, query="key=abc&x=1")).status for _ in range(2)]
        assert found[1:] == [(OUR, "key=abc&x=1")] * 2
        await asyncio.to_thread(_apart, new_key, direct)
        statuses.append((await direct.call(gateway)).status)
        return statuses

    def new_key(direct: Direct) -> None:
        keyring.set_key(
            direct.merchant, provider="replay", key="sk-the-new-one-1", actor="x",
            now=direct.merchant.now(),
        )  # fmt: skip

    assert direct.run(steps) == [200] * 6
    assert len(opened) == 2
    keys = [PROVIDER_KEY] * 5 + ["sk-the-new-one-1"]
    for request, key in zip(direct.upstream.requests, keys, strict=True):
        assert f"authorization: bearer {key}\r\n".encode() in request.lower()


def make_caller() -> callers.Caller:
    return callers.Caller(
        merchant=uuid4(), currency="USD", clock_offset=timedelta(0), token=None, connection=None,
        meter=None, needs_cost=False, allowed_models=None, allowed_providers=None, own=(), keys={},
        overrides=(), key_hash=None, epoch=0,
    )  # fmt: skip


def test_a_path_that_may_hold_a_key_is_not_kept() -> None:
    caller = make_caller()
    path = "/v1/forward/https%3A%2F%2Fapi.openai.com%2Fv1%2Fmodels%3Fkey%3Dsecret%26x%3D1"
    assert caller.target(path, "") == targets.resolve(path, "")
    assert "secret" not in repr(caller._targets)


def test_as_many_targets_are_kept_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = make_caller()
    monkeypatch.setattr(callers, "MOST_TARGETS", 2)
    for number in range(4):
        path = f"/v1/forward/openai/v1/{number}"
        assert caller.target(path, "") == targets.resolve(path, "")
    assert len(caller._targets) == 2
