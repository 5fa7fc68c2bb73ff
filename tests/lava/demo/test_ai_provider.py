"""The local AI provider: three dialects, streamed and whole, usage that adds up, errors in each
shape."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lava.demo.ai_provider import tokens

ROOT = Path(__file__).resolve().parents[3]
OPENAI = {"Authorization": "Bearer sk-local"}
ANTHROPIC = {"x-api-key": "sk-ant-local", "anthropic-version": "2023-06-01"}
GEMINI = {"x-goog-api-key": "local"}
PROMPT = "How much is a short call?"  # 8 tokens: short is two, ? is one
GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"
STREAM = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"


@pytest.fixture(scope="module")
def provider() -> Iterator[httpx.Client]:
    child = subprocess.Popen(
        [sys.executable, "-m", "lava.demo.ai_provider", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    url = child.stdout.readline().removeprefix("ai provider on ").strip()
    with httpx.Client(base_url=url, timeout=10) as client:
        yield client
    child.terminate()
    assert child.wait(timeout=10) == 0
    child.stdout.close()


@pytest.fixture(autouse=True)
def _empty_journal(provider: httpx.Client) -> None:
    provider.delete("/_control/journal")


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}], **more}


def message(**more: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": PROMPT}],
        **more,
    }


def contents(**more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}], **more}


def frames(text: str) -> list[tuple[str | None, Any]]:
    """(event, data) of each server-sent event; `[DONE]` stays text."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return found


# Counting


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("word", 1), ("words", 2), ("two words.", 4), (PROMPT, 8), ("日本", 2), ("€", 1)],
)
def test_tokens_are_counted_by_hand(text: str, count: int) -> None:
    assert tokens.count(text) == count


def test_texts_are_found_however_a_prompt_nests_them() -> None:
    prompt = [
        {"role": "system", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "two"}, {"image_url": "no"}]},
        {"parts": [{"text": "six"}, {"inline_data": {"data": "AAAA"}}]},
    ]
    assert list(tokens.texts(prompt)) == ["one", "two", "six"]


# OpenAI


def test_chat_answers_with_usage_that_adds_up_and_repeats(provider: httpx.Client) -> None:
    first = provider.post("/v1/chat/completions", json=chat(), headers=OPENAI).json()
    again = provider.post("/v1/chat/completions", json=chat(), headers=OPENAI).json()
    usage = first["usage"]
    assert usage["prompt_tokens"] == tokens.count(PROMPT) + 3 + 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert tokens.count(first["choices"][0]["message"]["content"]) == usage["completion_tokens"]
    assert first["choices"][0]["finish_reason"] == "stop"
    assert (first["object"], again["usage"]) == ("chat.completion", usage)
    assert again["id"] != first["id"]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_chat_honours_its_limit(provider: httpx.Client, limit: str) -> None:
    answer = provider.post("/v1/chat/completions", json=chat(**{limit: 5}), headers=OPENAI).json()
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["finish_reason"] == "length"


def test_chat_makes_n_choices_and_counts_them(provider: httpx.Client) -> None:
    answer = provider.post(
        "/v1/chat/completions", json=chat(n=3, max_tokens=4), headers=OPENAI
    ).json()
    assert len(answer["choices"]) == 3
    assert answer["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize("include", [False, True])
def test_a_chat_stream_tells_usage_only_when_asked(provider: httpx.Client, include: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include else {}
    answer = provider.post(
        "/v1/chat/completions", json=chat(stream=True, **options), headers=OPENAI
    )
    whole = provider.post("/v1/chat/completions", json=chat(), headers=OPENAI).json()
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [data for _, data in frames(answer.text)]
    assert told.pop() == "[DONE]"
    text = "".join(
        choice["delta"].get("content") or "" for data in told for choice in data["choices"]
    )
    assert text == whole["choices"][0]["message"]["content"]
    if include:
        assert told[-1]["choices"] == []
        assert told[-1]["usage"] == whole["usage"]
        assert all(data["usage"] is None for data in told[:-1])
    else:
        assert all("usage" not in data for data in told)


def test_responses_whole_and_streamed_tell_the_same(provider: httpx.Client) -> None:
    body = {"model": "gpt-5-mini", "input": PROMPT, "instructions": "Be brief."}
    whole = provider.post("/v1/responses", json=body, headers=OPENAI).json()
    assert (whole["object"], whole["status"]) == ("response", "completed")
    assert whole["usage"]["input_tokens"] == tokens.count(PROMPT + " Be brief.") + 6
    stream = provider.post("/v1/responses", json=body | {"stream": True}, headers=OPENAI)
    told = frames(stream.text)
    assert [event for event, _ in told][:2] == ["response.created", "response.in_progress"]
    event, last = told[-1]
    assert event == "response.completed"
    assert last["response"]["usage"] == whole["usage"]
    assert told[0][1]["response"]["usage"] is None
    text = "".join(data["delta"] for name, data in told if name == "response.output_text.delta")
    assert text == whole["output"][0]["content"][0]["text"]
    assert [data["sequence_number"] for _, data in told] == list(range(len(told)))


def test_a_cut_response_is_incomplete(provider: httpx.Client) -> None:
    body = {"model": "gpt-5-mini", "input": PROMPT, "max_output_tokens": 3, "stream": True}
    told = frames(provider.post("/v1/responses", json=body, headers=OPENAI).text)
    event, last = told[-1]
    assert event == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["usage"]["output_tokens"] == 3


def test_embeddings_are_the_same_each_time_and_of_length_one(provider: httpx.Client) -> None:
    body = {"model": "text-embedding-3-small", "input": ["one", "two words"], "dimensions": 8}
    answer = provider.post("/v1/embeddings", json=body, headers=OPENAI).json()
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    vectors = [item["embedding"] for item in answer["data"]]
    assert [len(vector) for vector in vectors] == [8, 8]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1)
    packed = provider.post(
        "/v1/embeddings", json=body | {"encoding_format": "base64"}, headers=OPENAI
    ).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack("<8f", raw)) == pytest.approx(vectors[0], rel=1e-5)


def test_models_are_listed_in_the_callers_dialect(provider: httpx.Client) -> None:
    assert provider.get("/v1/models", headers=OPENAI).json()["object"] == "list"
    assert provider.get("/v1/models", headers=ANTHROPIC).json()["data"][0]["type"] == "model"
    listed = provider.get("/v1beta/models", headers=GEMINI).json()["models"]
    assert listed[0]["name"] == "models/gemini-2.5-flash"
    assert provider.get("/v1/models/gpt-4o", headers=OPENAI).json()["id"] == "gpt-4o"


# Anthropic


def test_messages_whole_and_streamed_tell_the_same(provider: httpx.Client) -> None:
    whole = provider.post("/v1/messages", json=message(), headers=ANTHROPIC).json()
    assert (whole["type"], whole["stop_reason"]) == ("message", "end_turn")
    assert whole["usage"]["input_tokens"] == tokens.count(PROMPT) + 4 + 3
    told = frames(provider.post("/v1/messages", json=message(stream=True), headers=ANTHROPIC).text)
    names = [event for event, _ in told]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    start, delta = told[0][1]["message"]["usage"], told[-2][1]["usage"]
    assert (start["input_tokens"], start["output_tokens"]) == (whole["usage"]["input_tokens"], 1)
    assert delta["output_tokens"] == whole["usage"]["output_tokens"]
    text = "".join(data["delta"]["text"] for name, data in told if name == "content_block_delta")
    assert text == whole["content"][0]["text"]


def test_messages_honour_their_limit_and_demand_one(provider: httpx.Client) -> None:
    cut = provider.post("/v1/messages", json=message(max_tokens=2), headers=ANTHROPIC).json()
    assert (cut["stop_reason"], cut["usage"]["output_tokens"]) == ("max_tokens", 2)
    body = message()
    del body["max_tokens"]
    refused = provider.post("/v1/messages", json=body, headers=ANTHROPIC)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"


def test_counting_tokens_agrees_with_the_usage(provider: httpx.Client) -> None:
    body = message(system="Be brief.")
    counted = provider.post("/v1/messages/count_tokens", json=body, headers=ANTHROPIC).json()
    used = provider.post("/v1/messages", json=body, headers=ANTHROPIC).json()["usage"]
    assert counted == {"input_tokens": used["input_tokens"]}
    path = GENERATE.replace("generateContent", "countTokens")
    assert provider.post(path, json=contents(), headers=GEMINI).json() == {"totalTokens": 8}


# Gemini


def test_gemini_whole_as_events_and_as_an_array_tell_the_same(provider: httpx.Client) -> None:
    whole = provider.post(GENERATE, json=contents(), headers=GEMINI).json()
    usage = whole["usageMetadata"]
    assert usage["promptTokenCount"] == tokens.count(PROMPT)
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
    assert whole["candidates"][0]["finishReason"] == "STOP"

    events = provider.post(STREAM, params={"alt": "sse"}, json=contents(), headers=GEMINI)
    array = provider.post(STREAM, json=contents(), headers=GEMINI)
    assert events.headers["content-type"].startswith("text/event-stream")
    assert array.headers["content-type"].startswith("application/json")
    for chunks in ([data for _, data in frames(events.text)], array.json()):
        assert chunks[-1]["usageMetadata"] == usage
        assert "candidatesTokenCount" not in chunks[0]["usageMetadata"]
        text = "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks)
        assert text == whole["candidates"][0]["content"]["parts"][0]["text"]


def test_gemini_honours_its_limit_and_a_key_in_the_query(provider: httpx.Client) -> None:
    body = contents(generationConfig={"maxOutputTokens": 3})
    answer = provider.post(GENERATE, params={"key": "local"}, json=body).json()
    assert answer["usageMetadata"]["candidatesTokenCount"] == 3
    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"


# Errors


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "shape"),
    [
        ("/v1/chat/completions", {}, chat(), 401, ("type", "invalid_request_error")),
        ("/v1/messages", {}, message(), 401, ("type", "authentication_error")),
        (GENERATE, {}, contents(), 403, ("status", "PERMISSION_DENIED")),
        ("/v1/chat/completions", OPENAI, {"model": "m"}, 400, ("param", "messages")),
        ("/v1/chat/completions", OPENAI, chat(max_tokens=-1), 400, ("param", "max_tokens")),
        ("/v1/chat/completions", OPENAI, [1], 400, ("type", "invalid_request_error")),
        ("/v1/responses", OPENAI, {"model": "m"}, 400, ("param", "input")),
        ("/v1/embeddings", OPENAI, {"input": "x"}, 400, ("param", "model")),
        ("/v1/messages", ANTHROPIC, {"max_tokens": 1}, 400, ("type", "invalid_request_error")),
        (GENERATE, GEMINI, {}, 400, ("status", "INVALID_ARGUMENT")),
        ("/v1/nothing", OPENAI, {}, 404, ("type", "invalid_request_error")),
        ("/v1/messages/nothing", ANTHROPIC, {}, 404, ("type", "not_found_error")),
        ("/v1beta/models/x:nothing", GEMINI, {}, 404, ("status", "NOT_FOUND")),
    ],
)
def test_errors_come_in_the_dialects_shape(
    provider: httpx.Client,
    path: str,
    headers: dict[str, str],
    body: Any,
    status: int,
    shape: tuple[str, str],
) -> None:
    answer = provider.post(path, json=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"][shape[0]] == shape[1]
    assert answer.json()["error"]["message"]


def test_what_is_no_json_is_400(provider: httpx.Client) -> None:
    for path, headers in (("/v1/chat/completions", OPENAI), ("/v1/messages", ANTHROPIC)):
        answer = provider.post(path, content=b"{not json", headers=headers)
        assert (answer.status_code, "error" in answer.json()) == (400, True)


# Steering and the journal


def test_a_request_steers_its_own_answer(provider: httpx.Client) -> None:
    steer = {"x-stub-input-tokens": "1000000", "x-stub-output-tokens": "250"}
    usage = provider.post("/v1/chat/completions", json=chat(), headers=OPENAI | steer).json()
    assert usage["usage"]["prompt_tokens"] == 1_000_000
    assert usage["usage"]["completion_tokens"] == 250

    start = time.monotonic()
    provider.post("/v1/chat/completions", json=chat(), headers=OPENAI | {"x-stub-delay-ms": "300"})
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("path", "headers", "body", "name", "value"),
    [
        ("/v1/chat/completions", OPENAI, chat(), "code", "rate_limit_exceeded"),
        ("/v1/messages", ANTHROPIC, message(), "type", "rate_limit_error"),
        (GENERATE, GEMINI, contents(), "status", "RESOURCE_EXHAUSTED"),
    ],
)
def test_a_status_is_forced(
    provider: httpx.Client,
    path: str,
    headers: dict[str, str],
    body: Any,
    name: str,
    value: str,
) -> None:
    answer = provider.post(path, json=body, headers=headers | {"x-stub-status": "429"})
    assert answer.status_code == 429
    assert answer.json()["error"][name] == value
    assert answer.headers["retry-after"] == "1"


def test_a_stream_is_cut_when_told(provider: httpx.Client) -> None:
    headers = OPENAI | {"x-stub-cut-after": "2"}
    seen = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        provider.stream(
            "POST", "/v1/chat/completions", json=chat(stream=True), headers=headers
        ) as answer,
    ):
        for piece in answer.iter_bytes():
            seen += piece
    assert seen.count(b"data: ") == 2


def test_a_stream_comes_piece_by_piece(provider: httpx.Client) -> None:
    headers = OPENAI | {"x-stub-chunk-delay-ms": "60"}
    times = []
    with provider.stream(
        "POST", "/v1/chat/completions", json=chat(stream=True), headers=headers
    ) as answer:
        for _ in answer.iter_bytes():
            times.append(time.monotonic())
    assert len(times) >= 4
    assert times[-1] - times[0] >= 0.15


def test_the_journal_keeps_what_arrived(provider: httpx.Client) -> None:
    provider.post("/v1/chat/completions?x=1", json=chat(), headers=OPENAI)
    provider.post("/v1/messages", json=message(), headers={})
    entries = provider.get("/_control/journal").json()["data"]
    assert [(entry["method"], entry["path"], entry["status"]) for entry in entries] == [
        ("POST", "/v1/chat/completions", 200),
        ("POST", "/v1/messages", 401),
    ]
    assert entries[0]["query"] == {"x": "1"}
    assert entries[0]["headers"]["authorization"] == "Bearer sk-local"
    assert json.loads(entries[0]["body"]) == chat()
    assert provider.delete("/_control/journal").json() == {"data": []}


def test_a_chunked_body_is_read(provider: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        text = json.dumps(chat()).encode()
        yield text[:20]
        yield text[20:]

    answer = provider.post("/v1/chat/completions", content=pieces(), headers=OPENAI)
    assert answer.status_code == 200
