"""Streams in pieces of every size, clients that leave, providers that stall or lie; in one process.

What needs a server and a network is in test_live_faults.py.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meters.gateway import keyring, proxy, running, store, upstream
from meters.gateway import packing as gateway_packing
from meters.gateway import passage as gateway_passage
from meters.models import UsageRequest
from tests.meters.gateway.direct import Answer, Direct
from tests.meters.gateway.live import PROVIDER_KEY
from tests.meters.gateway.test_live_faults import FEE, SSE, chunk, usage
from tests.meters.gateway.upstream_server import Script, Upstream

KEY = PROVIDER_KEY.encode()


@pytest.fixture
def replay() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def direct(replay: Upstream, transactional_db: object) -> Direct:
    return Direct(replay)


# -- pieces


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_a_stream_comes_out_the_same_wherever_it_is_cut(direct: Direct, ends: bytes) -> None:
    """Every byte border of a stream whose usage only we asked for, over a real connection."""
    words = [chunk("a"), b": hi\n\n", chunk("\u00e9")]
    shown = b"".join([*words, b"data: [DONE]\n\n"]).replace(b"\n", ends)
    ours = chunk("", choices=[], usage=usage()).replace(b"\n", ends)
    stream = b"".join(words).replace(b"\n", ends) + ours + b"data: [DONE]" + ends * 2
    borders = range(1, len(stream))
    direct.upstream.answers(
        *(Script([stream[:at], stream[at:]], SSE, pause_s=0.002) for at in borders)
    )

    async def all_of_them(gateway: proxy.Gateway) -> list[Answer]:
        few = asyncio.Semaphore(8)

        async def one() -> Answer:
            async with few:
                return await direct.call(gateway, stream=True)

        return list(await asyncio.gather(*(one() for _ in borders)))

    answers = direct.run(all_of_them)
    assert {answer.body for answer in answers} == {shown}
    assert all(answer.ended for answer in answers)
    calls = direct.calls()
    assert len(calls) == len(borders) > 300
    assert {(call.charged, tuple(call.flags)) for call in calls} == {(FEE, ("unpriced",))}
    assert UsageRequest.objects.of(direct.merchant).count() == len(borders)
    direct.sound()


@pytest.mark.parametrize("kind", [SSE, "text/plain", "application/json"])
def test_a_key_that_comes_in_two_pieces_is_redacted(direct: Direct, kind: str) -> None:
    text = b'data: {"error": "wrong key ' + KEY + b'!"}\n\n'
    start = text.index(KEY)
    borders = [start + at for at in range(len(KEY) + 1)]
    direct.upstream.answers(
        *(Script([text[:at], text[at:]], kind, pause_s=0.002) for at in borders)
    )

    async def all_of_them(gateway: proxy.Gateway) -> list[Answer]:
        return [await direct.call(gateway) for _ in borders]

    for answer in direct.run(all_of_them):
        assert answer.body == text.replace(KEY, b"[redacted]") and answer.ended


@given(
    st.lists(st.sampled_from([b"a", b"b", b"aab", b"aa", b"ab", b"x"]), max_size=30),
    st.sampled_from(["aab", "a", "abab", "aaa", ""]),
)
def test_the_scrubber_redacts_as_if_all_came_at_once(pieces: list[bytes], key: str) -> None:
    scrubber = upstream.Scrubber(key)
    out = b"".join(map(scrubber.feed, pieces)) + scrubber.close()
    whole = b"".join(pieces)
    assert out == (whole.replace(key.encode(), b"[redacted]") if key else whole)


def test_a_piece_waits_only_where_the_key_may_begin() -> None:
    scrubber = upstream.Scrubber("sk-secret")
    assert scrubber.feed(b"data: {}\n\n") == b"data: {}\n\n"
    assert scrubber.feed(b"risk-") == b"ri" and scrubber.feed(b"free") == b"sk-free"


# -- clients that leave


def frames(count: int) -> list[bytes]:
    return [chunk("four" * 10) for _ in range(count)]


def test_with_abort_a_call_ends_with_its_client_and_is_charged_for_what_came(
    direct: Direct, settings: Any
) -> None:
    settings.GATEWAY_WHEN_CLIENT_LEAVES = "abort"
    pieces = [*frames(100), chunk("", choices=[], usage=usage())]
    direct.upstream.answers(Script(pieces, SSE, pause_s=0.05))
    started = time.monotonic()
    direct.ask(stream=True, leave_after=3)
    assert time.monotonic() - started < 3
    (call,) = direct.calls()
    assert {"partial", "estimated"} <= set(call.flags)
    # 10 tokens a frame; the client saw three, a few more may have been on the way.
    assert 30 <= call.usage["output"] <= 100 and call.charged > 0
    assert direct.upstream.sent < sum(map(len, pieces)) / 2
    direct.sound()


@pytest.mark.parametrize("mode", ["abort", "drain"])
def test_who_closes_right_after_the_last_frame_has_not_left(
    direct: Direct, settings: Any, mode: str
) -> None:
    settings.GATEWAY_WHEN_CLIENT_LEAVES = mode
    done = b"data: [DONE]\n\n"
    script = Script([chunk(), chunk("", choices=[], usage=usage()), done, b": bye\n\n"], SSE,
                    pause_s=0.1)  # fmt: skip
    direct.upstream.answers(script)
    direct.ask(stream=True, leave_when=done)
    (call,) = direct.calls()
    assert (call.charged, call.flags) == (FEE, ["unpriced"])


def test_a_drain_ends_at_its_deadline_though_the_provider_is_silent(
    direct: Direct, settings: Any
) -> None:
    """One byte a minute: what nobody takes is not waited for."""
    settings.GATEWAY_DRAIN_S = 0.5
    direct.upstream.answers(Script([*frames(4), b"d"], SSE, pause_s=0, stall_s=60))
    started = time.monotonic()
    # The first piece may be all that comes: nobody says how the line cuts four frames.
    direct.ask(stream=True, leave_after=1)
    assert 0.4 < time.monotonic() - started < 5
    (call,) = direct.calls()
    assert call.status == "completed" and {"partial", "estimated"} <= set(call.flags)
    assert call.usage["output"] == 40 and call.charged > 0
    direct.sound()


def test_a_client_that_left_before_the_answer_is_drained_when_it_comes(
    direct: Direct, settings: Any
) -> None:
    settings.GATEWAY_WHEN_CLIENT_LEAVES = "drain"
    direct.upstream.answers(Script([json.dumps({"usage": usage()}).encode()], pause_s=0.5))
    direct.ask(leave_after=0, headers={"x-leave": "now"})
    assert [call.charged for call in direct.calls()] == [FEE]


def test_a_provider_that_falls_silent_is_given_up_and_what_came_is_charged(
    direct: Direct, settings: Any
) -> None:
    settings.GATEWAY_IDLE_S = 0.5
    direct.upstream.answers(Script(frames(4), SSE, stall_s=60))
    answer = direct.ask(stream=True)
    assert not answer.ended and answer.body == b"".join(frames(4)) and answer.took_s < 5
    (call,) = direct.calls()
    assert {"cut", "estimated"} <= set(call.flags) and call.usage["output"] == 40
    direct.sound()


def test_a_provider_that_never_begins_costs_nothing(direct: Direct, settings: Any) -> None:
    settings.GATEWAY_IDLE_S = 0.5
    direct.upstream.answers(Script([], raw=b"", stall_s=60))
    answer = direct.ask()
    assert answer.status == 504 and b"provider_timeout" in answer.body
    (call,) = direct.calls()
    assert (call.status, call.charged) == ("error", Decimal(0))
    direct.sound()


STARTS = {
    "type": "message_start",
    "message": {
        "type": "message",
        "model": "claude",
        "usage": {"input_tokens": 25, "output_tokens": 1},
    },
}
SAYS = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "four" * 10}}


@pytest.mark.parametrize("leaves", [True, False])
def test_what_an_answer_stated_as_it_began_is_not_all_it_made(
    direct: Direct, settings: Any, leaves: bool
) -> None:
    """Anthropic states 1 token of output first and the truth last."""
    settings.GATEWAY_WHEN_CLIENT_LEAVES = "abort"
    pieces = [b"data: %s\n\n" % json.dumps(event).encode() for event in (STARTS, *[SAYS] * 50)]
    direct.upstream.answers(Script(pieces, SSE, pause_s=0.02, breaks=True))
    direct.ask(stream=True, leave_after=30 if leaves else None)
    (call,) = direct.calls()
    assert {"partial" if leaves else "cut", "estimated"} <= set(call.flags)
    assert call.usage["input"] == 25 and call.usage["output"] >= 280
    direct.sound()


def test_half_a_character_in_a_stream_stops_no_heartbeat(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers cut a surrogate pair between two frames."""
    monkeypatch.setattr(running, "BEAT_S", 0.05)
    beats: list[Any] = []
    seen = store.Store.seen

    async def counted(pool: store.Store, calls: Any) -> None:
        beats.extend(calls)
        await seen(pool, calls)

    monkeypatch.setattr(store.Store, "seen", counted)
    halves = [chunk("four").replace(b"four", half) for half in (b"\\ud83d", b"\\ude00")]
    direct.upstream.answers(Script(halves * 10, SSE, pause_s=0.05))
    answer = direct.ask(stream=True)
    assert answer.ended and answer.body == b"".join(halves * 10)
    assert beats[-1][1] > 0 and beats[-1][2] > beats[0][2]
    (call,) = direct.calls()
    assert call.status == "completed" and call.charged > 0
    direct.sound()


def test_a_redirect_is_no_work_and_costs_nothing(direct: Direct) -> None:
    direct.upstream.answers(Script([], status="302 Found", headers=["Location: http://x/"]))
    assert direct.ask().status == 302
    (call,) = direct.calls()
    assert (call.status, call.error, call.charged) == ("error", "http_302", 0)
    direct.sound()


# -- providers that lie


def test_a_bomb_is_not_unpacked_and_other_calls_go_on(direct: Direct, monkeypatch: Any) -> None:
    monkeypatch.setattr(gateway_passage, "UNPACKED", 4 << 20)
    bomb = gzip.compress(b"0" * (128 << 20), 9)
    packed = Script([bomb], "application/json", headers=["Content-Encoding: gzip"])
    good = Script([json.dumps({"usage": usage()}).encode()])
    direct.upstream.answers(packed, good)

    async def both(gateway: proxy.Gateway) -> list[Answer]:
        first = asyncio.ensure_future(direct.call(gateway))
        while not direct.upstream.requests:
            await asyncio.sleep(0.01)
        return [await first, await direct.call(gateway)]

    started = time.monotonic()
    first, second = direct.run(both)
    assert first.status == 502 and second.status == 200 and time.monotonic() - started < 5
    assert json.loads(first.body)["error"]["code"] == "provider_packed"
    bad, fine = direct.calls()
    assert bad.error == "provider_packed" and bad.charged == 0 and fine.charged == FEE
    direct.sound()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def in_members(data: bytes) -> bytes:
    return b"".join(gzip.compress(data[at : at + 40]) for at in range(0, len(data), 40))


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip in members": ("gzip", in_members),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_stream_comes_out_as_it_is(direct: Direct, packer: str) -> None:
    encoding, pack = PACKERS[packer]
    data = pack(b"".join([*frames(3), chunk("", choices=[], usage=usage())]))
    direct.upstream.answers(
        Script([data[:20], data[20:]], SSE, headers=[f"Content-Encoding: {encoding}"])
    )
    answer = direct.ask(stream=True)
    assert answer.body == data and answer.headers["content-encoding"] == encoding
    (call,) = direct.calls()
    assert call.charged == FEE


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
def test_a_key_within_a_packed_answer_is_redacted(direct: Direct, packer: str, status: str) -> None:
    encoding, pack = PACKERS[packer]
    text = b'{"error": {"message": "wrong key ' + KEY + b'"}}'
    data = pack(text)
    direct.upstream.answers(
        Script([data[:9], data[9:]], status=status, headers=[f"Content-Encoding: {encoding}"])
    )
    answer = direct.ask()
    assert answer.body == text.replace(KEY, b"[redacted]") and answer.ended
    assert "content-encoding" not in answer.headers and answer.status == int(status[:3])


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_stream_ends_before_the_key(direct: Direct, packer: str) -> None:
    """Its bytes cannot be changed; not a bit of the key passes, wherever they are cut."""
    encoding, pack = PACKERS[packer]
    text = b"".join(frames(3)) + b'data: {"error": "' + KEY + b'"}\n\n' + b"".join(frames(3))
    data = pack(text)
    direct.upstream.answers(
        Script([bytes([byte]) for byte in data], SSE, headers=[f"Content-Encoding: {encoding}"])
    )
    answer = direct.ask(stream=True)
    assert not answer.ended and data.startswith(answer.body)
    seen = b"".join(gateway_packing.Unpacker(encoding, most=1 << 20).feed(answer.body))
    assert KEY[:4] not in seen
    (call,) = direct.calls()
    assert {"packed", "cut"} <= set(call.flags) and KEY.decode() not in str(vars(call))
    direct.sound()


def test_what_was_withheld_is_said_of_a_call_that_failed_too(direct: Direct) -> None:
    """The whole frame, an error, comes in one piece with the key."""
    data = gzip.compress(b'data: {"error": "' + KEY + b'"}\n\n' + b"".join(frames(3)))
    direct.upstream.answers(Script([data], SSE, headers=["Content-Encoding: gzip"]))
    answer = direct.ask(stream=True)
    assert not answer.ended and not answer.body
    (call,) = direct.calls()
    assert (call.status, call.error, call.charged) == ("error", "provider_error", 0)
    assert {"packed", "cut"} <= set(call.flags)
    direct.sound()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x"])
def test_what_cannot_be_looked_through_is_not_passed_on(direct: Direct, encoding: str) -> None:
    for kind in (SSE, "application/json"):
        direct.upstream.answers(Script([KEY], kind, headers=[f"Content-Encoding: {encoding}"]))
        answer = direct.ask()
        assert answer.status == 502 and KEY not in answer.body
        assert json.loads(answer.body)["error"]["code"] == "provider_packed"
    assert {call.charged for call in direct.calls()} == {Decimal(0)}
    direct.sound()


def test_a_key_that_is_told_as_the_model_is_not_written_down(direct: Direct) -> None:
    told = {"model": KEY.decode(), "usage": usage()}
    direct.upstream.answers(Script([json.dumps(told).encode()]))
    direct.ask()
    (call,) = direct.calls()
    assert call.model == "gpt-4o-mini" and call.charged == FEE


@pytest.mark.parametrize(
    "raw",
    [
        b"220 smtp.example.com ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"",
    ],
    ids=["no HTTP", "a huge header", "many headers", "two lengths", "a negative length", "nothing"],
)
def test_what_is_no_answer_is_a_502_and_free(direct: Direct, raw: bytes) -> None:
    direct.upstream.answers(Script([], raw=raw, breaks=True))
    answer = direct.ask()
    assert answer.status == 502 and answer.headers["x-lava-request-id"].startswith("req_")
    assert json.loads(answer.body)["error"]["code"] == "provider_unreachable"
    (call,) = direct.calls()
    assert (call.status, call.charged) == ("error", Decimal(0))
    # Asked once: it may have begun to work.
    assert len(direct.upstream.requests) == 1
    direct.sound()


def test_an_answer_that_breaks_is_not_ended_as_a_whole_one(direct: Direct) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\nhello"
    direct.upstream.answers(Script([], raw=raw, breaks=True))
    answer = direct.ask()
    assert answer.body == b"hello" and not answer.ended
    (call,) = direct.calls()
    assert "cut" in call.flags and call.status == "completed"
    direct.sound()


# -- memory


def memory(direct: Direct, streams: int) -> tuple[int, int]:
    """Bytes of this process after some streams, and after many more."""
    pieces = [*(chunk("word " * 50) for _ in range(40)), chunk("", choices=[], usage=usage())]
    direct.upstream.answers(Script([*pieces, b"data: [DONE]\n\n"], SSE))

    async def some(gateway: proxy.Gateway, count: int) -> None:
        for _ in range(count // 10):
            await asyncio.gather(*(direct.call(gateway, stream=True) for _ in range(10)))
            direct.upstream.requests.clear()

    async def twice(gateway: proxy.Gateway) -> tuple[int, int]:
        process = psutil.Process()
        await some(gateway, max(streams // 5, 100))
        gc.collect()
        before = process.memory_info().rss
        await some(gateway, streams)
        gc.collect()
        assert not gateway.running._calls
        return before, process.memory_info().rss

    found: tuple[int, int] = direct.run(twice)
    return found


def test_memory_stays_flat_over_streams(direct: Direct) -> None:
    before, after = memory(direct, 300)
    # Each stream is 11 kB; kept, they would be 3 MB, and their frames ten times that.
    assert after - before < 4 << 20


@pytest.mark.long
def test_memory_stays_flat_over_ten_thousand_streams(direct: Direct) -> None:
    before, after = memory(direct, 10_000)
    assert after - before < 16 << 20


# -- the two doors


def test_models_are_the_same_at_both_doors(direct: Direct, client: Any) -> None:
    """The gateway before Django (ASGI), and Django alone (WSGI)."""
    now = direct.merchant.now()
    for provider in ("openai", "groq"):
        keyring.set_key(direct.merchant, provider=provider, key="sk-1234567890", actor="x", now=now)
    for model, rate in (("gpt-4o*", "1"), ("house-model", "2")):
        keyring.set_price(
            direct.merchant, provider="openai", model=model, rates={"input": Decimal(rate)},
            actor="x", now=now,
        )  # fmt: skip
    for query in ("", "provider=groq", "provider=nobody"):
        told = client.get(f"/v1/models?{query}", headers={"Authorization": f"Bearer {direct.key}"})

        async def ask(gateway: proxy.Gateway, query: str = query) -> bytes:
            found = []

            async def send(message: Any) -> None:
                found.append(message.get("body", b""))

            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            await gateway(
                {"type": "http", "method": "GET", "path": "/v1/models",
                 "query_string": query.encode(),
                 "headers": [(b"authorization", f"Bearer {direct.key}".encode())]},
                receive, send,
            )  # fmt: skip
            return b"".join(found)

        assert json.loads(direct.run(ask)) == told.json(), query
        models = {row["id"]: row for row in told.json()["data"]}
        assert bool(models) == (query != "provider=nobody")
        if not query:
            assert models["gpt-4o-mini"]["pricing"]["input_per_million"] == "1.0000000000"
            assert models["house-model"]["pricing"]["input_per_million"] == "2.0000000000"
            assert {row["owned_by"] for row in models.values()} == {"openai", "groq"}
