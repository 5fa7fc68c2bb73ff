"""Refused calls are rows for ever: a loop that is refused makes no more of them than a person can
look at."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from billing import ids
from meters.gateway import keyring, notes, proxy
from meters.gateway.models import GatewayCall, ProviderKey
from tests.meters.gateway.direct import Direct
from tests.meters.gateway.upstream_server import Upstream


@pytest.fixture
def direct(transactional_db: object) -> Iterator[Direct]:
    upstream = Upstream()
    yield Direct(upstream)
    upstream.close()


def test_a_loop_of_refused_calls_writes_no_row_each(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "BURST", 20)
    monkeypatch.setattr(notes, "A_SECOND", 0.0)
    held = ProviderKey.objects.of(direct.merchant).get()
    keyring.revoke_key(held, now=direct.merchant.now())

    async def loop(gateway: proxy.Gateway) -> list[int]:
        answers = await asyncio.gather(*(direct.call(gateway) for _ in range(100)))
        return [answer.status for answer in answers]

    assert direct.run(loop) == [403] * 100
    assert GatewayCall.objects.of(direct.merchant).filter(status="blocked").count() == 20
    assert direct.upstream.requests == []


def test_each_caller_has_its_own_rows_and_they_come_back_with_time() -> None:
    now = [0.0]
    kept = notes.Notes(clock=lambda: now[0])
    merchant, token = ids.new(sandbox=True), ids.new(sandbox=True)
    for who in (None, token):
        told = [kept.take(merchant, who) for _ in range(notes.BURST + 7)]
        assert told == [0] * notes.BURST + [None] * 7
    now[0] = 2.0
    # The first one says how many there were besides.
    assert [kept.take(merchant, token) for _ in range(3)] == [7, 0, None]
    now[0] = 1e6
    assert [kept.take(merchant, token), kept.take(merchant, token)] == [1, 0]


def test_callers_without_end_are_not_remembered_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notes, "CALLERS", 50)
    kept = notes.Notes()
    for _ in range(500):
        kept.take(uuid.uuid4(), None)
    assert len(kept._buckets) == 50
