"""Requests of odd shapes: each is forwarded and measured, or refused in words; none is a fault."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.meters.gateway.direct import Direct
from tests.meters.gateway.test_live_faults import FEE, usage
from tests.meters.gateway.upstream_server import Script, Upstream

BY_MODEL = "/v1/chat/completions"


@pytest.fixture
def direct(transactional_db: object) -> Iterator[Direct]:
    upstream = Upstream()
    upstream.answers(Script([json.dumps({"model": "m", "usage": usage()}).encode()]))
    yield Direct(upstream)
    upstream.close()


@pytest.mark.parametrize("path", [None, BY_MODEL])
@pytest.mark.parametrize("odd", [b"[" * 300 + b"]" * 300, b'"\\ud83d"'])
def test_a_body_that_the_quick_parser_refuses_is_served(
    direct: Direct, path: str | None, odd: bytes
) -> None:
    body = b'{"model": "replay/m", "stream": true, "messages": [], "odd": %s}' % odd
    answer = direct.ask(content=body, **({"path": path} if path else {}))
    assert answer.status == 200 and odd in direct.upstream.requests[0]
    (call,) = direct.calls()
    assert (call.charged, call.stream) == (FEE, True)
    direct.sound()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"headers": {"x-lava-metadata": r'{"a": "\u0000"}'}}, "invalid_request"),
        ({"query": "metadata=%7B%22a%22:%22%5Cu0000%22%7D"}, "invalid_request"),
        ({"content": b'{"a": %s}' % (b"[" * 3000 + b"]" * 3000)}, "body_too_deep"),
        (
            {"content": gzip.compress(b'{"background": true}'),
             "headers": {"content-encoding": "gzip"}},
            "body_packed",
        ),
    ],
    ids=["a NUL", "a NUL in the query", "too deep", "packed"],
)  # fmt: skip
def test_what_cannot_be_kept_or_read_is_refused_in_words(
    direct: Direct, call: dict[str, Any], code: str
) -> None:
    answer = direct.ask(**call)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, code)
    assert not direct.upstream.requests
    direct.sound()
