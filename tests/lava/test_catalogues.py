"""What customers read, in every language: the catalogues are complete, and compiled as they are."""

from __future__ import annotations

import pytest
from django.conf import settings

from lava import catalogues

EVERY = [(app, code) for app in catalogues.FOLDERS for code in catalogues.languages()]


@pytest.mark.parametrize(("app", "language"), EVERY)
def test_every_message_is_translated_and_compiled(app: str, language: str) -> None:
    assert list(catalogues.complaints(app, language)) == []


def test_german_and_spanish_are_spoken_beside_english() -> None:
    assert [code for code, _ in settings.LANGUAGES] == ["en", "de", "es"]
    for app in catalogues.FOLDERS:
        assert len(catalogues.source(app)) > 80


def test_a_missing_translation_is_found() -> None:
    kept = catalogues.read("checkout", "de")
    message = kept.get("Pay {price}")
    assert message is not None
    message.string = "Zahlen"
    assert list(catalogues._complaints("de", message)) == ["de: other fields: 'Pay {price}'"]
    message.string = ""
    assert list(catalogues._complaints("de", message)) == ["de: untranslated: 'Pay {price}'"]
