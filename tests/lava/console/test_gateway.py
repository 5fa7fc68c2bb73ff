"""The gateway's pages: what they say of calls, whose price counts, and secrets shown once."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection as database

from billing import ids, secrets
from lava.console.gateway import calls, prices, snippets
from meters import costs
from meters.gateway import keyring, outcomes, providers, spendkeys
from meters.gateway.readers import Usage
from meters.models import ForwardToken, GatewayCall, ModelPrice, Provider, ProviderKey
from tests.lava.console.shop import Shop
from tests.meters.gateway import books as gateway

pytestmark = pytest.mark.django_db


@pytest.fixture
def ours(ours: Shop) -> Shop:
    """A shop whose call a customer paid for, in the place of its own."""
    books = ours.sandbox
    GatewayCall.objects.filter(pk=books.call.pk).delete()
    books.call = gateway.call(
        books.merchant, token=books.token, connection=books.connection, meter=books.meter
    )
    return ours


def page(answer: Any) -> str:
    """An answer's text, its spaces made one."""
    text = re.sub(r"<[^>]+>", " ", html.unescape(answer.content.decode()))
    return " ".join(text.split())


def test_calls_show_cost_charge_margin_and_what_was_refused(ours: Shop) -> None:
    said = page(ours.client().get("/console/gateway/"))
    # 1,500 tokens at 2 a million, past the first tier; the library's 0.00045.
    assert "gpt-4o-mini OpenAI 1,000, 500 2,140 ms $0.00045 $0.003 $0.00255 Charged" in said
    assert "Blocked 402" in said and "1 blocked for want of credits" in said
    assert "Charged $0.003" in said and "Margin $0.00255 after $0.00045 to providers" in said


def test_a_call_says_where_its_time_went_and_by_whose_price(ours: Shop) -> None:
    said = page(ours.client().get(f"/console/gateway/calls/{ours.sandbox.call.public_id}"))
    assert "The gateway added 9 ms of 2,140" in said
    assert "Provider, to its first byte 403 ms" in said and "The answer 1,728 ms" in said
    assert "Margin $0.00255" in said or "Margin 85.0 % of the charge $0.00255" in said
    assert "The price library" in said and "input_mtok 0.15" in said
    assert "Input tokens 1,000" in said


def test_a_refused_call_says_why_and_that_nothing_was_held(ours: Shop) -> None:
    call = gateway.block(ours.sandbox.merchant, error="model_not_allowed", status=403)
    said = page(ours.client().get(f"/console/gateway/calls/{ids.public('req', call)}"))
    assert "Refused 403" in said
    assert "The token does not allow the model. The provider was not called" in said


@pytest.mark.parametrize(
    ("query", "seen", "hidden"),
    [
        ({"state": "credits"}, "Blocked 402", "Charged $"),
        ({"state": "done"}, "$0.003", "Blocked 402"),
        ({"q": "gpt-4o-mini"}, "Blocked 402", "No call fits"),
        ({"q": "gpt-4"}, "No call fits", "Blocked 402"),
        ({"provider": "openai"}, "Blocked 402", "No call fits"),
        ({"provider": "groq"}, "No call fits", "Blocked 402"),
    ],
)
def test_filters_narrow_the_list(ours: Shop, query: dict[str, str], seen: str, hidden: str) -> None:
    said = page(ours.client().get("/console/gateway/", query))
    said = said[said.index("Added by the gateway") :]
    assert seen in said and hidden not in said


def test_the_list_asks_for_itself_alone(ours: Shop) -> None:
    client = ours.client()
    whole = client.get("/console/gateway/", {"state": "done"}).content.decode()
    live = html.unescape(re.search(r'data-live="([^"]+)"', whole).group(1))  # type: ignore[union-attr]
    part = client.get(f"/console/gateway/{live}").content.decode()
    assert "<html" not in part and "$0.003" in re.sub(r"<[^>]+>", "", part)
    assert part.strip() in whole
    older = client.get("/console/gateway/", {"before": ours.sandbox.call.public_id})
    assert "data-live=" not in older.content.decode()


def test_a_key_is_sealed_replaced_and_never_shown(ours: Shop) -> None:
    client, merchant = ours.client(), ours.sandbox.merchant
    for key in ("sk-first-0123456789", "sk-second-9876543210"):
        answer = client.post(
            "/console/gateway/keys", {"provider": "openai", "key": f" {key}\n"}, follow=True
        )
        assert answer.status_code == 200 and key not in answer.content.decode()
    rows = ProviderKey.objects.of(merchant).filter(provider="openai")
    assert rows.filter(revoked_at=None).count() == 1 and rows.count() == 3
    row = rows.get(revoked_at=None)
    assert b"9876543210" not in bytes(row.sealed)
    assert secrets.open(row.sealed) == "sk-second-9876543210"
    assert "••••3210" in page(client.get("/console/gateway/keys"))


def test_a_key_that_is_none_is_refused_at_its_field_and_not_repeated(ours: Shop) -> None:
    answer = ours.client().post(
        "/console/gateway/keys", {"provider": "openai", "key": "two words-0123"}
    )
    assert answer.status_code == 422 and "Paste the key" in answer.content.decode()
    assert "two words" not in answer.content.decode()


def test_a_provider_of_ones_own_is_added_with_its_key_or_not_at_all(ours: Shop) -> None:
    client = ours.client()
    form = {
        "name": "Ours", "slug": "ours", "base_url": "http://llm.internal:8000/v1",
        "dialect": "openai", "slot": "authorization", "key": "token-0123456789",
    }  # fmt: skip
    refused = client.post("/console/gateway/providers/new", form)
    assert refused.status_code == 422 and "Plain http is taken only" in refused.content.decode()
    assert not Provider.objects.filter(slug="ours").exists()
    bad_key = client.post("/console/gateway/providers/new", form | {"private": "1", "key": "a b"})
    assert bad_key.status_code == 422 and not Provider.objects.filter(slug="ours").exists()
    assert client.post("/console/gateway/providers/new", form | {"private": "1"}).status_code == 302
    row = Provider.objects.get(slug="ours")
    assert (row.private, row.asks_usage, row.long_running) == (True, False, False)
    assert ProviderKey.objects.get(provider="ours").origin == "http://llm.internal:8000"


def test_ones_own_price_counts_over_the_librarys(ours: Shop) -> None:
    client, merchant = ours.client(), ours.sandbox.merchant
    before = page(client.get("/console/gateway/prices", {"provider": "openai", "q": "gpt-4o-mini"}))
    assert "gpt-4o-mini $0.15 $0.60 Library" in before
    answer = client.post(
        "/console/gateway/prices",
        {"provider": "openai", "model": "gpt-4o*", "input": "0.12", "output": "0.48"},
    )
    assert answer.status_code == 302
    after = page(client.get("/console/gateway/prices", {"provider": "openai", "q": "gpt-4o-mini"}))
    assert "gpt-4o-mini by your gpt-4o* $0.15 $0.60 $0.12 $0.48 Yours" in after
    price = ModelPrice.objects.of(merchant).get(model="gpt-4o*")
    client.post(f"/console/gateway/prices/{price.public_id}/remove")
    again = page(client.get("/console/gateway/prices", {"provider": "openai", "q": "gpt-4o-mini"}))
    assert "gpt-4o-mini $0.15 $0.60 Library" in again


def test_the_page_names_the_winner_that_costs_are_computed_by(ours: Shop) -> None:
    """The page and `costs.find` agree on every model of a provider, whoever prices it."""
    merchant, now = ours.sandbox.merchant, ours.sandbox.merchant.now()
    for model, rate in (("gpt-4o*", "1"), ("gpt-4o-mini", "2"), ("*", "9"), ("o3*", "3")):
        provider = "*" if model == "*" else "openai"
        keyring.set_price(
            merchant, provider=provider, model=model, rates={"input": Decimal(rate)}, actor="x",
            now=now, valid_from=now + timedelta(days=1) if model == "o3*" else None,
        )  # fmt: skip
    own = [costs.override(vars(row)) for row in ModelPrice.objects.of(merchant)]
    row = providers.BY_SLUG["openai"]
    shown = prices.lines(row, own, text="", now=now, library_counts=True)
    assert len(shown) > 80
    for line in shown:
        used = Usage(input=1000, output=1000)
        found = costs.find("openai", (line.model,), used, prices="openai", overrides=own,
                           currency="USD", now=now)  # fmt: skip
        assert found is not None and found.source == costs.OVERRIDE and line.counts == "own"
        assert line.own is not None
        assert found.rates["input"] == f"{line.own.rates['input_rate'].normalize():f}"
    chosen = {line.model: line.own.model for line in shown if line.own}
    assert chosen["gpt-4o-mini"] == "gpt-4o-mini" and chosen["gpt-4o"] == "gpt-4o*"
    assert chosen["o3-mini"] == "*"


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"model": "m"}, "Give at least one rate."),
        ({"model": "m", "input": "-1"}, "without a sign"),
        ({"model": "", "input": "1"}, "Name the model"),
        ({"model": "m", "input": "1", "day": "soon"}, "Choose a day."),
        ({"model": "m", "input": "1", "provider": "nobody"}, "There is no provider"),
    ],
)
def test_a_price_that_is_none_is_refused_at_its_field(
    ours: Shop, form: dict[str, str], field: str
) -> None:
    answer = ours.client().post("/console/gateway/prices", {"provider": "openai"} | form)
    assert answer.status_code == 422 and field in page(answer)
    assert ModelPrice.objects.of(ours.sandbox.merchant).count() == 1


def make(ours: Shop, **fields: Any) -> Any:
    books = ours.sandbox
    form = {
        "name": "Bot", "payer": "customer", "customer": books.connection.public_id,
        "meter": books.meter.slug, "spend_cycle": "daily", "request_cycle": "total",
    }  # fmt: skip
    return ours.client().post("/console/gateway/tokens/new", form | fields)


def test_a_token_is_shown_once_with_code_that_names_its_provider(ours: Shop) -> None:
    answer = make(ours, spend_limit="5", rate_limit="60", allowed_models="gpt-4.1-mini\n\n")
    text = answer.content.decode().split('id="forward-token">')[1].split("<")[0]
    said = html.unescape(answer.content.decode())
    assert "/v1/forward/openai/v1/chat/completions" in said and '"gpt-4.1-mini"' in said
    assert said.count(text) == 1 and "no-store" in answer["Cache-Control"]
    row = ForwardToken.objects.get(name="Bot")
    assert (row.spend_limit, row.spend_cycle, row.rpm) == (5, "daily", 60)
    assert row.allowed_models == ["gpt-4.1-mini"] and row.allowed_providers is None
    again = ours.client().get(f"/console/gateway/tokens/{row.public_id}").content.decode()
    assert text not in again and row.hint in html.unescape(again)


@pytest.mark.parametrize(
    ("payer", "fields", "connection", "meter"),
    [
        ("customer", {"customer": "northwind@quill.example"}, True, True),
        ("meter", {"customer": ""}, False, True),
        ("merchant", {"customer": "", "meter": ""}, False, False),
    ],
)
def test_who_pays(
    ours: Shop, payer: str, fields: dict[str, str], connection: bool, meter: bool
) -> None:
    assert make(ours, payer=payer, **fields).status_code == 200
    row = ForwardToken.objects.get(name="Bot")
    assert (row.connection == ours.sandbox.connection, row.meter == ours.sandbox.meter) == (
        connection, meter
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "Name the token"),
        ({"customer": ""}, "Name the customer"),
        ({"customer": "nobody at all"}, "No customer fits"),
        ({"meter": "none"}, "Choose the meter"),
        ({"spend_limit": "lots"}, "Write an amount such as"),
        ({"request_limit": "1.5"}, "Write a whole number"),
        ({"rate_limit": "0"}, "Write a whole number"),
        ({"expires_at": "2020-01-01"}, "Choose an end in the future"),
        ({"spend_cycle": "hourly"}, "Choose a cycle"),
    ],
)
def test_a_token_that_is_none_is_refused_at_its_field(
    ours: Shop, fields: dict[str, str], words: str
) -> None:
    answer = make(ours, **fields)
    assert answer.status_code == 422 and words in page(answer)
    assert not ForwardToken.objects.filter(name="Bot").exists()


def test_a_changed_token_keeps_its_last_day(ours: Shop) -> None:
    make(ours, expires_at="2099-03-01", request_limit="7")
    row = ForwardToken.objects.get(name="Bot")
    client = ours.client()
    where = f"/console/gateway/tokens/{row.public_id}/change"
    form = client.get(where).content.decode()
    assert 'value="2099-03-01"' in form and 'value="7"' in form
    same = {"name": "Bot", "expires_at": "2099-03-01", "request_limit": "7",
            "spend_cycle": "daily", "request_cycle": "total"}  # fmt: skip
    before = row.expires_at
    client.post(where, same)
    row.refresh_from_db()
    assert row.expires_at == before


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Auckland"])
@pytest.mark.parametrize("cycle", ["daily", "weekly", "monthly", "total"])
def test_the_cycle_of_a_limit_is_the_same_in_python_and_in_the_database(
    zone: str, cycle: str
) -> None:
    for hours in range(0, 24 * 400, 97):
        now = datetime(2026, 1, 1, 0, 30, tzinfo=UTC) + timedelta(hours=hours)
        with database.cursor() as cursor:
            cursor.execute("SELECT meters_limit_start(%s, %s, %s)", [cycle, zone, now])
            (expected,) = cursor.fetchone()
        assert spendkeys._cycle_start(cycle, zone, now) == expected, now


def test_snippets_call_whom_the_token_may_and_a_key_is_there_for() -> None:
    own = providers.Provider(slug="vllm", name="Ours", host="llm.example", paths=("/api/v1",),
                             own=True)  # fmt: skip
    rows = [own, *providers.TABLE]
    every = {row.key: row for row in snippets.make("https://x", rows, keyed={"vllm"})}
    assert "https://x/v1/forward/vllm/api/v1/chat/completions" in every["curl"].code
    assert not every["curl"].missing and every["anthropic"].missing == "Anthropic"
    assert 'base_url="https://x/v1/forward/anthropic"' in every["anthropic"].code
    few = snippets.make("https://x", rows, keyed=(), allowed=["groq"], model="llama")
    assert {row.key for row in few} == {"curl", "openai-python", "openai-node", "ai-sdk"}
    assert "/v1/forward/groq/openai/v1" in few[0].code and '"llama"' in few[0].code
    assert snippets.make("https://x", rows, keyed=(), allowed=["elevenlabs"]) == []


def test_every_flag_and_refusal_has_words() -> None:
    assert set(outcomes.WORDS) - {"unauthenticated", "token_expired"} <= set(calls.CODES) | {
        "token_paused", "amount_too_large"
    }  # fmt: skip
