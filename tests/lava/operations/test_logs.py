"""Logs: one object a line, with the request's id, and never a secret."""

from __future__ import annotations

import json
import logging
from io import StringIO

import pytest
import structlog

from lava.operations import logs


def line(record_or_event: str, **words: object) -> dict[str, object]:
    out = StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logs.Formatter(production=True))
    logger = logging.getLogger("tests.logs")
    logger.addHandler(handler)
    try:
        logger.warning(record_or_event, *words.values())
    finally:
        logger.removeHandler(handler)
    found: dict[str, object] = json.loads(out.getvalue())
    return found


@pytest.mark.parametrize(
    "secret",
    [
        "aks_live_0123456789abcdefghijklmnopqrstuvwxyz",
        "aks_test_0123456789abcdefghijklmnopqrstuvwxyz",
        "lft_live_0123456789abcdefghijklmnop",
        "css_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
        "sk_live_51H8xYzABCDEFGHIJKLMNOP",
        "sk-proj-0123456789abcdefghijABCDEFGHIJ",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "pi_3MtwBwLkdIwHu7ix28a3tqPa_secret_YrKJUKribcBjcG8HVhfZluoGH",
    ],
)
def test_a_secret_never_reaches_a_line(secret: str) -> None:
    tail = secret[-10:]
    for told in (secret, f"Bearer {secret}", f"key={secret}&x=1", f'{{"key": "{secret}"}}'):
        assert tail not in json.dumps(line("refused: %s", told=told)), told
        assert tail not in logs.hidden(told)


def test_words_that_are_no_secrets_stay() -> None:
    for text in (
        "con_live_01M889RQ82SF5Z11JZEGRZFC64",
        "sk_ip the rest",
        "Basic plan of the bearer",
        "https://billing.example.com/webhooks/stripe",
    ):
        assert logs.hidden(text) == text


def test_a_line_says_what_where_when_and_for_which_request() -> None:
    structlog.contextvars.bind_contextvars(request_id="rid_1")
    try:
        found = line("it happened")
    finally:
        structlog.contextvars.clear_contextvars()
    assert found["event"] == "it happened"
    assert found["logger"] == "tests.logs"
    assert found["level"] == "warning"
    assert found["request_id"] == "rid_1"
    assert str(found["timestamp"]).endswith("Z")
