"""The stock SDKs of three providers, with only base URL and key changed: run by
`test_provider_sdks.py` in a process of its own, with the Python that has them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import anthropic
import openai
from google import genai
from google.genai import errors as google_errors
from google.genai import types

ASK: list[Any] = [{"role": "user", "content": "Hi"}]
CLAUDE = "claude-sonnet-4-5"


def main(told: dict[str, str]) -> None:
    """Every SDK against every form of base URL; an assertion says what went wrong."""
    url, provider = told["url"], told["provider"]
    for base in (f"{url}/v1/forward/local/v1", f"{url}/v1/forward?u={provider}/v1"):
        use_openai(base, told)
    for base in (f"{url}/v1/forward/claude", f"{url}/v1/forward?u={provider}/v1"):
        use_anthropic(base, told)
    use_google(f"{url}/v1/forward/gem", told)
    no_provider = openai.OpenAI(base_url=f"{url}/v1", api_key=told["token"])
    assert no_provider.chat.completions.create(model="local/gpt-4o-mini", messages=ASK).usage
    asked = anthropic.Anthropic(base_url=url, api_key=told["token"])
    assert asked.messages.create(model=f"claude/{CLAUDE}", max_tokens=20, messages=ASK).usage


def use_openai(base: str, told: dict[str, str]) -> None:
    """JSON, streams with and without usage, responses, embeddings, models, a typed 402."""
    client = openai.OpenAI(base_url=base, api_key=told["token"])
    chat = client.chat.completions
    assert chat.create(model="gpt-4o-mini", messages=ASK).usage.total_tokens
    plain = list(chat.create(model="gpt-4o-mini", messages=ASK, stream=True))
    assert all(chunk.choices and not chunk.usage for chunk in plain)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in plain)
    option = {"include_usage": True}
    asked = chat.create(model="gpt-4o-mini", messages=ASK, stream=True, stream_options=option)
    assert [chunk.usage for chunk in asked if chunk.usage]
    assert client.responses.create(model="gpt-5-mini", input="Hi").output_text
    events = client.responses.create(model="gpt-5-mini", input="Hi", stream=True)
    assert any(event.type == "response.completed" for event in events)
    assert client.embeddings.create(model="text-embedding-3-small", input="a").usage.prompt_tokens
    assert client.models.list().data
    poor = openai.OpenAI(base_url=base, api_key=told["poor"])
    refused(
        openai.APIStatusError,
        lambda: poor.chat.completions.create(model="gpt-4o-mini", messages=ASK),
        lambda error: (error.status_code, error.code) == (402, "insufficient_credits"),
    )


def use_anthropic(base: str, told: dict[str, str]) -> None:
    """JSON, a stream, a count of tokens, a typed 402."""
    client = anthropic.Anthropic(base_url=base, api_key=told["token"])
    made = client.messages.create(model=CLAUDE, max_tokens=20, messages=ASK)
    assert made.usage.output_tokens
    with client.messages.stream(model=CLAUDE, max_tokens=20, messages=ASK) as stream:
        assert stream.get_final_message().usage.output_tokens
    assert client.messages.count_tokens(model=CLAUDE, messages=ASK).input_tokens
    poor = anthropic.Anthropic(base_url=base, api_key=told["poor"])
    refused(
        anthropic.APIStatusError,
        lambda: poor.messages.create(model=CLAUDE, max_tokens=20, messages=ASK),
        lambda error: error.status_code == 402,
    )


def use_google(base: str, told: dict[str, str]) -> None:
    """JSON, a stream, a count of tokens, a typed 402."""
    options = types.HttpOptions(base_url=base)
    client = genai.Client(api_key=told["token"], http_options=options)
    model = "gemini-2.5-flash"
    made = client.models.generate_content(model=model, contents="Hi")
    assert made.usage_metadata.candidates_token_count
    pieces = list(client.models.generate_content_stream(model=model, contents="Hi"))
    assert pieces[-1].usage_metadata.candidates_token_count
    assert client.models.count_tokens(model=model, contents="Hi").total_tokens
    poor = genai.Client(api_key=told["poor"], http_options=options)
    refused(
        google_errors.APIError,
        lambda: poor.models.generate_content(model=model, contents="Hi"),
        lambda error: error.code == 402,
    )


def refused(kind: type[Exception], act: Callable[[], Any], fits: Callable[[Any], bool]) -> None:
    """The act raises the SDK's own error, and it fits."""
    try:
        act()
    except kind as error:
        assert fits(error), error
    else:
        raise AssertionError(f"no {kind.__name__}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
