"""Ready code for a forward token: each SDK with only its base URL and key changed. Pure.

The token itself stands in no snippet but in the environment, `LAVA_TOKEN`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from meters.gateway import providers
from meters.gateway.providers import Provider

# A model that a snippet asks for, by dialect.
MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-flash",
}


@dataclass(frozen=True, slots=True)
class Snippet:
    """Code for one SDK. `missing` names a provider whose key it needs and that has none."""

    key: str
    name: str
    install: str
    code: str
    missing: str = ""


def make(
    base: str,
    rows: Iterable[Provider],
    *,
    keyed: Collection[str],
    allowed: Collection[str] | None = None,
    model: str = "",
) -> list[Snippet]:
    """The snippets for a token.

    Args:
        base: this product's address, without a slash at its end.
        rows: every provider the merchant may call, their own first.
        keyed: slugs of those whose key is entered.
        allowed: slugs the token may call; None is any.
        model: one that the token may use, where it may not use any.
    """
    every = list(rows)
    chosen = {
        dialect: _choose(dialect, every, keyed=keyed, allowed=allowed)
        for dialect in ("openai", "anthropic", "google")
    }
    found: list[Snippet] = []
    for key, name, install, dialect, template in _TEMPLATES:
        row = chosen[dialect]
        if row is None:
            continue
        code = (
            template.replace("{base}", f"{base}/v1/forward/{row.slug}")
            .replace("{path}", row.paths[0])
            .replace("{model}", model or MODELS[dialect])
        )
        missing = "" if row.slug in keyed else row.name
        found.append(Snippet(key, name, install, code, missing))
    return found


def _choose(
    dialect: str,
    rows: list[Provider],
    *,
    keyed: Collection[str],
    allowed: Collection[str] | None,
) -> Provider | None:
    """Whom the code of a dialect calls: one with a key, else the one the dialect is named after."""
    fitting = [
        row for row in rows if row.dialect == dialect and (allowed is None or row.slug in allowed)
    ]
    with_key = (row for row in fitting if row.slug in keyed)
    named = providers.BY_SLUG[dialect]
    return next(with_key, None) or (named if named in fitting else next(iter(fitting), None))


_CURL = """\
curl {base}{path}/chat/completions \\
  -H "Authorization: Bearer $LAVA_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "{model}",
       "messages": [{"role": "user", "content": "Hello"}]}'"""

_OPENAI_PYTHON = """\
import os
from openai import OpenAI

client = OpenAI(
    base_url="{base}{path}",
    api_key=os.environ["LAVA_TOKEN"],
)
answer = client.chat.completions.create(
    model="{model}",
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)"""

_OPENAI_NODE = """\
import OpenAI from 'openai';

const client = new OpenAI({
  baseURL: '{base}{path}',
  apiKey: process.env.LAVA_TOKEN,
});
const answer = await client.chat.completions.create({
  model: '{model}',
  messages: [{role: 'user', content: 'Hello'}],
});
console.log(answer.choices[0].message.content);"""

_AI_SDK = """\
import {createOpenAI} from '@ai-sdk/openai';
import {generateText} from 'ai';

const openai = createOpenAI({
  baseURL: '{base}{path}',
  apiKey: process.env.LAVA_TOKEN,
});
const {text} = await generateText({
  model: openai.chat('{model}'),
  prompt: 'Hello',
});
console.log(text);"""

_ANTHROPIC = """\
import os
from anthropic import Anthropic

client = Anthropic(
    base_url="{base}",
    api_key=os.environ["LAVA_TOKEN"],
)
answer = client.messages.create(
    model="{model}",
    max_tokens=200,
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.content[0].text)"""

_GOOGLE = """\
import os
from google import genai
from google.genai import types

client = genai.Client(
    api_key=os.environ["LAVA_TOKEN"],
    http_options=types.HttpOptions(base_url="{base}"),
)
answer = client.models.generate_content(
    model="{model}", contents="Hello"
)
print(answer.text)"""

# Key, name, how it is installed, whose dialect it speaks, the code.
_TEMPLATES = (
    ("curl", "curl", "", "openai", _CURL),
    ("openai-python", "OpenAI, Python", "pip install openai", "openai", _OPENAI_PYTHON),
    ("openai-node", "OpenAI, Node", "npm install openai", "openai", _OPENAI_NODE),
    ("ai-sdk", "Vercel AI SDK", "npm install ai @ai-sdk/openai", "openai", _AI_SDK),
    ("anthropic", "Anthropic", "pip install anthropic", "anthropic", _ANTHROPIC),
    ("google", "Google Gemini", "pip install google-genai", "google", _GOOGLE),
)
