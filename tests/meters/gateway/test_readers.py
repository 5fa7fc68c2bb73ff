"""Usage out of answers: every dialect, as JSON and as streams cut anywhere."""

from __future__ import annotations

import base64
import itertools
import json
import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meters.gateway import frames
from meters.gateway.readers import LARGEST_COUNT, WHOLE, Reader, Rules, Usage

Json = dict[str, Any]
SSE = "text/event-stream; charset=utf-8"


def read(
    data: bytes, kind: str = "application/json", *cuts: int, rules: Rules | None = None,
    is_array: bool = False,
) -> Reader:  # fmt: skip
    reader = Reader(kind, rules=rules, is_array=is_array)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    out = b"".join(
        frame for start, end in itertools.pairwise(places) for frame in reader.feed(data[start:end])
    )
    out += reader.close()
    assert not reader.is_stream or out == data
    return reader


def usage(data: Any, **kwargs: Any) -> Usage | None:
    return read(json.dumps(data).encode(), **kwargs).usage


def sse(*events: Any, named: bool = False) -> bytes:
    found = b""
    for event in events:
        head = f"event: {event['type']}\n" if named else ""
        text = event if isinstance(event, str) else json.dumps(event)
        found += f"{head}data: {text}\n\n".encode()
    return found


def chunk(usage: Any = None, **fields: Any) -> Json:
    base = {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [], "usage": usage}
    return base | fields


CHAT_USAGE = {
    "prompt_tokens": 398, "completion_tokens": 75, "total_tokens": 473,
    "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 3},
}  # fmt: skip
CHAT = Usage(
    input=398, output=75, cache_read=100, reasoning=64, input_audio=7, output_audio=3
)  # fmt: skip

STREAMS: dict[str, tuple[bytes, Usage | None]] = {
    "chat": (
        sse(
            chunk(choices=[{"delta": {"content": 'a "usage": {} b\n\n'}}]),
            ": a comment",
            chunk(choices=[{"delta": {}, "finish_reason": "stop"}]),
            chunk(CHAT_USAGE),
            "[DONE]",
        ),
        CHAT,
    ),
    # LiteLLM #36168: the last chunk with choices carries the usage.
    "chat, usage beside choices": (
        sse(chunk(CHAT_USAGE, choices=[{"delta": {}, "finish_reason": "stop"}]), chunk(), "[DONE]"),
        CHAT,
    ),
    "chat, usage on every chunk": (
        sse(chunk(CHAT_USAGE | {"completion_tokens": 2}), chunk(CHAT_USAGE), "[DONE]"),
        CHAT,
    ),
    "groq, twice": (
        sse(
            chunk(None, x_groq={"id": "req_1"}),
            chunk(
                {"prompt_tokens": 20, "completion_tokens": 5},
                x_groq={"usage": {"prompt_tokens": 20, "completion_tokens": 5}},
            ),
        ),
        Usage(input=20, output=5),
    ),
    "groq, its own only": (
        sse({"choices": [], "x_groq": {"usage": {"prompt_tokens": 20, "completion_tokens": 5}}}),
        Usage(input=20, output=5),
    ),
    "anthropic": (
        sse(
            {
                "type": "message_start",
                "message": {
                    "model": "claude-sonnet-4-5",
                    "usage": {
                        "input_tokens": 20,
                        "cache_creation_input_tokens": 50,
                        "cache_read_input_tokens": 1000,
                        "cache_creation": {"ephemeral_1h_input_tokens": 30},
                        "output_tokens": 1,
                    },
                },
            },
            {"type": "ping"},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "usage"}},
            {"type": "message_delta", "usage": {"output_tokens": 15}},
            {"type": "message_stop"},
            named=True,
        ),
        Usage(input=1070, output=15, cache_read=1000, cache_write=50, cache_write_1h=30),
    ),
    "anthropic, the delta states the input anew": (
        sse(
            {"type": "message_start",
             "message": {"usage": {"input_tokens": 2, "output_tokens": 1}}},
            {"type": "message_delta", "usage": {"input_tokens": 30, "output_tokens": 9,
                                                "cache_read_input_tokens": 8}},
        ),
        Usage(input=38, output=9, cache_read=8),
    ),
    "responses": (
        sse(
            {"type": "response.created", "response": {"usage": None, "error": None}},
            {
                "type": "response.completed",
                "response": {
                    "model": "gpt-5",
                    "usage": {
                        "input_tokens": 255,
                        "input_tokens_details": {"cached_tokens": 200},
                        "output_tokens": 16,
                        "output_tokens_details": {"reasoning_tokens": 9},
                    },
                },
            },
            named=True,
        ),
        Usage(input=255, output=16, cache_read=200, reasoning=9),
    ),
    "gemini, the last word counts": (
        sse(
            {"usageMetadata": {"promptTokenCount": 169, "totalTokenCount": 169}},
            {
                "usageMetadata": {
                    "promptTokenCount": 79,
                    "candidatesTokenCount": 12,
                    "thoughtsTokenCount": 42,
                    "toolUsePromptTokenCount": 6,
                    "cachedContentTokenCount": 50,
                    "promptTokensDetails": [
                        {"modality": "TEXT", "tokenCount": 70},
                        {"modality": "AUDIO", "tokenCount": 9},
                    ],
                },
                "modelVersion": "gemini-2.5-flash",
            },
        ),
        Usage(input=85, output=54, cache_read=50, reasoning=42, input_tool=6, input_audio=9),
    ),
    "cohere": (
        sse(
            {"type": "content-delta", "delta": {"message": {"content": {"text": "hi"}}}},
            {
                "type": "message-end",
                "delta": {
                    "usage": {
                        "billed_units": {"input_tokens": 1, "output_tokens": 9},
                        "tokens": {"input_tokens": 496, "output_tokens": 11},
                    }
                },
            },
        ),
        Usage(input=1, output=9),
    ),
    "an error and no usage": (sse(chunk(), {"error": {"message": "tool_use_failed"}}), None),
    "nothing but text": (b": hello\n\ndata: not json usage\n\ndata: [DONE]\n\n", None),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
def test_a_stream_is_read_the_same_wherever_it_is_cut(name: str, ends: bytes) -> None:
    data, expected = STREAMS[name]
    data = data.replace(b"\n", ends)
    for cut in range(len(data) + 1):
        assert read(data, SSE, cut).usage == expected
    reader = read(data, SSE, *range(len(data)))
    assert reader.usage == expected
    assert reader.failed == (name == "an error and no usage")


@given(st.lists(st.integers(0, 2000), max_size=8), st.sampled_from(sorted(STREAMS)))
def test_frames_joined_are_the_stream(cuts: list[int], name: str) -> None:
    data, expected = STREAMS[name]
    assert read(data, SSE, *cuts).usage == expected


def test_the_last_frame_needs_no_terminator() -> None:
    data = STREAMS["responses"][0].rstrip(b"\n")
    assert read(data, SSE).usage == STREAMS["responses"][1]


def test_a_stream_says_its_model_and_its_end() -> None:
    reader = read(STREAMS["anthropic"][0], SSE)
    assert (reader.model, reader.finished, reader.failed) == ("claude-sonnet-4-5", True, False)
    assert read(STREAMS["gemini, the last word counts"][0], SSE).model == "gemini-2.5-flash"
    assert not read(sse(chunk()), SSE).finished


WHOLE_ANSWERS: list[tuple[Json, Usage | None]] = [
    ({"model": "gpt-4o", "usage": CHAT_USAGE}, CHAT),
    ({"object": "list", "usage": {"prompt_tokens": 4, "total_tokens": 4}}, Usage(input=4)),
    (
        {"usage": {"prompt_tokens": 976, "completion_tokens": 61, "total_tokens": 1037,
                   "prompt_cache_hit_tokens": 896}},
        Usage(input=976, output=61, cache_read=896),
    ),
    # Voyage states the total alone.
    ({"object": "list", "usage": {"total_tokens": 4}}, Usage(input=4)),
    # Moonshot states what was cached at the top.
    (
        {"usage": {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 8}},
        Usage(input=9, output=1, cache_read=8),
    ),
    # xAI counts reasoning beside the completion.
    (
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35,
                   "completion_tokens_details": {"reasoning_tokens": 20}}},
        Usage(input=10, output=25, reasoning=20),
    ),
    (
        {"type": "message", "usage": {"input_tokens": 32, "output_tokens": 5}},
        Usage(input=32, output=5),
    ),
    (
        {"type": "message", "usage": {
            "input_tokens": 2, "output_tokens": 1, "cache_read_input_tokens": 0,
            "server_tool_use": {"web_search_requests": 3},
            "iterations": [
                {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
                {"type": "message", "input_tokens": 23_000, "output_tokens": 1000,
                 "cache_read_input_tokens": 7},
            ]}},
        Usage(input=203_007, output=4500, cache_read=7, web_searches=3),
    ),
    (
        {"object": "response", "usage": {"input_tokens": 10, "output_tokens": 1,
                                         "input_tokens_details": {"cached_tokens": 4}}},
        Usage(input=10, output=1, cache_read=4),
    ),
    (
        {"data": [{"b64_json": "eA=="}, {"b64_json": "eA=="}],
         "usage": {"input_tokens": 50, "output_tokens": 4160,
                   "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}},
        Usage(input=50, output=4160, input_image=40, images=2),
    ),
    ({"data": [{"url": "https://x"}]}, Usage(images=1)),
    ({"text": "hi", "usage": {"type": "duration", "seconds": 12.5}},
     Usage(input_seconds=Decimal("12.5"))),
    ({"text": "hi", "duration": 3.25, "segments": []}, Usage(input_seconds=Decimal("3.25"))),
    (
        {"usage": {"inputTokens": 3, "outputTokens": 44, "cacheReadInputTokens": 9511,
                   "cacheWriteInputTokens": 1956}},
        Usage(input=11470, output=44, cache_read=9511, cache_write=1956),
    ),
    ({"meta": {"billed_units": {"search_units": 1}}}, Usage(searches=1)),
    ({"prompt_eval_count": 26, "eval_count": 298, "done": True}, Usage(input=26, output=298)),
    ({"choices": []}, None),
    ({"usage": None}, None),
    ({"usage": []}, None),
    ({"usage": {}}, None),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), WHOLE_ANSWERS)
def test_an_answer_in_one_piece(answer: Json, expected: Usage | None) -> None:
    assert usage(answer) == expected
    data = json.dumps(answer, indent=2).encode()
    assert read(data, "application/json", *range(0, len(data), 3)).usage == expected


def test_gemini_behind_its_openai_address_hides_what_it_thought() -> None:
    stated = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 415}
    assert usage({"usage": stated}) == Usage(input=10, output=5)
    hiding = Rules(hides_reasoning=True)
    assert usage({"usage": stated}, rules=hiding) == Usage(input=10, output=405, reasoning=400)


def test_a_stated_cost_is_believed_only_where_the_rules_say_so_and_never_through_a_float() -> None:
    answer = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.1}}
    believed = usage(answer, rules=Rules(states_cost=True))
    assert believed is not None and believed.cost == Decimal("0.1")
    plain = usage(answer)
    assert plain is not None and plain.cost is None
    for lie in (-1, "0.1", True, 1e30, None, {}):
        found = usage({"usage": {"prompt_tokens": 1, "cost": lie}}, rules=Rules(states_cost=True))
        assert found is not None and found.cost is None


def test_gemini_streams_an_array_when_no_events_were_asked() -> None:
    parts = [
        {"candidates": [{"content": {"parts": [{"text": 'a } ] , { " \\ b'}]}}]},
        {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7}},
    ]
    data = ("[" + ",\r\n".join(json.dumps(part, indent=2) for part in parts) + "]\n").encode()
    for cut in range(len(data)):
        reader = read(data, "application/json", cut, is_array=True)
        assert reader.usage == Usage(input=5, output=7)
    assert read(data, "application/json", *range(len(data)), is_array=True).usage is not None


def amazon(payload: bytes) -> bytes:
    headers = b"\x0b:event-type\x07\x00\x08metadata"
    return struct.pack(">III", 16 + len(headers) + len(payload), len(headers), 0) + (
        headers + payload + struct.pack(">I", 0)
    )


def test_bedrock_streams_frames_of_a_stated_length() -> None:
    kind = "application/vnd.amazon.eventstream"
    converse = amazon(b'{"p":"ab"}') + amazon(b'{"usage":{"inputTokens":5,"outputTokens":6}}')
    event = json.dumps({"type": "message_delta", "usage": {"output_tokens": 4}}).encode()
    start = json.dumps({"type": "message_start", "message": {"usage": {"input_tokens": 9}}})
    invoke = b"".join(
        amazon(json.dumps({"bytes": base64.b64encode(part).decode()}).encode())
        for part in (start.encode(), event)
    )
    for cut in range(len(converse)):
        assert read(converse, kind, cut).usage == Usage(input=5, output=6)
    assert read(invoke, kind, *range(len(invoke))).usage == Usage(input=9, output=4)


def test_lines_of_json_are_frames_too() -> None:
    data = b'{"message":{"content":"a"}}\n{"done":true,"prompt_eval_count":3,"eval_count":4}\n'
    for cut in range(len(data)):
        assert read(data, "application/x-ndjson", cut).usage == Usage(input=3, output=4)


@pytest.mark.parametrize(
    "lie", [-1, LARGEST_COUNT + 1, 1.5, "9", True, [], {"a": 1}, 10**30, 1e300]
)
def test_a_count_that_is_none_is_left_out_and_noted(lie: Any) -> None:
    found = usage({"usage": {"prompt_tokens": lie, "completion_tokens": 3}})
    assert found == Usage(input=0, output=3, suspect=True)


ODD = [
    '"\\ud83d"', "NaN", "-Infinity", '"a\nb"', '"cut \udce2\udc82"', "9" * 5000,
    "[" * 3000 + "]" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("filling", [0, 20_000])
def test_usage_beside_what_is_not_quite_json_is_read(odd: str, filling: int) -> None:
    text = '{"model": "m", "content": "%s", "odd": %s, "usage": {"prompt_tokens": 7}}'
    data = (text % ("x" * filling, odd)).encode("utf-8", "surrogateescape")
    for whole in (data, b"\xef\xbb\xbf" + data):
        reader = read(whole)
        assert (reader.usage, reader.model) == (Usage(input=7), "m")


def test_half_a_character_is_estimated_and_named_as_any_text() -> None:
    text = b'{"model": "m\\ud83d", "choices": [{"text": "abc\\ud83d"}], "usage": null}'
    reader = read(b"data: " + text + b"\n\n", SSE)
    assert (reader.model, reader.estimate_output()) == ("m?", 1)
    assert read(text).estimate_output() == 1


@pytest.mark.parametrize("stated", [{"tokens": 9}, CHAT_USAGE | dict.fromkeys(CHAT_USAGE, 0)])
def test_usage_that_states_nothing_is_none(stated: Json) -> None:
    assert usage({"usage": stated}) is None


def test_a_count_that_is_nan_is_noted() -> None:
    found = read(b'{"usage": {"prompt_tokens": NaN, "completion_tokens": 3}}').usage
    assert found == Usage(output=3, suspect=True)


def test_what_is_no_json_is_no_usage() -> None:
    for data in (b"", b"{", b"NaN", b"\xff\xfe", b"[" * 9000):
        assert read(data).usage is None
    for data in (b"data: {\n\n", b'data: {"usage": \n\n', b'data: "usage"\n\n'):
        assert read(data, SSE).usage is None


def test_the_usage_of_a_long_answer_is_found_at_its_end_or_its_head() -> None:
    long = "x" * WHOLE
    first = {"usage": {"prompt_tokens": 7}, "model": "m-1", "data": [long]}
    last = {"model": "m-1", "data": [long, 'a \\"usage\\": {"prompt_tokens": 9}'],
            "usage": {"prompt_tokens": 7}}  # fmt: skip
    for answer in (first, last):
        data = json.dumps(answer).encode()
        reader = read(data, "application/json", *range(0, len(data), 65536))
        assert (reader.usage, reader.model) == (Usage(input=7), "m-1")
    assert len(reader._head) + len(reader._tail) < WHOLE + (1 << 20)


def test_a_frame_without_end_is_let_go() -> None:
    reader = Reader(SSE)
    passed = b""
    for _ in range(5):
        passed += b"".join(reader.feed(b"data: " + b"x" * (frames.LONGEST_FRAME // 2)))
    passed += b"".join(reader.feed(b"\n\n" + sse(chunk(CHAT_USAGE))))
    assert reader.usage == CHAT
    assert reader.received == len(passed)


def test_output_is_estimated_by_the_text_where_no_usage_came() -> None:
    events = [chunk(choices=[{"delta": {"content": "word"}}]) for _ in range(50)]
    reader = read(sse(*events), SSE)
    assert reader.usage is None and reader.estimate_output() == 50
    many = sse(*events * 200)
    assert 9_000 <= read(many, SSE).estimate_output() <= 11_000
    whole = read(json.dumps({"choices": [{"message": {"content": "four" * 10}}]}).encode())
    assert whole.estimate_output() == 10
    assert Reader(SSE).estimate_output() == 0


def test_counts_are_json() -> None:
    assert CHAT.counts()["reasoning"] == 64
    assert Usage(input_seconds=Decimal("1.5"), cost=Decimal(1)).counts() == {"input_seconds": "1.5"}
