"""What a request asks for, read from its body."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

import pytest

from billing import errors
from meters.gateway import estimates

CHAT = "/v1/chat/completions"


def read(body: Any, path: str = CHAT, method: str = "POST", query: str = "") -> estimates.Asked:
    return estimates.read(method, path, query, "application/json", json.dumps(body).encode())


def chat(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]} | fields


def test_a_third_of_the_bytes_and_the_limit_times_the_copies() -> None:
    short, long = read(chat("x" * 300)), read(chat("x" * 600))
    assert long.estimate.input - short.estimate.input == 100
    assert read(chat("\u4f60" * 300)).estimate.input == read(chat("x" * 900)).estimate.input
    assert (short.estimate.output, short.limited) == (4096, False)
    asked = read(chat(max_tokens=50, n=3))
    assert (asked.estimate.output, asked.limited) == (150, True)
    assert read(chat(max_completion_tokens=7, max_tokens=9)).estimate.output == 7


@pytest.mark.parametrize(
    ("path", "body", "output"),
    [
        ("/v1/responses", {"max_output_tokens": 9}, 9),
        ("/v1beta/models/g:generateContent", {"generationConfig": {"maxOutputTokens": 8}}, 8),
        ("/model/m/converse", {"inferenceConfig": {"maxTokens": 6}}, 6),
        ("/v1/embeddings", {"input": "a"}, 0),
        (CHAT, {"max_tokens": -1}, 4096),
        (CHAT, {"max_tokens": True}, 4096),
        (CHAT, {"max_tokens": 10**12}, estimates.MOST_OUTPUT),
        (CHAT, {"max_tokens": 10, "n": 10**9}, 10 * estimates.MOST_COPIES),
    ],
)
def test_every_dialects_limit_is_read(path: str, body: dict[str, Any], output: int) -> None:
    assert read(body, path).estimate.output == output


def test_media_count_a_fixed_allowance_whatever_their_size() -> None:
    plain = read(chat()).estimate.input
    picture = "data:image/png;base64," + base64.b64encode(b"x" * 300_000).decode()
    part = [{"type": "image_url", "image_url": {"url": picture}}]
    with_one = read({"model": "m", "messages": [{"role": "user", "content": part}]})
    assert 1_000 < with_one.estimate.input - plain < 3_000
    document = {"type": "document", "source": {"type": "base64", "data": "x" * 9_000_000}}
    assert read({"messages": [{"content": [document]}]}).estimate.input < 15_000


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        (CHAT, {"model": "gpt-4o"}, "gpt-4o"),
        ("/v1beta/models/gemini-2.5-pro:generateContent", {}, "gemini-2.5-pro"),
        ("/v1beta/models/gemini-2.5-pro:generateContent", {"model": "decoy"}, "gemini-2.5-pro"),
        ("/v1beta/models/gemini%2D2.5%3AgenerateContent", {"model": "decoy"}, "gemini-2.5"),
        ("/model/eu.anthropic.claude%3A0/invoke", {}, "eu.anthropic.claude:0"),
        (CHAT, {"model": 7}, ""),
        (CHAT, [], ""),
    ],
)
def test_the_model_is_found(path: str, body: Any, model: str) -> None:
    assert read(body, path).model == model


def test_a_form_names_its_model_and_a_recording_counts_by_time() -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n\xff\xfe\r\n'
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--x--\r\n'
    )
    found = estimates.read(
        "POST", "/v1/audio/transcriptions", "", "multipart/form-data; boundary=x", form
    )
    assert (found.model, found.estimate.input_seconds) == ("whisper-1", 60)


def test_a_form_that_names_two_models_names_none() -> None:
    """Else a decoy would be allowed and another be used."""
    field = b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n"
    form = (
        b"multipart/form-data; boundary=x",
        b"".join(
            field % pair
            for pair in (
                (b'name="prompt"', b'name="model"\r\n\r\ndecoy'),
                (b'filename="model"; name="file"', b"\xff"),
                (b"Name = model", b"whisper-1"),
            )
        ),
    )

    def model(kind: bytes, body: bytes) -> str:
        return estimates.read("POST", "/v1/audio/translations", "", kind.decode(), body).model

    assert model(*form) == "whisper-1"
    assert model(form[0], form[1] + field % (b'name="model"', b"decoy")) == ""
    assert model(form[0] + b"; boundary=y", form[1]) == ""
    assert model(form[0], field % (b'name="model"', b"a\x00b")) == ""


def test_speech_counts_its_characters_and_pictures_their_number() -> None:
    assert read({"input": "Hello"}, "/v1/audio/speech").characters == 5
    assert read({"text": "Hi"}, "/v1/text-to-speech/voice/stream").characters == 2
    assert read({"prompt": "a", "n": 3}, "/v1/images/generations").estimate.images == 3


@pytest.mark.parametrize(
    ("method", "path", "billed", "long"),
    [
        ("POST", CHAT, True, False),
        ("GET", "/v1/models", False, False),
        ("POST", "/v1/messages/count_tokens", False, False),
        ("POST", "/v1beta/models/g:countTokens", False, False),
        ("DELETE", "/v1/files/f", False, True),
        ("PUT", "/v1/files/f", False, True),
        ("POST", "/v1/batches", True, True),
        ("POST", "/v1/b%61tches", True, True),
        ("POST", "/v1/messages/batches", True, True),
        ("POST", "/v1/fine_tuning/jobs", True, True),
        ("POST", "/v1beta/models/g:batchGenerateContent", True, True),
        ("POST", "/v1beta/models/g:predictLongRunning", True, True),
        ("POST", "/v1/threads/t/runs", True, True),
        ("POST", "/v1/videos", True, True),
    ],
)
def test_what_is_billed_and_what_runs_on(method: str, path: str, billed: bool, long: bool) -> None:
    asked = read({}, path, method)
    assert (asked.billed, asked.long_running) == (billed, long)


def test_background_work_runs_on() -> None:
    assert read({"input": "x", "background": True}, "/v1/responses").long_running


ODD = [
    b'{"background": true, "input": "\\ud83d"}',
    b'{"background": true, "input": NaN, "seed": %s}' % (b"9" * 5000),
    b'\xef\xbb\xbf{"background": true}',
    '{"background": true}'.encode("utf-16"),
]


@pytest.mark.parametrize("body", ODD)
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", ""])
def test_what_only_some_read_as_json_hides_nothing(body: bytes, kind: str) -> None:
    assert estimates.read("POST", "/v1/responses", "", kind, body).long_running


def test_what_is_nested_deeply_is_written_again_or_refused() -> None:
    nested = b'{"model": "m", "stream": true, "x": %s}'
    read_ = functools.partial(estimates.read, "POST", CHAT, "", "application/json")
    for inner in (b"[" * 300 + b"]" * 300, b'"\\ud83d"'):
        again = estimates.with_usage_asked(read_(nested % inner).body)
        assert b'"stream_options":{"include_usage":true}' in again and inner in again
    with pytest.raises(errors.Invalid) as refused:
        read_(nested % (b"[" * 3000 + b"]" * 3000))
    assert refused.value.code == "body_too_deep"


def test_usage_is_asked_for_only_where_a_chat_stream_did_not() -> None:
    assert read(chat(stream=True)).wants_usage_injected
    assert read(chat(stream=True, stream_options={"include_usage": False})).wants_usage_injected
    assert not read(chat(stream=True, stream_options={"include_usage": True})).wants_usage_injected
    assert not read(chat()).wants_usage_injected
    assert not read({"input": "x", "stream": True}, "/v1/responses").wants_usage_injected
    body = {"model": "m", "stream_options": {"include_obfuscation": False}}
    assert json.loads(estimates.with_usage_asked(body))["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }


def test_gemini_streams_by_its_path() -> None:
    path = "/v1beta/models/g:streamGenerateContent"
    assert read({}, path).is_array and read({}, path).stream
    assert not read({}, path, query="alt=sse").is_array


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b"null", b"[" * 5000])
def test_what_is_no_json_is_the_providers_to_refuse(body: bytes) -> None:
    assert estimates.read("POST", CHAT, "", "application/json", body).billed
