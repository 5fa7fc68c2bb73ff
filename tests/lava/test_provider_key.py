"""`manage.py provider_key`: a key at a provider, entered without a trace in the shell."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from meters.models import Provider, ProviderKey
from tests import factories

pytestmark = pytest.mark.django_db


def enter(monkeypatch: Any, key: str, lava_key: str, *words: str) -> str:
    said = io.StringIO()
    monkeypatch.setenv("LAVA_KEY", lava_key)
    monkeypatch.setattr("sys.stdin", io.StringIO(key))
    call_command("provider_key", *words, stdout=said)
    return said.getvalue()


def test_a_key_is_sealed_for_the_books_of_the_secret_key(monkeypatch: Any) -> None:
    merchant = factories.make_merchant()
    said = enter(monkeypatch, "sk-proj-abcd1234\n", factories.make_key(merchant), "openai")
    assert "1234" in said and "abcd" not in said
    row = ProviderKey.objects.get()
    assert row.merchant == merchant and b"abcd1234" not in bytes(row.sealed)


def test_a_provider_of_ones_own_is_added_with_its_key(monkeypatch: Any) -> None:
    key = factories.make_key(factories.make_merchant())
    own = ("vllm", "--base-url", "http://127.0.0.1:9000/v1", "--private")
    enter(monkeypatch, "token-1", key, *own)
    assert Provider.objects.get().slug == "vllm"


@pytest.mark.parametrize(("lava_key", "provider"), [("aks_test_x", "openai"), ("", "openai")])
def test_without_a_secret_key_nothing_is_entered(
    monkeypatch: Any, lava_key: str, provider: str
) -> None:
    with pytest.raises(CommandError, match="LAVA_KEY"):
        enter(monkeypatch, "sk-1", lava_key, provider)
    assert not ProviderKey.objects.exists()


def test_an_unknown_provider_is_named_and_nothing_is_entered(monkeypatch: Any) -> None:
    key = factories.make_key(factories.make_merchant())
    with pytest.raises(CommandError):
        enter(monkeypatch, "sk-1", key, "nobody")
    assert not ProviderKey.objects.exists()
