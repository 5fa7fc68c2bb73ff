"""Opaque tokens: what they may do, how much, and that no storm slips past a limit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from billing import errors
from meters import costs
from meters.gateway import keyring, spendkeys
from meters.gateway.models import ForwardToken
from meters.gateway.spendkeys import Limits
from meters.models import Meter
from tests import factories
from tests.meters.gateway import books
from tests.meters.gateway.live import Shop, chat, settled, shop, sound

__all__ = ["shop"]


def make(shop: Shop, **limits: Any) -> tuple[ForwardToken, str]:
    return spendkeys.make(
        shop.merchant, name="app", now=timezone.now(), connection=shop.connection,
        meter=shop.meter, limits=Limits(**limits),
    )  # fmt: skip


def codes(shop: Shop, token: str, times: int = 1, **kwargs: Any) -> list[Any]:
    answers = [shop.ask(token=token, **kwargs) for _ in range(times)]
    return [
        200 if answer.status_code == 200 else (answer.status_code, answer.json()["error"]["code"])
        for answer in answers
    ]


def test_a_token_pays_for_its_connection_and_keeps_no_secret(shop: Shop) -> None:
    token, text = make(shop)
    assert codes(shop, text) == [200]
    call = shop.call()
    assert (call.token_id, call.connection_id) == (token.pk, shop.connection.pk)
    token.refresh_from_db()
    assert (token.total_spent, token.spent, token.held) == (call.charged, call.charged, 0)
    assert token.total_requests == 1 and token.last_used_at is not None
    stored = ForwardToken.objects.filter(pk=token.pk).values().get()
    assert text not in str(stored) and text[9:30] not in str(stored)
    sound(shop)


def test_a_revoked_paused_rotated_or_expired_token_stops_at_once(shop: Shop) -> None:
    token, text = make(shop)
    spendkeys.update(token, now=shop.now, status="paused")
    assert codes(shop, text) == [(403, "token_paused")]
    spendkeys.update(token, now=shop.now, status="active")
    _, other = spendkeys.rotate(token)
    assert codes(shop, text) == [(401, "invalid_key")] and codes(shop, other) == [200]
    ForwardToken.objects.update(expires_at=timezone.now())
    assert codes(shop, other) == [(401, "token_expired")]
    ForwardToken.objects.update(expires_at=None)
    spendkeys.revoke(token, now=shop.now)
    assert codes(shop, other) == [(401, "invalid_key")]
    with pytest.raises(errors.Conflict):
        spendkeys.rotate(token)
    assert len(shop.server.journal()) == 1


def test_models_and_providers_can_be_listed(shop: Shop) -> None:
    _, text = make(shop, allowed_models=["gpt-4o"], allowed_providers=["local"])
    assert codes(shop, text) == [(403, "model_not_allowed")]
    assert codes(shop, text, json=chat(model="gpt-4o")) == [200]
    path = "/v1/forward/claude/v1/messages"
    assert codes(shop, text, path=path) == [(403, "provider_not_allowed")]


def test_a_spend_limit_counts_what_runs_and_starts_anew_with_its_cycle(shop: Shop) -> None:
    token, text = make(shop, spend_limit=Decimal("0.02"), spend_cycle="daily")
    limited = {"json": chat(max_tokens=5000)}
    assert codes(shop, text, 2, **limited) == [200, 200]
    settled(shop)
    ForwardToken.objects.update(spent=Decimal("0.019"))
    assert codes(shop, text, **limited) == [(402, "spend_limit_reached")]
    ForwardToken.objects.update(spend_cycle_start=timezone.now() - timedelta(days=2))
    assert codes(shop, text, **limited) == [200]
    settled(shop)
    token.refresh_from_db()
    assert 0 < token.spent < Decimal("0.001") and token.held == 0
    sound(shop)


def test_a_limit_of_calls_holds_in_a_storm(shop: Shop) -> None:
    _, text = make(shop, request_limit=5)
    with ThreadPoolExecutor(16) as pool:
        found = [code for codes_ in pool.map(lambda _: codes(shop, text), range(40))
                 for code in codes_]  # fmt: skip
    assert found.count(200) == 5 and found.count((402, "request_limit_reached")) == 35
    assert len(shop.server.journal()) == 5
    settled(shop)
    sound(shop)


def test_a_rate_limit_says_when_to_come_back(shop: Shop) -> None:
    _, text = make(shop, rpm=6, burst=2)
    assert codes(shop, text, 2) == [200, 200]
    answer = shop.ask(token=text)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 10
    ForwardToken.objects.update(bucket_at=timezone.now() - timedelta(seconds=11))
    assert codes(shop, text, 2)[0] == 200


def test_a_token_of_no_connection_is_limited_by_what_it_costs(shop: Shop) -> None:
    rates = {"output": Decimal(1000)}
    keyring.set_price(
        shop.merchant, provider="local", model="*", rates=rates, actor="t", now=shop.now
    )
    token, text = spendkeys.make(
        shop.merchant, name="team", now=shop.now, limits=Limits(spend_limit=Decimal("0.02"))
    )
    limited = {"json": chat(max_tokens=10)}
    assert codes(shop, text, **limited) == [200]
    settled(shop)
    assert codes(shop, text, json=chat(max_tokens=20)) == [(402, "spend_limit_reached")]
    assert codes(shop, text, **limited) == [200]
    settled(shop)
    token.refresh_from_db()
    assert token.spent == Decimal("0.02") and shop.balance() == 25
    assert codes(shop, text, **limited) == [(402, "spend_limit_reached")]


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        ({"spend_limit": Decimal(-1)}, "spend_limit"),
        ({"spend_cycle": "hourly"}, "spend_limit"),
        ({"request_limit": 0}, "request_limit"),
        ({"rpm": 0}, "rate_limit"),
        ({"allowed_models": [""]}, "allowed_models"),
        ({"expires_at": timezone.now() - timedelta(days=1)}, "expires_at"),
    ],
)
@pytest.mark.django_db
def test_a_limit_that_is_none_is_refused(limits: dict[str, Any], param: str) -> None:
    merchant = factories.make_merchant()
    with pytest.raises(errors.Invalid) as refused:
        spendkeys.make(merchant, name="x", now=timezone.now(), limits=Limits(**limits))
    assert refused.value.param == param


@pytest.mark.django_db
def test_a_token_stays_within_its_merchant() -> None:
    merchant, other = factories.make_merchant(), factories.make_merchant()
    plan = factories.make_plan(other)
    meter = factories.make_meter(other, plan)
    connection = factories.make_connection(other)
    now = timezone.now()
    with pytest.raises(errors.NotFound):
        spendkeys.make(merchant, name="x", now=now, meter=meter)
    with pytest.raises(errors.NotFound):
        spendkeys.make(merchant, name="x", now=now, connection=connection, meter=meter)
    with pytest.raises(errors.Invalid):
        spendkeys.make(other, name="x", now=now, connection=connection)


ONE = costs.Cost(Decimal(1), costs.LIBRARY, "gpt-4o-mini", {})


@pytest.mark.django_db
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Africa/Cairo", "America/Havana"])
@pytest.mark.parametrize("cycle", ["daily", "weekly", "monthly"])
def test_a_cycle_turns_once_though_a_call_from_before_comes_late(
    zone: str, cycle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call's instant is taken before it waits for its token's lock."""
    merchant = factories.make_merchant(sandbox=False, zone=zone)
    monday = datetime(2026, 6, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    token, _ = spendkeys.make(
        merchant, name="x", now=monday - timedelta(days=99),
        limits=Limits(spend_limit=Decimal(10), spend_cycle=cycle, request_limit=9,
                      request_cycle=cycle),
    )  # fmt: skip
    for seconds in (-60, -50, 1, -1, 2, -1, 3):
        monkeypatch.setattr(
            timezone, "now", lambda seconds=seconds: monday + timedelta(seconds=seconds)
        )
        books.settle(books.hold(merchant, token=token), cost=ONE)
    token.refresh_from_db()
    assert (token.spent, token.requests) == (5, 5)
    assert (token.total_spent, token.total_requests, token.held) == (7, 7, 0)
    assert spendkeys.used(token, now=monday + timedelta(hours=1)) == (5, 5)
    assert spendkeys.used(token, now=monday + timedelta(days=40)) == (0, 0)


def test_a_token_whose_meter_was_archived_is_refused_in_words(shop: Shop) -> None:
    _, text = make(shop)
    Meter.objects.update(archived_at=timezone.now())
    answer = shop.ask(token=text)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "meter_not_found")
    assert answer.json()["error"]["message"] == "This token's meter was archived."


@pytest.mark.django_db
def test_a_limit_of_all_time_counts_what_was_before_it() -> None:
    merchant = factories.make_merchant(sandbox=False)
    token, _ = spendkeys.make(
        merchant, name="x", now=timezone.now(),
        limits=Limits(spend_limit=Decimal(10), spend_cycle="daily", request_cycle="daily"),
    )  # fmt: skip
    books.settle(books.hold(merchant, token=token), cost=ONE)
    ForwardToken.objects.update(
        spend_cycle_start=timezone.now() - timedelta(days=3),
        request_cycle_start=timezone.now() - timedelta(days=3),
    )
    books.settle(books.hold(merchant, token=token), cost=ONE)
    spendkeys.update(
        token, now=timezone.now(), limits=Limits(spend_limit=Decimal(9), request_limit=9)
    )
    assert spendkeys.used(token, now=timezone.now()) == (2, 2)
    books.settle(books.hold(merchant, token=token), cost=ONE)
    token.refresh_from_db()
    assert spendkeys.used(token, now=timezone.now()) == (3, 3) == (token.spent, token.requests)
